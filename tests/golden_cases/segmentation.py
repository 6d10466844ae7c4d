"""Whole segmentation networks: their outputs beside the features, and logits resized to the image."""

from jaxup import ops
from jaxup.models import BACKBONES
from jaxup.models.segmentation import whole
from tests.golden_cases.converted import Function, build, converted, with_statistics


def network(operator, official, outputs) -> Function:
    """The official network; `official(config)` are its arguments, `outputs(module, x)` names its results."""

    def run(inputs, params, config):
        mode = {key: config[key] for key in ("mode", "dtype") if key in config}
        named = official(config) | mode
        name = operator(config) if callable(operator) else operator
        module = build(name, params, named)
        return with_statistics(outputs(module, inputs["x"]), name, module, named)

    return run


def full(logits, x):
    """At the size of the image."""
    return ops.resize(logits, size=x.shape[1:3], method="bilinear")


def segformer(module, x):
    found = module.outputs(x)
    maps = {f"c{i + 1}": y for i, y in enumerate(found["features"])}
    return maps | {"logits": found["logits"], "full": full(found["logits"], x)}


def nvlabs(config):
    return {"backbone": f"mit_{config['variant']}", "num_classes": config["num_classes"]}


def mmseg(config):
    return {"backbone": f"mit_{config['variant']}", "decode_head": {"num_classes": config["num_classes"]}}


def hugging_face(config):
    wide = config["variant"] not in ("b0", "b1")
    sizes = BACKBONES[f"mit_{config['variant']}"][1]
    head = {"decoder_hidden_size": 768 if wide else 256, "num_labels": config["num_classes"]}
    return {"hidden_sizes": sizes["widths"], "depths": sizes["depths"]} | head


VITS = {"tiny": "vit_ti", "small": "vit_s", "base": "vit_b", "large": "vit_l"}


def vit_sizes(config):
    """Of a variant such as "vit_small_patch16"."""
    _, size, patch = config["variant"].split("_")[:3]
    return {"depth": 12, "patch_size": int(patch.removeprefix("patch"))} | BACKBONES[VITS[size]][1]


def segmenter(config):
    sizes, size = vit_sizes(config), config["image_size"]
    decoder = {"linear": "linear", "mask": "mask_transformer"}[config["decoder"]]
    return {
        "image_size": (size, size) if isinstance(size, int) else size,
        "patch_size": sizes["patch_size"],
        "d_model": sizes["width"],
        "n_heads": sizes["num_heads"],
        "n_layers": sizes["depth"],
        "n_cls": config["n_cls"],
        "decoder": {"name": decoder},
    }


def segmenter_mmseg(config):
    sizes = vit_sizes(config)
    backbone = {"embed_dims": sizes["width"], "num_layers": sizes["depth"], "num_heads": sizes["num_heads"]}
    backbone |= {key: config[key] for key in ("img_size", "interpolate_mode") if key in config}
    backbone |= {"patch_size": sizes["patch_size"]}
    return {"backbone": backbone, "decode_head": {"num_classes": config["num_classes"]}}


def padded(module, x):
    """Logits at the size of the padded image, cut to that of the image."""
    found = module.outputs(x)
    return {"tokens": found["tokens"], "y": whole(lambda x: found["logits"], x, cell=module.cell)}


def fcn(module, x):
    found = module.outputs(x)
    return {"feat": found["features"][-1], "logits": found["logits"], "full": full(found["logits"], x)}


def deeplab(inputs, params, config):
    """Images of the official network are B, G, R. Of the three scales, its second output is resized to the first."""
    found = build("MS_Deeplab", params, {**config, "NoLabels": config["labels"]}).outputs(inputs["x"][..., ::-1])
    whole, middle, small = found["scales"]
    middle = ops.resize(middle, size=whole.shape[1:3], method="bilinear", align_corners=True)
    return {"s100": whole, "s075": middle, "s050": small, "max": found["coarse"]}


OPERATORS: dict[str, Function] = {
    "SegFormer (NVlabs names)": network("nvlabs.SegFormer", nvlabs, segformer),
    "SegFormer (mmseg 1.x)": network("mmseg.SegFormer", mmseg, segformer),
    "SegformerForSemanticSegmentation": network("SegformerForSemanticSegmentation", hugging_face, segformer),
    "Segmenter": network("segm.Segmenter", segmenter, padded),
    "Segmenter FCN head (mmseg names)": network("mmseg.Segmenter", segmenter_mmseg, fcn),
    "DeepLab-v2 (ResNet-101, three scales)": deeplab,
    "ReSFU guide extractor": converted("shallow_feat_extractor", "x"),
}
