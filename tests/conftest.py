"""What every test has: strict JAX and the paths of optional data. `tests/__init__.py` has the settings of JAX."""

import collections
import gc
import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.golden_files import shared

# Tracing makes many objects and little garbage: cycles are looked for less often.
gc.freeze()
gc.set_threshold(200_000, 20, 100)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# GPUs would otherwise multiply float32 matrices in TF32, far outside the tolerances.
if jax.default_backend() != "cpu":
    jax.config.update("jax_default_matmul_precision", "highest")


THOROUGH_CASES = 1  # of a test, in continuous integration; the others are slow
WHOLE_NETWORKS = ("segmentation", "matting", "monocular_depth")  # folders of jaxup/models

_STARTS: dict[int, Any] = {}  # states of generators before any test drew from them


@pytest.fixture(autouse=True)
def same_draws(request: pytest.FixtureRequest) -> None:
    """The generators of a test's module begin anew: what it draws does not depend on the tests before it."""
    for name in ("RNG", "RANDOM"):
        generator = getattr(getattr(request.node, "module", None), name, None)
        if generator is not None:
            start = _STARTS.setdefault(id(generator), generator.bit_generator.state)
            generator.bit_generator.state = start


@pytest.fixture
def goldens() -> Path:
    """The folder of golden vectors; the test is skipped where there is none."""
    return shared("goldens")


@pytest.fixture
def shared_data() -> Path:
    """The folder of shared sample data; the test is skipped where there is none."""
    return shared("data")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--family", help="the library's tests with this word in their file, name or example")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of a family are in files that bear its name, or are generic: others are not even imported."""
    family = config.getoption("--family")
    if family is None or collection_path.is_dir():
        return None
    generic = collection_path.name in ("test_matrix.py", "test_factory.py", "test_convert.py")
    return None if generic or family.lower() in collection_path.name.lower() else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `torch` skip, saying so, where torch is not installed; others get the marks that follow by rule."""
    _mark_what_is_not_first(items)
    _mark_examples_of_whole_networks(items)
    family = (config.getoption("--family") or "").lower()
    items[:] = [item for item in items if family in item.nodeid.lower()]
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="compares with PyTorch, which is not installed"))


def pytest_configure(config: pytest.Config) -> None:
    """A worker that dies ends the tests, which say what it ran: xdist 3.8 may wait for ever for one in its place."""
    if hasattr(config.option, "maxworkerrestart") and config.option.maxworkerrestart is None:
        config.option.maxworkerrestart = "0"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share what is slow to make go to one worker: functions of an example, runs of an experiment."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            generic = re.match(r"(.*test_matrix\.py)::.*\[(?:.*-)?(\w+)\]$", nodeid)
            if generic:
                return "::".join(generic.groups())
            whole = "joint_upsampling|super_resolution|filtering|segmentation"
            experiment = re.match(rf"tests/experiments/test_({whole})\.py", nodeid)
            return experiment[0] if experiment else nodeid

    return ByWhatIsShared(config, log)


def _mark_what_is_not_first(items: list[pytest.Item]) -> None:
    """Cases behind the first of a test are thorough or slow: as its mark says, or all but one of its thorough ones."""
    by_default, in_ci = collections.Counter[str](), collections.Counter[str]()
    behind = []
    for item in items:
        name, (default, all_in_ci) = item.nodeid.split("[")[0], _first(item)
        if item.get_closest_marker("slow"):
            continue
        if item.get_closest_marker("thorough") or by_default[name] >= default:
            item.add_marker("thorough")
            behind.append((item, name, all_in_ci))
        else:
            by_default[name] += 1
    for item, name, all_in_ci in behind:
        in_ci[name] += 1
        if in_ci[name] > (THOROUGH_CASES if all_in_ci is None else all_in_ci - by_default[name]):
            item.add_marker("slow")


def _first(item: pytest.Item) -> tuple[float, int | None]:
    """How many of a test's cases run by default, and how many in continuous integration, where its mark says so."""
    marker = item.get_closest_marker("first")
    return (*marker.args, None)[:2] if marker else (math.inf, None)


def _mark_examples_of_whole_networks(items: list[pytest.Item]) -> None:
    """Docstrings' examples that build a network of a task take seconds each."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.path.parent.name in WHOLE_NETWORKS:
            item.add_marker("thorough")
