"""PSPNet, feature pyramids, UperNet and SegNet."""

import jax

from jaxup.ops import resize
from tests.golden_cases.converted import Function, build, with_statistics


def network(operator, outputs) -> Function:
    """The official network or part; `outputs(module, inputs, config)` names its results."""

    def run(inputs, params, config):
        module = build(operator, params, config)
        return with_statistics(outputs(module, inputs, config), operator, module, config)

    return run


def levels(inputs):
    """Maps of a backbone, fine to coarse."""
    return [inputs[name] for name in sorted(inputs)]


def pspnet(module, inputs, config):
    x = inputs["x"]
    found = module.outputs(x)
    maps = {f"layer{i + 1}": y for i, y in enumerate(found["features"][1:])}
    full = resize(found["logits"], size=x.shape[1:3])
    return maps | {"logits": found["logits"], "aux": found["auxiliary"], "full": full}


def segnet(module, inputs, config):
    found = module.outputs(inputs["x"])
    return dict(zip(("pool5", "dec0", "dec1", "dec2", "dec3"), found["features"], strict=True)) | {
        "logits": found["logits"]
    }


def fpn(module, inputs, config):
    return {f"p{i}": y for i, y in enumerate(module(levels(inputs)))}


def torchvision_fpn(module, inputs, config):
    extra = {"pool": ("pool",), "p6p7": ("p6", "p7")}.get(config["extra"], ())
    return dict(zip((*sorted(inputs), *extra), module(levels(inputs)), strict=True))


def hf_upernet(module, inputs, config):
    found = module.outputs(levels(inputs))
    return {"y": found["logits"]} | ({"aux": found["auxiliary"]} if "auxiliary" in found else {})


def csail_upernet(module, inputs, config):
    """The official module ends with the softmax, or with its logarithm."""
    y = module(levels(inputs))
    if not config["use_softmax"]:
        return jax.nn.log_softmax(y)
    return jax.nn.softmax(resize(y, size=tuple(config["segSize"])))


OPERATORS: dict[str, Function] = {
    "PSPNet (mmseg names)": network("PSPNet", pspnet),
    "SegNet": network("SegNet", segnet),
    "FPN (mmseg/mmdet)": network("FPN", fpn),
    "torchvision FeaturePyramidNetwork": network("FeaturePyramidNetwork", torchvision_fpn),
    "FPNHead (mmseg, Semantic FPN)": network("FPNHead", lambda module, inputs, _: module(levels(inputs))),
    "UPerHead (mmseg)": network("UPerHead", lambda module, inputs, _: module(levels(inputs))),
    "UperNetHead + UperNetFCNHead (HF names)": network("UperNetHead", hf_upernet),
    "UPerNet (CSAILVision)": network("UPerNet", csail_upernet),
}
