"""Configurations: frozen dataclasses, kept as JSON in the run directory together with the package versions.

A task's configuration embeds one `RunConfig` and is stored by `open_run`. A run directory belongs to one
configuration: opening it again with another one is an error, except in fields marked `MAY_DIFFER`, which
change what is written down but not the trained weights.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import types
import typing
from pathlib import Path
from typing import Any

import jax

from jaxup.files import InputError

MAY_DIFFER = types.MappingProxyType({"may_differ": True})
"""Field metadata: a run may be continued with another value, `field(default=..., metadata=MAY_DIFFER)`."""

_UNFINISHED = "config.json.tmp"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a training run lives, and how long it is."""

    run_dir: Path = dataclasses.field(metadata=MAY_DIFFER)
    """Directory of the configuration, metrics and checkpoints; started again, a run continues from there."""
    seed: int = 0
    """Seed of the initial weights and of the order of the data."""
    steps: int = 1000
    """Optimiser steps in all."""
    log_every: int = dataclasses.field(default=100, metadata=MAY_DIFFER)
    """Steps from one line of metrics to the next."""
    save_every: int = dataclasses.field(default=1000, metadata=MAY_DIFFER)
    """Steps from one checkpoint to the next; the last step is always saved."""
    keep: int = dataclasses.field(default=2, metadata=MAY_DIFFER)
    """Number of checkpoints kept, the newest ones."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")


def to_json(value: Any) -> Any:
    """Turns a configuration into what `json` can write; each dataclass also records the name of its class.

    Args:
        value: a dataclass instance, or a field's value: nested dataclasses, tuples, lists, dicts, paths,
            plain values.

    Returns:
        Dicts, lists and plain values. The key "class" cannot collide with a field, since it is a keyword.

    Example:
        >>> to_json(RunConfig(Path("runs/a"), steps=5))["run_dir"]
        'runs/a'
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value


def from_json(annotation: Any, data: Any, name: str = "config") -> Any:
    """Turns JSON back into a configuration; the inverse of `to_json`.

    Args:
        annotation: the dataclass, or a field's type.
        data: what `to_json` returned. Fields that are missing take their defaults.
        name: what the value is called in error messages.

    Returns:
        An instance of `annotation`.

    Raises:
        InputError: a field is unknown, has no value and no default, or has a value of another type.

    Example:
        >>> from_json(tuple[int, ...], [4, 8])
        (4, 8)
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return from_json(arguments[0], data, name)
    if origin in (typing.Union, types.UnionType):
        return from_json(_member(arguments, data, name), data, name)
    if dataclasses.is_dataclass(annotation):
        return _dataclass_from_json(typing.cast(type, annotation), data, name)
    if origin in (tuple, list) and isinstance(data, list):
        return origin(_items_from_json(origin, arguments, data, name))
    if annotation is Path and isinstance(data, str):
        return Path(data)
    if annotation is float and type(data) is int:
        return float(data)
    if isinstance(annotation, type) and origin is None and type(data) is not annotation:
        raise InputError(f"{name}: expected {annotation.__name__}, got {data!r}")
    return data


def _items_from_json(origin: type, arguments: tuple[Any, ...], data: list[Any], name: str) -> list[Any]:
    if origin is list or arguments[1:] == (...,):
        arguments = arguments[:1] * len(data)
    if len(arguments) != len(data):
        raise InputError(f"{name}: expected {len(arguments)} values, got {len(data)}")
    return [from_json(a, item, f"{name}[{i}]") for i, (a, item) in enumerate(zip(arguments, data, strict=True))]


def _member(members: tuple[Any, ...], data: Any, name: str) -> Any:
    """The member of a union that a stored value belongs to: dataclasses by their names, the rest by trying."""
    for member in members:
        if isinstance(data, dict) and dataclasses.is_dataclass(member):
            if data.get("class") == getattr(member, "__name__", None):
                return member
            continue
        try:
            from_json(member, data, name)
        except InputError:
            continue
        return member
    raise InputError(f"{name}: {data!r} is of no type in {' | '.join(str(m) for m in members)}")


def _dataclass_from_json(cls: type, data: Any, name: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(f"{name}: expected the fields of {cls.__name__}, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key != "class" and key not in fields:
            raise InputError(f"{name}.{key}: {cls.__name__} has no such field")
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in data:
            raise InputError(f"{name}.{key}: missing")
    return cls(**{k: from_json(hints[k], v, f"{name}.{k}") for k, v in data.items() if k != "class"})


def open_run(run_dir: Path, config: Any) -> None:
    """Makes a run directory for a configuration, or opens the one that is there.

    Writes `config.json`, and `versions.json`: a list with the Python, package and device versions of every
    environment in which the run was started.

    Args:
        run_dir: a directory that does not exist yet, is empty, or holds a run of the same configuration.
        config: the task's frozen dataclass.

    Raises:
        InputError: `run_dir` holds something else, or a run whose configuration differs; the message names
            the first field. Nothing is written then.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir}: expected a directory, got a file")
    entries = {entry.name for entry in run_dir.iterdir()} if run_dir.exists() else set()
    if "config.json" in entries:
        difference = _first_difference(config, _read_json(run_dir / "config.json"))
        if difference:
            raise InputError(f"{run_dir}: holds a run of another configuration, {difference}")
    elif entries - {_UNFINISHED}:
        raise InputError(f"{run_dir}: is neither empty nor a run directory (it has no config.json)")
    if jax.process_index() != 0:  # all check, so that none waits for one that stopped; the first writes
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    if "config.json" not in entries:
        _write_json(run_dir / "config.json", to_json(config))
    path = run_dir / "versions.json"
    known = _read_json(path) if path.exists() else []
    if versions() not in known:
        _write_json(path, [*known, versions()])


