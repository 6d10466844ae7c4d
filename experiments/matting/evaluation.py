"""Trained networks on test images: the four errors of their mattes, in both conventions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.data import data_dir
from experiments.data.matting import HELD_OUT_SEED, Examined, Generated, Matted, Source
from experiments.data.matting_sets import TESTS
from experiments.engine.config import RunConfig
from experiments.engine.processes import for_each
from experiments.engine.progress import progress
from experiments.engine.report import Row, leaves_results, markdown_table, publish
from experiments.engine.runs import Run, load_runs
from experiments.matting.drawing import Sample, matte_figure
from experiments.matting.networks import NetworkConfig, as_method, costs
from experiments.matting.paper import ERRORS, paper_costs, paper_errors
from experiments.matting.training import TrainConfig
from jaxup import matting
from jaxup._checks import check_choice
from jaxup.files import InputError, require
from jaxup.metrics.matting import CONVENTIONS, matting_errors

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image and trimap -> alpha float32 [H, W], 0 .. 255
Errors = dict[str, dict[str, float]]  # by convention and name
_GENERATED, _PICTURES = 30, 6


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which images."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint is tested; may be given several times. None: a narrow
    network as it is before training."""
    tests: tuple[str, ...] = ("generated",)
    """generated (other mattes than in training, over other photographs), adobe (Composition-1k), alphamatting, or
    folder; see `data_dir`."""
    data_dir: Path | None = None
    """Folder of the data. None: the environment variable JAXUP_DATA."""
    images: int | None = None
    """Test on the first ones of each set only; none: on all, of generated ones on 30."""
    size: int = 256
    """Height and width of generated images."""
    baselines: tuple[str, ...] = ("trimap",)
    """trimap (half where alpha is unknown), and closed-form, by pymatting; where there is no known foreground or
    background, which closed-form needs, it is the trimap."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the tables are only printed."""
    pictures: bool = False
    """Write images, trimaps, mattes and what each method makes of them to `out`."""


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks by SAD, MSE, gradient and connectivity errors; pictures on request."""
    tests, methods = read_tests(config), baselines(config.baselines)
    runs = load_runs(TrainConfig, config.run_dir) or [untrained()]
    results, text = compare(runs, tests, methods, config.images, config.out if config.pictures else None)
    publish(config.out, results, text)


def untrained(model: str = "B4") -> Run:
    """A narrow network with its initial weights."""
    config = TrainConfig(RunConfig(Path()), NetworkConfig(model, width=1 / 16))
    network = config.build()
    network.eval()
    return Run(f"{config.label}, untrained", config, network)


def read_tests(config: EvaluateConfig) -> dict[str, Source]:
    """Test sets by name.

    Raises:
        InputError: an unknown name, a number below 1, or a folder without the data.
    """
    if config.images is not None and config.images < 1:
        raise InputError(f"images: expected at least 1, got {config.images}")
    for name in config.tests:
        check_choice("tests", name, ("generated", *TESTS))
    if config.data_dir is not None and not set(config.tests) & set(TESTS):
        raise InputError(f"data_dir: has no effect on the tests {', '.join(config.tests)}")
    return {name: _read_test(name, config) for name in config.tests}


def _read_test(name: str, config: EvaluateConfig) -> Source:
    if name == "generated":
        return Examined(Generated(config.images or _GENERATED, config.size, HELD_OUT_SEED))
    return TESTS[name](data_dir(config.data_dir))


def baselines(names: Sequence[str]) -> dict[str, Method]:
    """Methods that need no training, by name."""
    for name in names:
        check_choice("baselines", name, ("trimap", "closed-form"))
    return {name: _closed_form() if name == "closed-form" else _half for name in names}


def _half(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    return trimap.astype(np.float32)


def _closed_form() -> Method:
    estimate = require("pymatting").estimate_alpha_cf

    def solve(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        if not ((trimap == 0).any() and (trimap == 255).any()):
            return _half(image, trimap)
        alpha = np.asarray(255 * estimate(image / 255, trimap / 255), np.float32)
        return np.where(trimap == matting.UNKNOWN, alpha, trimap).astype(np.float32)

    return solve


def compare(
    runs: Sequence[Run],
    tests: Mapping[str, Source],
    others: Mapping[str, Method],
    count: int | None,
    pictures: Path | None,
    measured: Callable[[Run], Row] = lambda run: {},
) -> tuple[dict[str, Any], str]:
    """Results by test set, and the tables as text: the first with costs, other measurements, and papers' columns."""
    methods = {**others, **{run.label: as_method(run.network) for run in runs}}
    columns = {run.label: {**_costs(run), **measured(run), **paper_errors(run.config.network)} for run in runs}
    results, texts = {}, []
    for test, source in tests.items():
        drawn: list[Sample] = []
        scores = examine(methods, source, count, drawn if pictures is not None else None)
        if pictures is not None:
            matte_figure(pictures / f"{test}.png", drawn)
        tables = {way: [_row(name, scores[name], way) for name in methods] for way in CONVENTIONS}
        whole = [row | columns.get(row["method"], {}) for row in tables["matlab"]]
        number = len(next(iter(scores.values())))
        texts.append(f"{test}, means of {number} images\n\n{_filled(whole)}")
        texts.append(f"{test}, by the Python evaluation\n\n{_filled(tables['python'])}")
        results[test] = {"table": whole, "python": tables["python"], "images": scores}
    return results, "\n\n".join([*texts, _NOTE])


