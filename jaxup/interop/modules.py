"""Modules of jaxup in files of their own: safetensors, whose metadata say how to build the module."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxup import models, nn
from jaxup._checks import fail
from jaxup._writing import write_file
from jaxup.interop.checkpoint import one_line, read_safetensors, require
from jaxup.interop.keys import flat_variables, unfilled

_ENTRY = "jaxup"  # of the metadata: {"class": name, "options": {...}}
_MOST = 1024  # what an option may be, whatever the arrays: sides of images and windows, blocks


def save_module(path: str | Path, module: nnx.Module, options: Mapping[str, Any]) -> None:
    """Write a module to a file that `load_module` reads: its class' name, its options and its arrays.

    Args:
        path: the file, its name ending in .safetensors; it is overwritten, whole or not at all.
        module: of a class of `jaxup.models` or `jaxup.nn`.
        options: the constructor's arguments by name, without `rngs`: whatever JSON has, and tuples.

    Returns:
        Nothing.

    Raises:
        ValueError: a module of another class, options that make another module or are not JSON, or safetensors is not
            installed.
        OSError: the file cannot be written.

    Example:
        >>> from jaxup.models import DJF
        >>> options = {"widths": (16, 8), "joint_widths": (8, 4)}
        >>> save_module("djf.safetensors", DJF(**options, rngs=nnx.Rngs(0)), options)  # doctest: +SKIP

    Reference:
        https://github.com/huggingface/safetensors
    """
    path, name = Path(path), type(module).__name__
    arrays = {key: np.asarray(variable[...]) for key, variable in flat_variables(module).items()}
    if type(module) is not _find(name):
        fail("module", "a class of jaxup.models or jaxup.nn", type(module))
    try:
        metadata = json.dumps({"class": name, "options": dict(options)})
    except TypeError as error:
        fail("options", "what JSON can hold", error)
    _check_arrays("options", nnx.eval_shape(lambda: _build("options", name, options, arrays)), arrays)
    write_file(path, require("safetensors.numpy", path).save(arrays, metadata={_ENTRY: metadata}))


def load_module(path: str | Path) -> nnx.Module:
    """Read a module that `save_module` wrote.

    As any new module, one with BatchNorm or dropout is in training mode: call `module.eval()` for inference. Nothing in
    the file is executed.

    Args:
        path: the file.

    Returns:
        The module, float32.

    Raises:
        ValueError: not such a file, or safetensors is not installed.
        OSError: the file cannot be read.

    Example:
        >>> load_module("djf.safetensors").residual  # doctest: +SKIP
        False

    Reference:
        https://github.com/huggingface/safetensors
    """
    path = Path(path)
    metadata, arrays = read_safetensors(path)
    if _ENTRY not in metadata:
        fail(str(path), "a file of save_module", "a safetensors file of another origin")
    try:
        described = json.loads(metadata[_ENTRY])
        name, options = described["class"], described["options"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        fail(str(path), "a class and options in the metadata", one_line(f"{type(error).__name__}: {error}"))
    module = unfilled(lambda: _build(str(path), name, options, arrays))
    _check_arrays(str(path), module, arrays)
    state = nnx.state(module, nnx.Not(nnx.RngState))
    for key, variable in flat_variables(state).items():
        variable.set_value(np.asarray(arrays[key]))
    nnx.update(module, state)
    return module


def is_module_file(path: str | Path) -> bool:
    """Whether a file is one that `save_module` wrote; false for safetensors of another origin, and other files."""
    path = Path(path)
    path.stat()  # a missing file is an OSError
    return path.suffix == ".safetensors" and _ENTRY in read_safetensors(path)[0]


def _find(name: Any) -> Any:
    """The class of this name; only modules that these packages declare, whatever a file says."""
    for package in (models, nn, models.segmentation, models.matting, models.monocular_depth):
        found = getattr(package, name, None) if name in package.__all__ else None
        if isinstance(found, type) and issubclass(found, nnx.Module):
            return found
    return None


def _build(origin: str, name: Any, options: Any, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
    build = _find(name)
    if build is None:
        fail(origin, "a class of jaxup.models or jaxup.nn", one_line(repr(name)))
    most = max(_MOST, len(arrays), *(n for x in arrays.values() for n in x.shape)) if arrays else _MOST
    try:
        plain = {key: _plain(value, most) for key, value in options.items()}
        module: nnx.Module = build(**plain, rngs=nnx.Rngs(0))
        return module
    except Exception as error:  # constructors meet what their authors did not think of
        return fail(origin, f"the options of {name}", one_line(error))


def _plain(value: Any, most: int) -> Any:
    """JSON has lists only. No number may ask for a network that is out of proportion to the arrays of the file."""
    if isinstance(value, list | tuple):
        if len(value) > most:
            fail("options", f"at most {most} values", len(value))
        return tuple(_plain(item, most) for item in value)
    if isinstance(value, int) and value > most:
        fail("options", f"integers up to {most}", value)
    return {key: _plain(item, most) for key, item in value.items()} if isinstance(value, dict) else value


def _check_arrays(origin: str, module: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    expected = {key: variable.get_value().shape for key, variable in flat_variables(module).items()}
    actual = {key: x.shape for key, x in arrays.items()}
    if expected != actual:
        wrong = sorted(key for key in expected.keys() | actual.keys() if expected.get(key) != actual.get(key))
        fail(origin, "the arrays of its class and options", f"others: {', '.join(wrong[:3])}, {len(wrong)} in all")
