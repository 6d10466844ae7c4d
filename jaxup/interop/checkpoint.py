"""Reading the files that official checkpoints come in."""

import argparse
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxup._checks import fail
from jaxup.interop.keys import as_array

# Entries of a checkpoint that hold a state dict; each may have a twin with "ema", the average that was evaluated.
_ENTRIES = ("state_dict", "model_state_dict", "model", "params", "net", "network", "generator", "netG", "weights")
# Components of keys that PyTorch's wrappers of modules put anywhere, and that no module has as a name.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_SMALL_FLOATS = {  # types of safetensors that NumPy does not have
    "BF16": np.dtype(jnp.bfloat16),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
}
# What checkpoints hold beside tensors and torch.load does not know by itself: options, and NumPy's scalars and arrays,
# with the two functions that make them. None of it runs code of the file.
_BESIDE = [argparse.Namespace, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefdU"}]
_NUMPY: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]


def load_checkpoint(path: str | Path, *, entry: str | None = None) -> dict[str, np.ndarray]:
    """Read the tensors of a checkpoint: safetensors, or a file of `torch.save` read with `weights_only=True`.

    A state dict may lie in the file under "state_dict", "model_state_dict", "model", "params", "net", "network",
    "generator", "netG" or "weights", one in the other too; of "params" and "params_ema" (or any other name and its
    twin, as in "model_ema_state_dict") the average is read. What wrappers of modules leave in keys is taken off:
    "_orig_mod." of `torch.compile` and the like anywhere, and "module." of `DataParallel` where every key begins with
    it. Other names that all keys begin with, such as "model.", are left to `from_torch`, which knows the keys that it
    needs. Beside tensors the file may hold numbers, scalars and arrays of NumPy and an `argparse.Namespace`; nothing in
    the file is executed.

    Args:
        path: a file whose name ends in .safetensors, or any other, which then needs PyTorch.
        entry: the name of the state dict in the file, where there are several; None finds it.

    Returns:
        {official key: NumPy array}; floating-point numbers of fewer than 32 bits that NumPy does not have are float32.

    Raises:
        ValueError: no such format, a damaged file, PyTorch or safetensors is not installed, the file holds more than
            those, several state dicts or none, or types that NumPy does not have.
        OSError: the file cannot be read.

    Example:
        >>> load_checkpoint("weights.safetensors")  # doctest: +SKIP
        {'channel_compressor.weight': array(...), ...}

    Reference:
        https://github.com/huggingface/safetensors, and `torch.load` of PyTorch.
    """
    path = Path(path)
    with path.open("rb"):  # a missing file is an OSError, whatever the reader would say
        pass
    content: Any = read_safetensors(path)[1] if path.suffix == ".safetensors" else _load_torch(path)
    tensors = _unwrapped(path, _state_dict(path, content, entry))
    return {key: _as_array(path, key, x) for key, x in tensors.items()}


def require(name: str, path: Path) -> Any:
    """A reader that only this format needs."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        return fail(str(path), f"{package} installed, which reads this format", "no such package")


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the arrays of a file."""
    reader = require("safetensors", path)
    try:
        with reader.safe_open(path, framework="numpy") as file:
            types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            small = {key for key, kind in types.items() if kind in _SMALL_FLOATS}
            for key, kind in types.items():
                if kind.startswith(("F8_", "F6_", "F4")) and key not in small:
                    fail(str(path), "types that NumPy has, or " + ", ".join(_SMALL_FLOATS), f"{key}: {kind}")
            arrays = {key: file.get_tensor(key) for key in types.keys() - small}
            metadata = file.metadata() or {}
        stored = reader.deserialize(path.read_bytes()) if small else []
    except reader.SafetensorError as error:
        return fail(str(path), "a safetensors file", error)
    for key, tensor in stored:
        if key in small:
            numbers = np.frombuffer(tensor["data"], _SMALL_FLOATS[tensor["dtype"]])
            arrays[key] = numbers.reshape(tensor["shape"]).astype(np.float32)
    return metadata, {key: arrays[key] for key in types}


def _load_torch(path: Path) -> Any:
    torch = require("torch", path)
    # Files name the functions of NumPy by where they lay in the version that wrote them.
    numpy = [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in _NUMPY for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals([*_BESIDE, *numpy]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # readers of damaged files raise nearly anything, at length
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"an object of {found[1]}" if found else str(error).split(". ")[0] or "an empty file"
        return fail(str(path), "a file of tensors that torch.load(weights_only=True) accepts", reason)


def _state_dict(path: Path, content: Any, entry: str | None) -> Mapping[str, Any]:
    """The tensors by name inside of what a file holds."""
    if entry is not None:
        if not isinstance(content, Mapping) or entry not in content:
            fail(str(path), f"an entry {entry!r}", _describe(content))
        content = content[entry]
    while isinstance(content, Mapping):
        averages_last = sorted(content, key=lambda name: _without_ema(name) != name)
        found = {_without_ema(name): name for name in averages_last if _has_tensors(content[name])}
        names = [found[name] for name in _ENTRIES if name in found]
        if len(names) > 1:
            fail(str(path), "one state dict, or its name as entry", f"several: {', '.join(names)}")
        if not names:
            break
        content = content[names[0]]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and hasattr(x, "shape") for k, x in content.items()
    ):
        fail(str(path), "a state dict: tensors by name, or its name as entry", _describe(content))
    return content


def _without_ema(name: Any) -> str:
    """The name of the entry that an average is the twin of."""
    return "_".join(part for part in str(name).split("_") if part != "ema")


def _has_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and any(hasattr(x, "shape") or _has_tensors(x) for x in content.values())


def _unwrapped(path: Path, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by the names that they have without wrappers of modules."""
    names = {key: ".".join(part for part in key.split(".") if part not in _WRAPPERS) for key in tensors}
    averaged = any(name.startswith("module.") for name in names.values())
    names = {key: name for key, name in names.items() if not (averaged and name == "n_averaged")}  # AveragedModel
    while names and all(name.startswith("module.") for name in names.values()):
        names = {key: name.removeprefix("module.") for key, name in names.items()}
    if len(set(names.values())) < len(names):
        fail(str(path), "keys that differ without their wrappers", sorted(tensors))
    return {name: tensors[key] for key, name in names.items()}


def _as_array(path: Path, key: str, x: Any) -> np.ndarray:
    try:
        return np.asarray(as_array(x))
    except (TypeError, RuntimeError):
        return fail(str(path), "tensors of types that NumPy has", f"{key}: {x.dtype}")


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    return ", ".join(f"{key}: {type(x).__name__}" for key, x in content.items() if not hasattr(x, "shape"))
