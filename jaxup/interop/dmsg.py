"""Official MSG-Net (twhui/MSG-Net, in Caffe) to `jaxup.models.DMSG`: arrays by the names of the Caffe layers."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, conv
from jaxup.models.dmsg import DMSG


def _layer(torch: str, slope: str, ours: str, layout: str = "conv") -> Table:
    return conv(torch, f"{ours}.conv", layout=layout) | {f"{slope}.weight": Key(f"{ours}.slope")}


def dmsg_keys(module: DMSG, before: str = "") -> Table:
    """Names of the released definitions: `conv1-Y`, `deconv2-D`, `conv2a-x4`, `conv3a-x8`, ..., with `before` them."""
    levels = len(module.levels)
    table: Table = {}

    def add(name: str, number: str, ours: str, layout: str = "conv") -> None:
        table.update(_layer(f"{before}{name}{number}", f"{before}prelu{number}", ours, layout))

    for i in range(2):
        add("conv", f"{i + 1}-Y", f"luma.{i}")
    for i in range(levels - 1):
        add("conv", f"{i + 3}-Y", f"coarser.{i}")
    add("conv", "1-D", "depth.0")
    add("deconv", "2-D", "depth.1", "conv_transpose")
    for i in range(levels):
        finest, factor = i == levels - 1, 2 ** (i + 2)
        suffix = "" if finest else f"-x{factor}"
        for j, letter in enumerate("abc" if finest else "ab"):
            add("conv", f"{i + 2}{letter}{suffix}", f"levels.{i}.{j}")
        if not finest:
            add("deconv", f"{i + 3}{suffix}", f"levels.{i}.2", "conv_transpose")
    return table | conv(f"{before}conv{levels + 2}", "last")


def _dmsg(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    module = DMSG(scale=config["scale"], rngs=nnx.Rngs(0))
    return module, dmsg_keys(module, "m."), dmsg_keys(module)


OPERATORS: Operators = {"DMSG": _dmsg}
