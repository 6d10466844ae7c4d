"""Golden vectors of the reference implementations: one file per case, "<operator>/<case>.npz".

A file holds arrays, or, where these are large, recipes for numpy's frozen legacy generator (parameters, inputs and
cotangents), and of large results every n-th entry.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Arrays = dict[str, np.ndarray]


def shared(folder: str) -> Path:
    """The folder beside the repository, or under $JAXUP_SHARED; skips the running test where it is absent."""
    root = Path(os.environ.get("JAXUP_SHARED") or Path(__file__).parents[2] / "shared")
    if not (root / folder).is_dir():
        pytest.skip(f"no {folder} folder: set JAXUP_SHARED to the folder that holds it")
    return root / folder


@dataclass(frozen=True)
class Golden:
    """One case. Images are NHWC; parameters have their official names and PyTorch layouts."""

    name: str
    meta: dict[str, Any]
    inputs: Arrays = field(default_factory=dict)  # in/
    params: Arrays = field(default_factory=dict)  # param/
    outputs: Arrays = field(default_factory=dict)  # out/
    cotangents: Arrays = field(default_factory=dict)  # cot/
    grad_inputs: Arrays = field(default_factory=dict)  # grad_in/
    grad_params: Arrays = field(default_factory=dict)  # grad_param/
    out_state: Arrays = field(default_factory=dict)  # out_state/, BatchNorm statistics after a training step
    mid: Arrays = field(default_factory=dict)  # mid/, intermediate results
    alt: Arrays = field(default_factory=dict)  # alt/, variants explained in the notes
    param_const: Arrays = field(default_factory=dict)  # param_const/, constants explained in the notes
    double: bool = False  # run in float64, and compared within its bounds

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments by their official names, the mode, "eval" or "train", and the source of the case."""
        meta = {"mode": self.meta.get("mode") or "eval", "source": self.meta.get("source", "")}
        return self.meta.get("config", {}) | meta

    @property
    def gradients(self) -> Arrays:
        """Stored gradients as "in/<argument>" and "param/<key>"."""
        named = {f"in/{k}": v for k, v in self.grad_inputs.items()}
        return named | {f"param/{k}": v for k, v in self.grad_params.items()}

    def sensitivity(self, key: str) -> float:
        """How far plain float32 is from the stored array, relative; `key` as in the file."""
        return self.meta.get("float32_reference_rel_err", {}).get(key, 0.0)

    def largest(self, key: str, stored: np.ndarray) -> float:
        """The largest magnitude of the whole array, of which the file may hold a part."""
        return float(self.meta.get("max_abs", {}).get(key, np.max(np.abs(stored), initial=0, where=~np.isnan(stored))))

    def stored(self, key: str, whole: Any) -> np.ndarray:
        """The entries of a whole array that the file holds; the array itself if it has another shape."""
        sampled, whole = self.meta.get("sampled", {}).get(key), np.asarray(whole)
        return whole if sampled is None or whole.shape != tuple(sampled["shape"]) else whole.ravel()[:: sampled["step"]]

    def shape(self, key: str, stored: np.ndarray) -> tuple[int, ...]:
        """The shape of the whole array."""
        return tuple(self.meta.get("sampled", {}).get(key, {}).get("shape", stored.shape))


FIELDS = {
    "in": "inputs",
    "param": "params",
    "out": "outputs",
    "cot": "cotangents",
    "grad_in": "grad_inputs",
    "grad_param": "grad_params",
    "out_state": "out_state",
    "mid": "mid",
    "alt": "alt",
    "param_const": "param_const",
}
_RECIPES = {"in_gen": "inputs", "param_gen": "params", "cot_gen": "cotangents"}


def load(case: str) -> Golden:
    """A case of the shared folder; skips the running test where there is none."""
    return read(shared("goldens"), case)


def read(folder: Path, case: str, *, generate: Iterable[str] = tuple(_RECIPES)) -> Golden:
    """Read "<operator>/<case>" of a folder; an unknown kind of array is an error.

    `generate`: of which recipes arrays are made; large networks take seconds.
    """
    with np.load(folder / f"{case}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    groups: dict[str, Arrays] = {}
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        groups.setdefault(FIELDS[kind], {})[name] = array
    for kind in generate:
        made = {name: _generated(recipe) for name, recipe in meta.get(kind, {}).items()}
        groups.setdefault(_RECIPES[kind], {}).update(made)
    if "weights" in meta:
        groups["params"] = _joined(sorted((folder / case).parent.glob(meta["weights"])))
    return Golden(name=case, meta=meta, **groups)


def _generated(recipe: dict[str, Any]) -> np.ndarray:
    random, shape = np.random.RandomState(recipe["seed"]), recipe["shape"]
    if recipe["dist"] == "uniform":
        return random.uniform(recipe["lo"], recipe["hi"], shape).astype(np.float32)
    return (random.standard_normal(shape) * recipe["scale"] + recipe.get("shift", 0.0)).astype(np.float32)


def _joined(files: list[Path]) -> Arrays:
    """Official weights that stand in several files, large ones cut along their first axis: <key>/rows<j>of<n>."""
    pieces: dict[str, list[np.ndarray]] = {}
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            for key in sorted(key for key in arrays.files if key.startswith("param/")):
                pieces.setdefault(key.split("/")[1], []).append(arrays[key].astype(np.float32))
    return {name: np.concatenate(rows) if len(rows) > 1 else rows[0] for name, rows in pieces.items()}
