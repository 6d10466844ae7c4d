"""Reconstructions of the test images: the table with the paper's numbers beside ours, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.engine.figures import kernel_figure
from experiments.engine.processes import for_each
from experiments.engine.report import leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs, parameters, train_rows
from experiments.reconstruction.paper import ROWS, Row
from experiments.reconstruction.pictures import memory_figure, reconstruction_figure
from experiments.reconstruction.training import TrainConfig, runs, train_one
from jaxup import metrics
from jaxup.files import InputError
from jaxup.models.resampling import RESAMPLINGS
from jaxup.nn.a2u import KernelPair
from jaxup.nn.indexnet import IndexMaps

_BATCH = 100
_SHOWN = 8
_NOTE = (
    "PSNR and RMSE are those of the mean squared error over all test images, as the paper's columns are (its PSNR is "
    "-20 log10 of its MSE column, which is a root); MAE and SSIM (Gaussian window, 11 x 11, sigma 1.5) are means over "
    "images. Reconstructions are clipped to 0 .. 1."
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Which runs to compare."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a run, or of several; may be given several times. All must be of the same images."""
    data_dir: Path | None = None
    """Where the images lie; none: where they were in training."""
    images: int | None = None
    """Test on the first ones only; none: on as many as in training, all by default."""
    out: Path | None = None
    """Directory for table.md, results.json and pictures, which must not exist yet; none: the table is only printed."""


def train(config: TrainConfig) -> None:
    """Train one network for each method, and compare them; started again, it goes on where it stopped."""
    chosen, images = runs(config), config.data.open("train")
    trained = train_rows(lambda run: train_one(run, images), chosen)
    compare(trained, config.data.open("test"), config.run.run_dir)


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks on the test images: a table, and pictures on request."""
    if not config.run_dir:
        raise InputError("run_dir: expected the directory of a run, or of several")
    found = load_runs(TrainConfig, _run_dirs(config.run_dir), key=lambda run: None)
    if len({replace(run.config.data, data_dir=None) for run in found}) > 1:
        raise InputError("run_dir: the runs are of different images")
    if len({_name(run) for run in found}) < len(found):
        raise InputError("run_dir: two runs of one method")
    data = found[0].config.data
    data = replace(data, data_dir=config.data_dir or data.data_dir, images=config.images or data.images)
    compare([run._replace(label=run.config.label) for run in found], data.open("test"), config.out)


def _run_dirs(given: Sequence[Path]) -> list[Path]:
    """Directories of runs, in the order of the table where they lie in one directory."""
    order = {method: number for number, method in enumerate(ROWS)}
    found = []
    for directory in given:
        below = [path.parent for path in directory.glob("*/config.json")]
        found += sorted(below, key=lambda path: (order.get(path.name, len(order)), path)) or [directory]
    return found


def _name(run: Run) -> str:
    """Of a row, in files."""
    variant = "".join(c if c.isalnum() else "-" for c in run.config.variant)
    return run.config.methods[0] + (f"-{variant}" if variant else "")


def compare(trained: Sequence[Run], images: np.ndarray, out: Path | None) -> None:
    """Print the table, and write it with its pictures to `out`."""
    shown = np.linspace(0, len(images) - 1, min(_SHOWN, len(images))).astype(int)
    results, named = dict[str, dict[str, float]](), dict[str, np.ndarray]()
    for run in trained:
        found, named[run.label] = reconstruct(run, images, shown)
        results[_name(run)] = {"parameters": parameters(run.network)} | found
    publish(out, results, f"{len(images)} test images. {_NOTE}\n\n{table(trained, results)}")
    if out is None:
        return
    reconstruction_figure(out / "reconstructions.png", {"input": images[shown] / 255} | named)
    richest = shown[np.argmax(images[shown].std((1, 2, 3)))]
    for run in trained:
        _draw_stages(out, run, images[richest])


def _draw_stages(out: Path, run: Run, image: np.ndarray) -> None:
    """What the stages of a network remember of an image, or the kernels of the last one."""
    stage, batch, grey = RESAMPLINGS[run.config.methods[0]], image[None], image / 255
    if stage.memory is IndexMaps:
        random = jitted(run.config.build(), _memories)(batch) if stage.indices else None
        memory_figure(out / f"index_maps_{_name(run)}.png", grey, jitted(run.network, _memories)(batch), random)
    elif stage.memory is KernelPair:
        memory_figure(out / f"kernels_{_name(run)}.png", grey, jitted(run.network, _memories)(batch))
    elif stage.kernels is not None:
        kernels = np.asarray(jitted(run.network, _kernels)(batch))[0, ..., 0, :]
        kernel_figure(out / f"kernels_{_name(run)}.png", image[..., 0], kernels)


def reconstruct(run: Run, images: np.ndarray, shown: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """The scores of the reconstructions of bytes [N, H, W, 1], batches of which are shared among the processes, and
    some of them, as floats clipped to 0 .. 1."""
    starts, decode = range(0, len(images), _BATCH), jitted(run.network, _decode)

    def part(number: int) -> tuple[dict[str, list[float]], list[Any]]:
        first = starts[number]
        batch = images[first : first + _BATCH]
        y = decode(batch)
        here = shown[(first <= shown) & (shown < first + len(batch))]
        found = jax.device_get(_measure(y, batch))
        return {name: values.tolist() for name, values in found.items()}, np.asarray(y)[here - first].tolist()

    parts = for_each(len(starts), part)
    each = {name: np.concatenate([np.array(found[name]) for found, _ in parts]) for name in parts[0][0]}
    return scores(each), np.array([y for _, some in parts for y in some], np.float32)


def scores(each: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The columns of the table, of scores of each image; "psnr_per_image" is the mean of the images' own."""
    rmse = float(np.sqrt(np.mean(each["rmse"] ** 2)))
    return {
        "psnr": float(-20 * np.log10(rmse)),
        "ssim": float(np.mean(each["ssim"])),
        "mae": float(np.mean(each["mae"])),
        "rmse": rmse,
        "psnr_per_image": float(np.mean(each["psnr"])),
    }


@jax.jit
def _measure(y: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    truth = _floats(images)
    return {name: getattr(metrics, name)(y, truth) for name in ("psnr", "ssim", "mae", "rmse")}


def _decode(network: Any, images: jax.Array) -> jax.Array:
    return jnp.clip(network(_floats(images)), 0, 1)


def _memories(network: Any, images: jax.Array) -> list[IndexMaps | KernelPair]:
    return network.encode(_floats(images))[1]


def _kernels(network: Any, images: jax.Array) -> jax.Array:
    """The kernels that give the largest map, [N, H, W, G, K*K]."""
    return network.kernels(_floats(images))


def _floats(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255


def table(trained: Sequence[Run], results: dict[str, dict[str, float]]) -> str:
    """The table as Markdown."""
    rows = []
    for run in trained:
        result, method = results[_name(run)], run.config.methods[0]
        paper = Row("") if run.config.variant else ROWS.get(method, Row(method))
        row = {"method": run.label, "parameters": f"{result['parameters']:,}"}
        for name in ("psnr", "ssim", "mae", "rmse"):
            digits = 2 if name == "psnr" else 4
            row |= {name.upper(): f"{result[name]:.{digits}f}", f"paper's {name.upper()}": getattr(paper, name)}
        rows.append(row)
    return markdown_table(rows)
