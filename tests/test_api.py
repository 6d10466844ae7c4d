"""The rules of the public interface, and its lock file.

Checkpoints depend on parameter paths and shapes, callers on names and signatures. Both are recorded in api.lock; after
an intended change write it anew with

    python -m tests.test_api
"""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tests.registry import MODULES

ROOT = Path(__file__).parents[1]
LOCK = Path(__file__).with_name("api.lock")
NAMESPACES = [
    "jaxup",
    *(f"jaxup.{name}" for name in ("ops", "nn", "models", "solvers", "losses", "matting", "metrics", "interop")),
]
# Whole networks of tasks are too large for the generic tests: they have tests of their own, and no example.
LARGE = ("jaxup.models.segmentation", "jaxup.models.matting", "jaxup.models.monocular_depth")
NAMESPACES += LARGE
SECTIONS = ["Args:", "Returns:", "Example:", "Reference:"]
FORBIDDEN = {  # package or file -> what it must not import
    "jaxup/ops": ["jaxup.nn", "jaxup.models", "jaxup.interop", "jaxup.solvers", "flax"],
    "jaxup/nn": ["jaxup.models", "jaxup.interop"],
    "jaxup/models": ["jaxup.interop"],
    "jaxup/solvers": ["jaxup.nn", "jaxup.models", "jaxup.interop", "flax"],
    "jaxup/metrics": ["jaxup.nn", "jaxup.models", "jaxup.interop", "jaxup.solvers", "flax"],
    "jaxup": ["experiments", "tests", "torch"],
}

NAMES = [f"{space}.{name}" for space in NAMESPACES for name in importlib.import_module(space).__all__]
each_name = pytest.mark.parametrize("path", NAMES)


def find(path: str) -> Any:
    space, _, name = path.rpartition(".")
    return getattr(importlib.import_module(space), name)


def is_module_class(x: Any) -> bool:
    return inspect.isclass(x) and issubclass(x, nnx.Module)


def arguments(function: Any) -> list[inspect.Parameter]:
    """The parameters without `self`; NNX hides those of a class behind its metaclass."""
    function = function.__init__ if is_module_class(function) else function
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def signature(function: Any) -> str:
    """Names, kinds and defaults; annotations print differently from one Python version to the next."""
    plain = [p.replace(annotation=p.empty) for p in arguments(function)]
    named = [
        p.replace(default=_Name(getattr(p.default, "__name__", "init")))
        if callable(p.default) and p.default is not p.empty
        else p
        for p in plain
    ]
    return str(inspect.Signature(named))


class _Name(str):
    """Prints without quotes: functions and dtypes stand in a signature by name, without their address."""

    __repr__ = str.__str__


def describe(x: Any) -> str:
    if isinstance(x, ModuleType):
        return "module"
    if is_module_class(x):
        return f"{signature(x)} called {signature(x.__call__)}"
    if isinstance(x, Mapping):
        return repr(
            {k: dict(v) if isinstance(v, Mapping) else _Name("function") if callable(v) else v for k, v in x.items()}
        )
    return signature(x) if callable(x) else type(x).__name__


def interface() -> dict[str, Any]:
    """What the lock file holds."""
    parameters = {}
    for example in MODULES:
        flat = nnx.to_flat_state(nnx.state(nnx.eval_shape(example.new), nnx.Not(nnx.RngState)))
        parameters[example.name] = {"/".join(map(str, path)): str(leaf.shape) for path, leaf in flat}
    return {"names": {path: describe(find(path)) for path in NAMES}, "parameters": parameters}


def imports(file: Path) -> list[str]:
    """Names of everything a file imports, inside functions as well."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.relative_to(ROOT)}:{node.lineno}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("space", NAMESPACES)
def test_all_is_what_is_public(space):
    module = importlib.import_module(space)
    origin = "jaxup" if hasattr(module, "__path__") else space  # what a file imports is not its interface
    ours = {k for k, v in vars(module).items() if getattr(v, "__module__", "").startswith(origin)}
    assert len(set(module.__all__)) == len(module.__all__)
    assert module.__doc__
    assert {k for k in ours if not k.startswith("_")} <= set(module.__all__), "imported but not in __all__"


@each_name
def test_documented(path):
    x = find(path)
    if isinstance(x, ModuleType) or not callable(x):
        return
    text = inspect.getdoc(x) or ""
    if is_module_class(x):
        text += inspect.getdoc(x.__call__) or ""
    needless = {
        "Args:": not arguments(x),
        "Returns:": inspect.isfunction(x) and inspect.signature(x).return_annotation is None,
    }
    wanted = [s for s in SECTIONS if not needless.get(s)]
    assert [s for s in wanted if not re.search(rf"^\s*{s}", text, re.MULTILINE)] == []
    assert ">>>" in text


@each_name
def test_arguments(path):
    """Arrays, feature counts and the name a factory is asked for may be positional, everything else may not.

    So may a network, and of a segmentation network the number of classes. Converters have none of these: there, what
    must be given may be positional. `rngs` is the last named option.
    """
    x = find(path)
    if not (inspect.isfunction(x) or is_module_class(x)):
        return
    parameters = arguments(x)
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if x.__name__.startswith("make_"):
        positional = positional[1:]
    annotations = inspect.get_annotations(x, eval_str=True) if inspect.isfunction(x) else {}
    for p in positional:
        array = annotations.get(p.name) in (jax.Array, jax.Array | None, np.ndarray, Mapping[str, np.ndarray])
        features = is_module_class(x) and p.name.endswith("_features")
        required = path.startswith(("jaxup.interop.", "jaxup.load")) and p.default is p.empty
        first = path.startswith(LARGE) and p.name in ("num_classes", "upsampler", "fn")
        assert array or features or required or first, f"{p.name} should be keyword-only"
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if "rngs" in named:
        assert named[-1] == "rngs"
        assert parameters[named.index("rngs")].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("package", FORBIDDEN)
def test_layers(package):
    path = ROOT / package
    files = [path] if path.is_file() else list(path.rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            for forbidden in FORBIDDEN[package]:
                assert not f"{name}.".startswith(f"{forbidden}."), f"{file.relative_to(ROOT)} imports {name}"


def test_the_experiments_are_apart():
    """The library and its tests do without them: they are not installed with it."""
    library = [*(ROOT / "jaxup").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    users = {str(f.relative_to(ROOT)) for f in library if any(n.split(".")[0] == "experiments" for n in imports(f))}
    assert {name for name in users if not name.startswith("tests/experiments/")} == set()


def test_every_module_has_an_example():
    """Otherwise neither the module tests nor the lock of parameters would see it."""
    classes = {type(nnx.eval_shape(e.new)) for e in MODULES}
    small = [path for path in NAMES if is_module_class(find(path)) and not path.startswith(LARGE)]
    missing = [path for path in small if find(path) not in classes]
    assert missing == [], "add them to MODULES of a file in tests/registry"


def test_lock():
    locked, now = json.loads(LOCK.read_text()), interface()
    message = "the public interface changed; if that is meant, run: python -m tests.test_api"
    for part in now:
        changed = {k for k in now[part].keys() | locked[part].keys() if now[part].get(k) != locked[part].get(k)}
        assert not changed, f"{message}\n" + "\n".join(
            f"{k}: {locked[part].get(k)} -> {now[part].get(k)}" for k in sorted(changed)
        )


if __name__ == "__main__":
    LOCK.write_text(json.dumps(interface(), indent=1) + "\n")
