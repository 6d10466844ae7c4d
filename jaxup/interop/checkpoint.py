"""Reading the files that official checkpoints come in."""

import contextlib
import importlib
import math
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

from jaxup._checks import fail
from jaxup.interop._torch_files import load_torch
from jaxup.interop.keys import as_array

# Entries of a checkpoint that hold a state dict; each may have a twin with "ema", the average that was evaluated.
_ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "params",
    "net",
    "network",
    "generator",
    "netG",
    "weights",
    "jafar",
)
# Components of keys that PyTorch's wrappers of modules put anywhere, and that no module has as a name.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_SMALL_FLOATS = {  # types of safetensors that NumPy does not have
    "BF16": np.dtype(jnp.bfloat16),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
}
_DEEPEST = 16  # state dicts in each other


def load_checkpoint(path: str | Path, *, entry: str | None = None) -> dict[str, np.ndarray]:
    """Read the tensors of a checkpoint: safetensors, or a file of `torch.save` read with `weights_only=True`.

    A state dict may lie in the file under "state_dict", "model_state_dict", "model", "params", "net", "network",
    "generator", "netG", "weights" or "jafar", one in the other too; of "params" and "params_ema" (or any other name and
    its twin, as in "model_ema_state_dict") the average is read. What wrappers of modules leave in keys is taken off:
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
    content: Any = read_safetensors(path)[1] if path.suffix == ".safetensors" else _load_torch(path)
    tensors = _unwrapped(path, _state_dict(path, content, entry))
    _check_sizes(path, tensors)
    return {key: _as_array(path, key, x) for key, x in tensors.items()}


def require(name: str, path: Path) -> Any:
    """A reader that only this format needs."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        return fail(str(path), f"{package} installed, which reads this format", "no such package")


def one_line(actual: object) -> str:
    """What was found, which may have texts of a file in it, in a line of bearable length."""
    line = " ".join(str(actual).split())
    return line if len(line) <= 300 else f"{line[:300]} ..."


def refuse(path: Path, expected: str, actual: object) -> NoReturn:
    """Raise one line that names the file."""
    fail(str(path), expected, one_line(actual))


@contextlib.contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into one line; that there is no such file stays an OSError."""
    _check_file(path)
    try:
        yield
    except Exception as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"an object of {found[1]}" if found else str(error).split(". ")[0].strip() or type(error).__name__
        refuse(path, expected, reason)


def _check_file(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        refuse(path, "a file", "something else")  # a pipe or a device, which may have no end
    with path.open("rb"):
        pass


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and the arrays of a file."""
    reader = require("safetensors", path)
    with reading(path, "a safetensors file"):
        with reader.safe_open(path, framework="numpy") as file:
            types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            small = {key for key, kind in types.items() if kind in _SMALL_FLOATS}
            unknown = [key for key in types.keys() - small if types[key].startswith(("F8_", "F6_", "F4"))]
            arrays = {} if unknown else {key: file.get_tensor(key) for key in types.keys() - small}
            metadata = file.metadata() or {}
        stored = reader.deserialize(path.read_bytes()) if small else []
    for key in unknown:
        refuse(path, "types that NumPy has, or " + ", ".join(_SMALL_FLOATS), f"{key}: {types[key]}")
    for key, tensor in stored:
        if key in small:
            numbers = np.frombuffer(tensor["data"], _SMALL_FLOATS[tensor["dtype"]])
            arrays[key] = numbers.reshape(tensor["shape"]).astype(np.float32)
    return metadata, {key: arrays[key] for key in types}


def _load_torch(path: Path) -> Any:
    _check_file(path)
    torch = require("torch", path)
    with reading(path, "a file of tensors that torch.load(weights_only=True) accepts"):
        return load_torch(torch, path)


def _state_dict(path: Path, content: Any, entry: str | None) -> Mapping[str, Any]:
    """The tensors by name inside of what a file holds."""
    if entry is not None:
        if not isinstance(content, Mapping) or entry not in content:
            refuse(path, f"an entry {entry!r}", _describe(content))
        content = content[entry]
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        averages_last = sorted(content, key=lambda name: _without_ema(name) != name)
        found = {_without_ema(name): name for name in averages_last if _has_tensors(content[name])}
        names = [found[name] for name in _ENTRIES if name in found]
        if len(names) > 1:
            refuse(path, "one state dict, or its name as entry", f"several: {', '.join(names)}")
        if not names:
            break
        content = content[names[0]]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and hasattr(x, "shape") for k, x in content.items()
    ):
        refuse(path, "a state dict: tensors by name, or its name as entry", _describe(content))
    return content


def _without_ema(name: Any) -> str:
    """The name of the entry that an average is the twin of."""
    return "_".join(part for part in str(name).split("_") if part != "ema")


def _has_tensors(content: Any) -> bool:
    """Whether tensors are in a dict, or in one that it has; those of a file may hold themselves."""
    seen, left = set(), [content]
    while left:
        now = left.pop()
        if isinstance(now, Mapping) and id(now) not in seen:
            seen.add(id(now))
            if any(hasattr(x, "shape") for x in now.values()):
                return True
            left += now.values()
    return False


def _unwrapped(path: Path, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by the names that they have without wrappers of modules."""
    names = {key: ".".join(part for part in key.split(".") if part not in _WRAPPERS) for key in tensors}
    averaged = any(name.startswith("module.") for name in names.values())
    names = {key: name for key, name in names.items() if not (averaged and name == "n_averaged")}  # AveragedModel
    while names and all(name.startswith("module.") for name in names.values()):
        names = {key: name.removeprefix("module.") for key, name in names.items()}
    if len(set(names.values())) < len(names):
        refuse(path, "keys that differ without their wrappers", sorted(tensors))
    return {name: tensors[key] for key, name in names.items()}


def _check_sizes(path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse tensors that share so few numbers that their arrays would be far larger than the file."""
    total, most = 0, 4 * path.stat().st_size + 2**20
    for key, x in tensors.items():
        size = x.element_size() if hasattr(x, "element_size") else x.itemsize
        total += math.prod(int(n) for n in x.shape) * size
        if total > most:
            refuse(path, f"tensors of no more than {most} bytes", f"{key}: {tuple(x.shape)}")


def _as_array(path: Path, key: str, x: Any) -> np.ndarray:
    try:
        array = np.asarray(as_array(x))
    except Exception:  # sparse and quantised tensors, and those that are on no device
        array = np.empty(0, object)
    if array.dtype.kind not in "biufc":
        refuse(path, "tensors of types that NumPy has", f"{key}: {x.dtype}")
    return array


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    return ", ".join(f"{key}: {type(x).__name__}" for key, x in content.items() if not hasattr(x, "shape"))
