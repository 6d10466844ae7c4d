"""Official MSG-Net (twhui/MSG-Net, in Caffe) to `jaxup.models.DMSG`: arrays by the names of the Caffe layers."""

from typing import Any

from flax import nnx

from jaxup.interop.keys import Key, Operators, Table, conv
from jaxup.models.dmsg import DMSG


def _layer(torch: str, slope: str, ours: str, layout: str = "conv") -> Table:
    return conv(torch, f"{ours}.conv", layout=layout) | {f"{slope}.weight": Key(f"{ours}.slope")}


def dmsg_keys(module: DMSG, factors: list[int]) -> Table:
    """Names of the released definitions: `conv1-Y`, `deconv2-D`, `conv2a-x4`, ..., with "m." before them.

    `factors` are the numbers behind the x of all levels but the finest.
    """
    levels = len(module.levels)
    table: Table = {}
    for i in range(2):
        table |= _layer(f"m.conv{i + 1}-Y", f"m.prelu{i + 1}-Y", f"luma.{i}")
    for i in range(levels - 1):
        table |= _layer(f"m.conv{i + 3}-Y", f"m.prelu{i + 3}-Y", f"coarser.{i}")
    table |= _layer("m.conv1-D", "m.prelu1-D", "depth.0")
    table |= _layer("m.deconv2-D", "m.prelu2-D", "depth.1", "conv_transpose")
    for i in range(levels):
        finest, number = i == levels - 1, i + 2
        suffix = "" if finest else f"-x{factors[i]}"
        for j, letter in enumerate("abc" if finest else "ab"):
            table |= _layer(f"m.conv{number}{letter}{suffix}", f"m.prelu{number}{letter}{suffix}", f"levels.{i}.{j}")
        if not finest:
            names = f"m.deconv{number + 1}{suffix}", f"m.prelu{number + 1}{suffix}"
            table |= _layer(*names, f"levels.{i}.2", "conv_transpose")
    return table | conv(f"m.conv{levels + 2}", "last")


def _dmsg(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    module = DMSG(scale=config["scale"], rngs=nnx.Rngs(0))
    levels = range(len(module.levels) - 1)
    # Of the definition for 4x, which was at hand, all of these say the same.
    every, rising = [module.scale for _ in levels], [2 ** (i + 2) for i in levels]
    return module, *(dmsg_keys(module, factors) for factors in (every, rising, rising[::-1]))


OPERATORS: Operators = {"DMSG": _dmsg}
