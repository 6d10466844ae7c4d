"""Operators whose kernels follow affinities or a guide: A2U, JBU, PAC, ReSFU, DJF."""

import jax.numpy as jnp

from jaxup import ops
from tests.golden_cases.converted import Function, build, converted, part


def a2u(inputs, params, config):
    kernels = build("InterChannelUpDown", part(params, "block."), config)(inputs["x"])
    size = config["up_kernel_size"]
    return {
        "idx_down": kernels.down[..., 0, :],
        "idx_up": kernels.up[..., 0, :],
        "down": ops.downsample_reassemble(inputs["x"], kernels.down, scale=2, kernel_size=2 * size),
        "up": ops.reassemble(inputs["z"], kernels.up, scale=2, kernel_size=size),
    }


def adaptive_conv(inputs, params, config):
    """On an image that is padded already."""
    size, filters = config["kernel"], inputs["filters"]
    kernels = filters.reshape(*filters.shape[:3], size**2)
    r = size // 2
    kernels = jnp.pad(kernels, ((0, 0), (r, r), (r, r), (0, 0)))
    out = ops.reassemble(inputs["input"], kernels, scale=1, kernel_size=size)
    return out[:, r : out.shape[1] - r, r : out.shape[2] - r]


def fine_neighbours(inputs, params, config):
    options = {name: config[name] for name in ("scale", "kernel_size")}
    return ops.fine_neighbour_attention(inputs["value"], inputs["attn"], **options)


def dmsg(inputs, params, config):
    return {"high_frequency": build("DMSG", params, config).high(inputs["y"], inputs["d"])}


OPERATORS: dict[str, Function] = {
    "InterChannelUpDown + down/up-sampling": a2u,
    "JBULearnedRange": converted("JBULearnedRange", "source", "guidance"),
    "JBUStack": converted("JBUStack", "source", "guidance"),
    "adaptive_conv": adaptive_conv,
    "PacConvTranspose2d": converted("PacConvTranspose2d", "x", "guide"),
    "PacJointUpsample": converted("PacJointUpsample", "target_low", "guide"),
    "ReSFU": converted("ReSFU", "x", "y"),
    "PCDC_Block": converted("PCDC_Block", "k", "q"),
    "GuidedFilter": converted("GuidedFilter", "p", "I"),
    "fns_attn": fine_neighbours,
    "DJF": converted("DJF", "target", "guide"),
    "DJFR": converted("DJFR", "target", "guide"),
    "DMSG (MSG-Net)": dmsg,
}
