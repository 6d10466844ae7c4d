"""Pixel-adaptive transposed convolution and joint upsampling of NVlabs/pacnet."""

from typing import Any

from flax import nnx

from jaxup._checks import check_int, fail
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


def _widths(config: dict[str, Any], branch: str, count: int) -> tuple[int, ...]:
    """The official widths of a branch, one number for all or a number each."""
    name = f"n_{branch}_filters"
    widths = config.get(name, 32)
    widths = (widths,) * count if isinstance(widths, int) else tuple(widths)
    if len(widths) != count:
        fail("config", f"{name} with {count} numbers", widths)
    return widths


def _joint(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    keys, factor = config.get("k_ch", 16), check_int("factor", config["factor"], 2)
    doublings = factor.bit_length() - 1
    layers = {branch: config.get(f"n_{branch}_layers", count) for branch, count in (("t", 3), ("g", 3), ("f", 2))}
    for name in ("t_bn", "g_bn", "u_bn", "f_bn"):
        _require(config, name, False)
    module = PacJointUpsample(
        config.get("channels", 1),
        config.get("guide_channels", 3),
        scale=factor,
        key_features=keys,
        kernel_size=config.get("f_sz_1", 5),
        pac_kernel_size=config.get("f_sz_2", 5),
        target_widths=_widths(config, "t", layers["t"]),
        guide_widths=_widths(config, "g", layers["g"] - 1),
        final_widths=_widths(config, "f", doublings + layers["f"] - 1),
        rngs=nnx.Rngs(0),
    )
    table: Table = {}
    for letter, branch in (("t", "target"), ("g", "guide"), ("f", "final")):
        for n in range(layers[letter]):
            table |= conv(f"branch_{letter}.conv{n + 1}", f"{branch}.{n}")
    table[f"branch_g.conv{layers['g']}.bias"] = Unused((doublings * keys,))  # likeness is blind to it
    for n in range(doublings):
        table |= prefixed(TRANSPOSED, f"up_convts.{n}.", f"doublings.{n}.")
    return module, table


# Filters of the target, the guide and the final branch, and k_ch, by factor.
_LITE = {
    4: ((12, 16, 22), (12, 22), (12, 16, 22), 12),
    8: ((12, 16, 16), (12, 16), (12, 16, 16, 20), 12),
    16: ((8, 16, 16), (8, 16), (8, 16, 16, 16, 16), 10),
}


def _lite(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    if config["factor"] not in _LITE:
        fail("config", f"factor one of {', '.join(map(str, _LITE))}", config["factor"])
    names = ("n_t_filters", "n_g_filters", "n_f_filters", "k_ch")
    return _joint(config | dict(zip(names, _LITE[config["factor"]], strict=True)))


OPERATORS: Operators = {
    "PacConvTranspose2d": _transposed,
    "PacJointUpsample": _joint,
    "PacJointUpsampleLite": _lite,
}
