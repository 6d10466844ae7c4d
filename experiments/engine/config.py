"""Configurations: frozen dataclasses, kept as JSON in the run directory together with the package versions.

A task's configuration embeds one `RunConfig` and is stored by `open_run`. A run directory belongs to one
configuration: opening it again with another one is an error, except in fields marked `MAY_DIFFER`, which
change what is written down but not the trained weights.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import platform
import types
from pathlib import Path
from typing import Any

import jax

from experiments.engine.processes import first_alone
from experiments.engine.stopping import LOCK, locked
from experiments.engine.stored import from_json, to_json
from jaxup._writing import write_file
from jaxup.files import InputError

MAY_DIFFER = types.MappingProxyType({"may_differ": True})
"""Field metadata: a run may be continued with another value, `field(default=..., metadata=MAY_DIFFER)`."""

MAY_GROW = types.MappingProxyType({"may_grow": True})
"""Field metadata: a run may be continued with a larger value."""

_UNFINISHED = (
    "config.json.tmp",
    LOCK,
)  # what a process that was killed at the beginning left; the former of older ones


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a training run lives, and how long it is."""

    run_dir: Path = dataclasses.field(metadata=MAY_DIFFER)
    """Directory of the configuration, metrics and checkpoints; started again, a run continues from there."""
    seed: int = 0
    """Seed of the initial weights and of the order of the data."""
    steps: int = dataclasses.field(default=1000, metadata=MAY_GROW)
    """Optimiser steps in all; a run may go on to more than it was started with."""
    log_every: int = dataclasses.field(default=100, metadata=MAY_DIFFER)
    """Steps from one line of metrics to the next."""
    save_every: int = dataclasses.field(default=1000, metadata=MAY_DIFFER)
    """Steps from one checkpoint to the next; the last step is always saved."""
    keep: int = dataclasses.field(default=2, metadata=MAY_DIFFER)
    """Number of checkpoints kept, the newest ones."""
    tensorboard: bool = dataclasses.field(default=False, metadata=MAY_DIFFER)
    """Write the metrics for TensorBoard, too; needs the package tensorboardX."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")


def open_run(run_dir: Path, config: Any) -> None:
    """Makes a run directory for a configuration, or opens the one that is there.

    Writes `config.json`, and `versions.json`: a list with the Python, package and device versions of every
    environment in which the run was started.

    Args:
        run_dir: a directory that does not exist yet, is empty, or holds a run of the same configuration.
        config: the task's frozen dataclass.

    Raises:
        InputError: `run_dir` holds something else, or a run whose configuration differs; the message names
            the first field; or another process is training there. Nothing is written then.
    """
    if getattr(config, "run", config).tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise InputError("tensorboard: needs the package tensorboardX, which is not installed")
    first_alone(lambda: _check(run_dir, config))
    with locked(run_dir):  # refuses what another process is training, or opens just now
        first_alone(lambda: _write(run_dir, config, new=_check(run_dir, config)))


def _check(run_dir: Path, config: Any) -> bool:
    """Refuses directories of something else; whether the configuration is to be written."""
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir}: expected a directory, got a file")
    entries = {entry.name for entry in run_dir.iterdir()} if run_dir.exists() else set()
    if "config.json" in entries:
        difference, new = _compare(config, run_dir / "config.json")
        if difference:
            raise InputError(f"{run_dir}: holds a run of another configuration, {difference}")
        return new
    if {name for name in entries if name not in _UNFINISHED and not name.startswith(".config.json.")}:
        raise InputError(f"{run_dir}: is neither empty nor a run directory (it has no config.json)")
    return True


def _write(run_dir: Path, config: Any, new: bool) -> None:
    if new:
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


def _compare(config: Any, path: Path) -> tuple[str | None, bool]:
    """The first field in which a configuration may not differ from the stored one but does, and whether it grew."""
    data = _read_json(path)
    found = data.get("class") if isinstance(data, dict) else data
    if found != type(config).__name__:
        return f"task: it has {found!r}, asked for {type(config).__name__!r}", False
    stored = from_json(type(config), data, str(path))
    return _first_difference(config, stored), _first_difference(stored, config) is not None


def _first_difference(config: Any, stored: Any, name: str = "") -> str | None:
    """Says where a configuration and a stored one part, "name: it has ..., asked for ..."; None if nowhere."""
    if not dataclasses.is_dataclass(config) or not dataclasses.is_dataclass(stored):
        return None if config == stored else f"{name}: it has {to_json(stored)!r}, asked for {to_json(config)!r}"
    if type(config) is not type(stored):
        return f"{name}: it has {type(stored).__name__!r}, asked for {type(config).__name__!r}"
    for field in dataclasses.fields(config):
        asked, kept = getattr(config, field.name), getattr(stored, field.name)
        if field.metadata.get("may_differ") or (field.metadata.get("may_grow") and asked >= kept):
            continue
        difference = _first_difference(asked, kept, f"{name}.{field.name}".lstrip("."))
        if difference:
            return difference + (", expected at least as many" if field.metadata.get("may_grow") else "")
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error


def _write_json(path: Path, data: Any) -> None:
    write_file(path, f"{json.dumps(data, indent=2)}\n".encode())
