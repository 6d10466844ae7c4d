"""Resizing, rearrangements, filters, and the transposed convolution."""

from typing import Any

from flax import nnx

from jaxup import nn, ops
from jaxup.interop.keys import unfilled
from tests.golden_cases.converted import Function

RESIZE: dict[str, dict[str, Any]] = {
    "adaptive_avg_pool": dict(method="area"),
    "bicubic_antialias": dict(method="bicubic", antialias=True),
    "bicubic_matlab": dict(method="bicubic", antialias=True, cubic_coefficient=-0.5, border="mirror"),
    "bicubic_torch": dict(method="bicubic"),
    "bilinear": dict(method="bilinear"),
    "bilinear_align_corners": dict(method="bilinear", align_corners=True),
    "bilinear_antialias": dict(method="bilinear", antialias=True),
    "nearest": dict(method="nearest"),
    "nearest_exact": dict(method="nearest_exact"),
}


def resize(options: dict[str, Any]) -> Function:
    return lambda inputs, params, config: ops.resize(inputs["x"], size=tuple(config["out_hw"]), **options)


def guided_filter(inputs, params, config):
    return ops.guided_filter(inputs["src"], inputs["guide"], radius=config["radius"], eps=config["eps"])


def joint_bilateral_upsample(inputs, params, config):
    options = {name: config[name] for name in ("scale", "radius", "sigma_spatial", "sigma_range")}
    return ops.joint_bilateral_upsample(inputs["src"], inputs["guide"], guide_lr=inputs.get("guide_lr"), **options)


def deconvolution(inputs, params, config):
    """PyTorch's [in, out / groups, K, K], flipped; with groups, in and out are swapped inside each group."""
    weight, groups = params["weight"][:, :, ::-1, ::-1], config["groups"]
    cin, per_group, size = weight.shape[:3]
    options = dict(scale=config["stride"], kernel_size=size, groups=groups, use_bias=config["bias"])
    module = unfilled(lambda: nn.Deconvolution(cin, groups * per_group, **options, rngs=nnx.Rngs(0)))
    weight = weight.reshape(groups, cin // groups, per_group, size, size)
    module.kernel.set_value(weight.transpose(3, 4, 1, 0, 2).reshape(size, size, cin // groups, groups * per_group))
    if config["bias"]:
        module.bias.set_value(params["bias"])
    return module(inputs["x"])


OPERATORS: dict[str, Function] = {
    **{f"resize {name}": resize(options) for name, options in RESIZE.items()},
    "pixel_shuffle": lambda inputs, params, config: ops.pixel_shuffle(inputs["x"], scale=config["factor"]),
    "pixel_unshuffle": lambda inputs, params, config: ops.pixel_unshuffle(inputs["x"], scale=config["factor"]),
    "zero upsampling (unpool without indices)": lambda inputs, params, config: ops.zero_upsample(
        inputs["x"], scale=config["stride"]
    ),
    "ConvTranspose2d scaling exactly by the stride": deconvolution,
    "guided filter": guided_filter,
    "joint bilateral upsampling": joint_bilateral_upsample,
    "gaussian smoothing of the query (q_GS)": lambda inputs, params, config: ops.gaussian_filter(
        inputs["q"], sigma=config["sigma"], radius=config["kernel_size"] // 2
    ),
}
