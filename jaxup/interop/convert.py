"""The converters between official state dicts and modules, for every operator that has a key table."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from jaxup._checks import fail
from jaxup.interop.checkpoint import one_line
from jaxup.interop.keys import Operators, Table, flat_variables, read, unfilled, write
from jaxup.nn import UPSAMPLERS

# One file per paper: those of the upsamplers, and of whole networks.
_BACKBONES = {"backbones", "encoders", "mit", "swin", "vit"}
_SEGMENTATION = {"deeplab", "fpn", "maskformer", "mmseg", "pspnet", "segformer", "segmenter", "segnet", "transunet"}
_MATTING = {"a2u_matting", "indexnet_matting"}
_DEPTH = {"fastdepth", "hu"}
_NETWORKS = {"djf", "dkn", "dmsg"} | _BACKBONES | _SEGMENTATION | {"mask_rcnn", "upernet"} | _MATTING | _DEPTH
_FILES = sorted({entry.converter for entry in UPSAMPLERS.values() if entry.converter} | _NETWORKS)

# By official class names.
OPERATORS: Operators = {
    name: build for file in _FILES for name, build in importlib.import_module(f"jaxup.interop.{file}").OPERATORS.items()
}


def from_torch(operator: str, state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> nnx.Module:
    """Build the module of an official class and give it the tensors of an official state dict.

    Parameters become float32. Names that all keys begin with, such as the "model." of a module that holds the operator,
    are taken off where only the rest is a key of the operator. JAX arrays may be traced: the result is differentiable
    in the state dict. As any new module, one with BatchNorm or dropout is in training mode: call `module.eval()` for
    inference.

    Args:
        operator: the official class, a key of `OPERATORS`.
        state_dict: {official key: torch tensor, NumPy or JAX array}; `num_batches_tracked` may be left out.
        config: the official constructor arguments.

    Returns:
        The module, which computes what the official one does.

    Raises:
        ValueError: an unknown operator, a config that describes none, or a state dict of another operator or config;
            all missing, unexpected and wrongly shaped tensors are listed.

    Example:
        >>> from jaxup.nn import DySample
        >>> config = {"in_channels": 8, "groups": 2}
        >>> official = to_torch("DySample", DySample(8, scale=2, groups=2, rngs=nnx.Rngs(0)), config)
        >>> from_torch("DySample", official, config).offset.kernel.shape
        (8, 16)
        >>> from_torch("DySample", {"weight": np.ones(4)}, config)
        Traceback (most recent call last):
            ...
        ValueError: state_dict: expected the keys and shapes of this operator and config, got
          init_pos: missing
          offset.weight: missing
          offset.bias: missing
          weight: unexpected

    Reference:
        The files of `jaxup.nn` name the official repositories.
    """
    module, *tables = _build(operator, config)
    state_dict = _inner(state_dict, set().union(*tables))
    table = max(tables, key=lambda table: len(table.keys() & state_dict.keys()))
    return read(table, state_dict, module)


def to_torch(
    operator: str, module: nnx.Module | nnx.State[Any, Any], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The official state dict of a module: the inverse of `from_torch`.

    Tensors that have no effect in the official code come back as zeros; BatchNorm's `num_batches_tracked` does not
    come back. Where the official code has two forms with two sets of names, the names are those of the first (FADE:
    low-to-high). A state instead of a module, such as the gradients of the parameters, gives the tensors of its own
    entries under their official names.

    Args:
        operator: the official class, a key of `OPERATORS`.
        module: a module that `from_torch` built, or a state of one (`nnx.state`, `nnx.grad`).
        config: the official constructor arguments.

    Returns:
        {official key: NumPy array in PyTorch's layout}.

    Raises:
        ValueError: an unknown operator, or a module or state that does not fit the config.

    Example:
        >>> from jaxup.nn import DySample
        >>> module = DySample(8, scale=2, groups=2, rngs=nnx.Rngs(0))
        >>> to_torch("DySample", module, {"in_channels": 8, "groups": 2})["offset.weight"].shape
        (16, 8, 1, 1)

    Reference:
        The files of `jaxup.nn` name the official repositories.
    """
    template, *tables = _build(operator, config)
    expected, given = flat_variables(template), flat_variables(module)
    whole = isinstance(module, nnx.Module)
    shapes = {path: x.get_value().shape for path, x in expected.items() if whole or path in given}
    actual = {path: x.get_value().shape for path, x in given.items()}
    if shapes != actual:
        fail("module", f"arrays {shapes}", actual)
    return write(tables[0], given, constants=whole)


def _inner(state_dict: Mapping[str, Any], expected: set[str]) -> Mapping[str, Any]:
    """The same without the names that all keys begin with, where only then they are those of the operator."""
    inner = dict(state_dict)
    while inner and not expected & inner.keys():
        first = {key.partition(".")[0] for key in inner}
        if len(first) > 1 or not all("." in key for key in inner):
            return state_dict
        inner = {key.partition(".")[2]: x for key, x in inner.items()}
    return inner


def _build(operator: str, config: Mapping[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    if operator not in OPERATORS:
        fail("operator", "one of " + ", ".join(sorted(OPERATORS)), repr(operator))
    tables: list[Table] = []

    def build() -> nnx.Module:
        module, *tables[:] = OPERATORS[operator](dict(config))
        return module

    try:
        return unfilled(build), *tables
    except KeyError as missing:
        return fail("config", f"an entry {missing}", sorted(config))
    except (ArithmeticError, AttributeError, IndexError, TypeError) as error:  # of values that no network has
        return fail("config", f"a description of {operator}", one_line(f"{type(error).__name__}: {error}"))
