"""Backbones of image networks, with the classifiers that their official forms have."""

from jaxup.models.backbones.layers import max_pool
from tests.golden_cases.converted import Function, build, with_statistics


def backbone(operator, outputs, **fixed) -> Function:
    """The official network; `outputs(module, x)` names its results, `fixed` are arguments that no config has."""

    def run(inputs, params, config):
        config = config | fixed
        name = operator(config) if callable(operator) else operator
        module = build(name, params, config)
        return with_statistics(outputs(module, inputs["x"]), name, module, config)

    return run


def resnet(module, x):
    stem, *maps = module(x)
    named = {f"layer{i + 1}": y for i, y in enumerate(maps)}
    return {"stem": max_pool(stem, 3, padding=1), **named, "logits": module.classify(maps)}


def vgg(module, x):
    maps = module(x)
    return {f"relu{i}": y for i, y in zip((5, 12, 22, 32, 42), maps, strict=True)} | {"pool5": max_pool(maps[-1], 2)}


def mobilenet(module, x):
    """The head of the classifier only once: in training it moves its statistics."""
    maps = module(x)
    hidden = module.head(maps[-1])
    named = {f"features{i}": y for i, y in zip((1, 3, 6, 13, 17), maps, strict=True)}
    return named | {"features18": hidden, "logits": module.classifier(hidden.mean((1, 2)))}


def five_maps(module, x):
    maps = module(x)
    logits = {} if module.head is None else {"logits": module.classify(maps)}
    return {f"f{i}": y for i, y in enumerate(maps)} | logits


def vit(module, x):
    tokens, (block2, block8) = module.encode(x)
    return {"tokens": tokens, "logits": module.classify(tokens), "block2": block2, "block8": block8}


def vit_name(config):
    return f"vit_{dict(ti='tiny', s='small', b='base', l='large')[config['variant']]}_patch16_224"


OPERATORS: dict[str, Function] = {
    **{f"torchvision resnet{depth}": backbone(f"resnet{depth}", resnet) for depth in (18, 50)},
    "torchvision vgg16_bn.features": backbone("vgg16_bn", vgg),
    "torchvision mobilenet_v2": backbone("mobilenet_v2", mobilenet),
    "timm mobilenetv2_100": backbone("mobilenetv2_100", five_maps),
    "MobileNetV2Dilated (CSAILVision)": backbone("MobileNetV2Dilated", five_maps),
    "ViT (timm)": backbone(vit_name, vit, taps=(3, 9)),
}