def load_config(cls: type, run_dir: Path) -> Any:
    """Reads the configuration of a run directory.

    Args:
        cls: the task's dataclass.
        run_dir: the directory that `open_run` made.

    Returns:
        An instance of `cls`.

    Raises:
        InputError: there is no configuration, or none of this class.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        raise InputError(f"{run_dir}: is not a run directory (it has no config.json)")
    data = _read_json(path)
    if not isinstance(data, dict) or data.get("class", cls.__name__) != cls.__name__:
        raise InputError(f"{path}: expected the configuration of a {cls.__name__}")
    return from_json(cls, data, str(path))


def versions() -> dict[str, str]:
    """Python, the packages that decide the numbers, and the kind of device."""
    packages = ("jax", "flax", "jaxup", "numpy", "optax", "orbax-checkpoint", "grain")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is on the path but not installed
            found[package] = "not installed"
    return found | {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}


def _first_difference(config: Any, stored: Any, name: str = "") -> str | None:
    """Says where a configuration and a stored one part, "name: stored ..., asked for ..."; None if nowhere.

    What is not stored is a field that was added since, and has its default.
    """
    if not dataclasses.is_dataclass(config) or not isinstance(stored, dict):
        asked = json.loads(json.dumps(to_json(config)))
        return None if asked == stored else f"{name}: it has {stored!r}, asked for {asked!r}"
    fields = dataclasses.fields(config)
    if stored.get("class") != type(config).__name__:
        return f"{name or 'task'}: it has {stored.get('class')!r}, asked for {type(config).__name__!r}"
    for field in fields:
        if field.metadata.get("may_differ"):
            continue
        inner = f"{name}.{field.name}" if name else field.name
        default = None if field.default is dataclasses.MISSING else json.loads(json.dumps(to_json(field.default)))
        difference = _first_difference(getattr(config, field.name), stored.get(field.name, default), inner)
        if difference:
            return difference
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error


def _write_json(path: Path, data: Any) -> None:
    """Writes a file whole or not at all, also when killed."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(temporary, path)
