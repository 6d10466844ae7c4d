"""Pixel-adaptive transposed convolution and joint upsampling of NVlabs/pacnet."""

from typing import Any

from flax import nnx

from jaxup._checks import fail
from jaxup.interop.keys import Key, Operators, Table, Unused, conv, prefixed
from jaxup.nn.pac import PacConvTranspose, PacJointUpsample

TRANSPOSED: Table = {"weight": Key("kernel", "conv_in_out"), "bias": Key("bias")}


def _require(config: dict[str, Any], name: str, value: Any) -> None:
    if config.get(name, value) != value:
        fail("config", f"{name} = {value!r}", repr(config[name]))


def _transposed(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    size, scale = config["kernel_size"], config["stride"]
    _require(config, "kernel_type", "gaussian")
    _require(config, "padding", size // 2)
    _require(config, "output_padding", scale - 1)
    module = PacConvTranspose(
        config["in_channels"],
        config["out_channels"],
        scale=scale,
        kernel_size=size,
        normalize_kernel=config.get("normalize_kernel", False),
        shared_filters=config.get("shared_filters", False),
        use_bias=config.get("bias", True),
        rngs=nnx.Rngs(0),
    )
    return module, TRANSPOSED if module.bias is not None else {"weight": TRANSPOSED["weight"]}


def _joint(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    """The three widths are one for us, as they are equal in the official configurations."""
    width, keys = config.get("n_t_filters", 32), config.get("k_ch", 16)
    for name in ("n_g_filters", "n_f_filters"):
        if config.get(name, 32) != width:
            fail("config", f"{name} = n_t_filters = {width}", config.get(name, 32))
    module = PacJointUpsample(
        config.get("channels", 1),
        config.get("guide_channels", 3),
        scale=config["factor"],
        features=width,
        key_features=keys,
        kernel_size=config.get("f_sz_1", 5),
        pac_kernel_size=config.get("f_sz_2", 5),
        rngs=nnx.Rngs(0),
    )
    table: Table = {}
    for letter, branch, count in (("t", "target", 3), ("g", "guide", 3), ("f", "final", 2)):
        for n in range(count):
            table |= conv(f"branch_{letter}.conv{n + 1}", f"{branch}.{n}")
    table["branch_g.conv3.bias"] = Unused((len(module.doublings) * keys,))  # likeness is blind to it
    for n in range(len(module.doublings)):
        table |= prefixed(TRANSPOSED, f"up_convts.{n}.", f"doublings.{n}.")
    return module, table


OPERATORS: Operators = {"PacConvTranspose2d": _transposed, "PacJointUpsample": _joint}
