"""Operators that predict a kernel per pixel: CARAFE, SAPA, FADE; and reassembly by given kernels."""

from jaxup import ops
from jaxup.ops.similarity import similarity_scores
from tests.golden_cases.converted import Function, converted


def reassemble(inputs, params, config):
    return ops.reassemble(inputs["features"], inputs["masks"], **_options(config))


def downsample_reassemble(inputs, params, config):
    return ops.downsample_reassemble(inputs["features"], inputs["masks"], **_options(config))


def _options(config):
    return dict(scale=config["scale_factor"], kernel_size=config["kernel_size"], groups=config["group_size"])


def similarity(inputs, params, config):
    q, k, v = (inputs[name] for name in "qkv")
    scale, size = config["scale_factor"], config["kernel_size"]
    scores = similarity_scores(q, k, (scale, scale), size)
    return {"scores": scores, "y": ops.similarity_upsample(q, k, v, scale=scale, kernel_size=size)}


OPERATORS: dict[str, Function] = {
    "carafe reassembly op": reassemble,
    "biupsample": reassemble,
    "bidownsample": downsample_reassemble,
    "CARAFEPack": converted("CARAFEPack", "x"),
    "sim + softmax + atn": similarity,
    **{name: converted(name, "x", "y") for name in ("SAPA", "SAPAExp")},
    **{name: converted(name, "de", "en") for name in ("FADE", "FADELite", "SemiShift", "SemiShiftUp")},
}