_NOTE = """\
Errors of the unknown region, of alphas in 8 bits, as the MATLAB code that papers report has them; the Python evaluation
stretches alphas to 0 .. 1 first. SAD, Grad, Conn / 1000. GFLOPs: 2^30 multiply-adds for 224 x 224 pixels, by XLA's
count. Columns "paper": of Composition-1k, from networks of full width."""


def examine(
    methods: Mapping[str, Method], source: Source, count: int | None, drawn: list[Sample] | None = None
) -> dict[str, dict[str, Errors]]:
    """Errors by method and image; the first images with what was made of them are added to `drawn`."""
    number = len(source) if count is None else min(count, len(source))
    with progress(0, number) as show:

        def errors_of(index: int) -> tuple[str, dict[str, Errors]]:
            sample = source[index]
            mattes = {name: method(sample.image, sample.trimap) for name, method in methods.items()}
            found = {name: errors(matte, sample) for name, matte in mattes.items()}
            if drawn is not None and index < _PICTURES:
                drawn.append(Sample(sample, mattes, {name: x["matlab"]["SAD"] for name, x in found.items()}))
            show(index + 1, None)
            return sample.name, found

        each = for_each(number, errors_of, alone=drawn is not None)
    return {method: {name: found[method] for name, found in each} for method in methods}


def errors(matte: np.ndarray, sample: Matted) -> Errors:
    """All errors of a matte [H, W], 0 .. 255, in both conventions."""
    unknown = (sample.trimap == matting.UNKNOWN)[None, ..., None]
    if not unknown.any():
        raise InputError(f"{sample.name}: has no unknown pixels, whose errors could be measured")
    given = {"matlab": np.floor(matte), "python": matte}
    found = {}
    for way in CONVENTIONS:
        x, truth = (np.asarray(a / 255, np.float32)[None, ..., None] for a in (given[way], sample.alpha))
        values = matting_errors(x, truth, unknown=unknown, convention=way)
        found[way] = {name: float(value[0]) for name, value in values.items()}
    return found


def _row(method: str, images: Mapping[str, Errors], convention: str) -> dict[str, Any]:
    means = {name: float(np.mean([image[convention][name] for image in images.values()])) for name in ERRORS}
    return {"method": method, **means}


def _costs(run: Run) -> dict[str, Any]:
    return costs(run.config.network) | paper_costs(run.config.network)


def _filled(rows: Sequence[Row]) -> str:
    """A table without empty columns."""
    columns = [key for key in max(rows, key=len) if any(row.get(key, "") != "" for row in rows)]
    return markdown_table(rows, columns)
