"""What trained networks make of test images, and the index maps of those that have some."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from experiments.data.matting import Matted
from experiments.engine.report import leaves_results
from experiments.engine.runs import Run, jitted, load_runs
from experiments.matting.drawing import Indexed, Sample, index_figure, matte_figure
from experiments.matting.evaluation import EvaluateConfig, baselines, errors, read_tests, untrained
from experiments.matting.networks import as_method
from experiments.matting.training import TrainConfig
from jaxup.files import InputError
from jaxup.models.matting import MattingNetwork
from jaxup.models.matting.factory import processing
from jaxup.models.resampling import RESAMPLINGS
from jaxup.nn.indexnet import IndexMaps


@dataclass(frozen=True)
class PicturesConfig:
    """What to draw."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run; may be given several times. None: a narrow index network as it is before
    training."""
    test: str = "generated"
    """generated, adobe, alphamatting or folder."""
    data_dir: Path | None = None
    """Folder of the data. None: the environment variable JAXUP_DATA."""
    images: tuple[int, ...] = (0,)
    """Which of the test images, counted from 0."""
    size: int = 256
    """Height and width of generated images."""
    baselines: tuple[str, ...] = ()
    """trimap, and closed-form, by pymatting."""
    out: Path = Path("pictures")
    """Directory for mattes.png and index-maps.png, which must not exist yet."""


@leaves_results
def pictures(config: PicturesConfig) -> None:
    """Draw the mattes of trained networks, and index maps of the first stage, random beside learned."""
    tests = EvaluateConfig(tests=(config.test,), data_dir=config.data_dir, size=config.size)
    source, methods = read_tests(tests)[config.test], baselines(config.baselines)
    for index in config.images:
        if not 0 <= index < len(source):
            raise InputError(f"images: expected numbers from 0 to {len(source) - 1}, got {index}")
    runs = load_runs(TrainConfig, config.run_dir) or [untrained("shared_o2o")]
    methods |= {run.label: as_method(run.network) for run in runs}
    samples, maps = [], list[Indexed]()
    for image in (source[index] for index in config.images):
        mattes = {name: method(image.image, image.trimap) for name, method in methods.items()}
        samples.append(Sample(image, mattes, {name: errors(x, image)["matlab"]["SAD"] for name, x in mattes.items()}))
        maps += index_maps(runs, image)
    matte_figure(config.out / "mattes.png", samples)
    if maps:
        index_figure(config.out / "index-maps.png", maps)


def index_maps(runs: Sequence[Run], image: Matted) -> list[Indexed]:
    """Those of the first stage, as they were before training and as they are, of index networks alone."""
    found = []
    for run in runs:
        network = run.network.network
        if isinstance(network, MattingNetwork) and RESAMPLINGS[network.resampling.method].indices:
            x = processing(network)[0](image.image, image.trimap)[None]
            # The former with statistics of the image itself, since it has none of its own.
            random, learned = (jitted(each, _first_maps)(x) for each in (run.config.build(), run.network))
            found.append(Indexed(image.image, run.label, *(jax.tree.map(_of_one, maps) for maps in (random, learned))))
    return found


def _first_maps(trained: Any, x: jax.Array) -> IndexMaps:
    return trained.network.outputs(x)["memories"][0]


def _of_one(x: jax.Array) -> np.ndarray:
    return np.asarray(x[0])
