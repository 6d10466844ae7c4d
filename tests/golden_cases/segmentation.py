"""Whole segmentation networks: their outputs beside the features, and logits resized to the image."""

from jaxup import ops
from jaxup.models import BACKBONES
from tests.golden_cases.converted import Function, build, with_statistics


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


OPERATORS: dict[str, Function] = {
    "SegFormer (NVlabs names)": network("nvlabs.SegFormer", nvlabs, segformer),
    "SegFormer (mmseg 1.x)": network("mmseg.SegFormer", mmseg, segformer),
    "SegformerForSemanticSegmentation": network("SegformerForSemanticSegmentation", hugging_face, segformer),
}
