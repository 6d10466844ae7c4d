"""Reconstructions of the test images: the table with the paper's numbers beside ours, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.engine.checkpoint import load_model
from experiments.engine.config import load_config
from experiments.engine.report import check_out, kernel_figure, markdown_table, save_results
from experiments.reconstruction.paper import ROWS, Row
from experiments.reconstruction.pictures import memory_figure, reconstruction_figure
from experiments.reconstruction.training import TrainConfig, runs, smoked, train_one
from jaxup import metrics
from jaxup.files import InputError
from jaxup.models.resampling import RESAMPLINGS
from jaxup.nn.a2u import KernelPair
from jaxup.nn.indexnet import IndexMaps

Networks = Mapping[str, nnx.Module]

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
    config = smoked(config)
    chosen, images = runs(config), config.data.open("train")
    networks = {}
    for method, run in chosen.items():
        print(f"training {ROWS.get(method, Row(method)).name}: {run.run.steps} steps", flush=True)
        networks[method] = train_one(run, images)
    compare(networks, config.data.open("test"), config.run.run_dir)


def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks on the test images: a table, and pictures on request."""
    check_out(config.out)
    if not config.run_dir:
        raise InputError("run_dir: expected the directory of a run, or of several")
    run_dirs = _run_dirs(config.run_dir)
    found = [load_config(TrainConfig, run_dir) for run_dir in run_dirs]
    if len({replace(run.data, data_dir=None) for run in found}) > 1:
        raise InputError("run_dir: the runs are of different images")
    networks = {run.methods[0]: load_model(at, run.build()) for at, run in zip(run_dirs, found, strict=True)}
    if len(networks) < len(found):
        raise InputError("run_dir: two runs of one method")
    data = found[0].data
    data = replace(data, data_dir=config.data_dir or data.data_dir, images=config.images or data.images)
    compare(networks, data.open("test"), config.out)


def _run_dirs(given: Sequence[Path]) -> list[Path]:
    """Directories of runs, in the order of the table where they lie in one directory."""
    order = {method: number for number, method in enumerate(ROWS)}
    found = []
    for directory in given:
        below = [path.parent for path in directory.glob("*/config.json")]
        found += sorted(below, key=lambda path: (order.get(path.name, len(order)), path)) or [directory]
    return found


def compare(networks: Networks, images: np.ndarray, out: Path | None) -> None:
    """Print the table, and write it with its pictures to `out`."""
    outputs = {method: reconstruct(network, images) for method, network in networks.items()}
    results = {method: parameters(networks[method]) | scores(y, images) for method, y in outputs.items()}
    text = f"{len(images)} test images. {_NOTE}\n\n{table(results)}"
    print(text)
    if out is None:
        return
    save_results(out, results, text)
    shown = np.linspace(0, len(images) - 1, min(_SHOWN, len(images))).astype(int)
    named = {ROWS.get(method, Row(method)).name: y[shown] for method, y in outputs.items()}
    reconstruction_figure(out / "reconstructions.png", {"input": images[shown] / 255} | named)
    richest = shown[np.argmax(images[shown].std((1, 2, 3)))]
    for method, network in networks.items():
        if RESAMPLINGS[method].memory in (IndexMaps, KernelPair):
            stages = _run(_encode, network, images[richest : richest + 1])
            kind = "kernels" if method.startswith("a2u") else "index_maps"
            memory_figure(out / f"{kind}_{method}.png", images[richest] / 255, stages)
        if RESAMPLINGS[method].kernels is not None and method.endswith("carafe"):
            kernels = np.asarray(_run(_kernels, network, images[richest : richest + 1]))[0]
            kernel_figure(out / f"kernels_{method}.png", images[richest, ..., 0], kernels)


def reconstruct(network: nnx.Module, images: np.ndarray) -> np.ndarray:
    """Reconstructions of bytes [N, H, W, 1] as floats, clipped to 0 .. 1."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([np.asarray(_run(_decode, network, images[n : n + _BATCH])) for n in starts])


def parameters(network: nnx.Module) -> dict[str, float]:
    """How many it has."""
    return {"parameters": sum(p.size for p in jax.tree.leaves(nnx.state(network, nnx.Param)))}


def scores(outputs: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """The columns of the table; "psnr_per_image" is the mean of the images' own."""
    starts = range(0, len(images), _BATCH)
    parts = [jax.device_get(_measure(outputs[n : n + _BATCH], images[n : n + _BATCH])) for n in starts]
    each = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}
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


@partial(jax.jit, static_argnums=0)
def _decode(graph: Any, state: Any, images: jax.Array) -> jax.Array:
    return jnp.clip(nnx.merge(graph, state)(_floats(images)), 0, 1)


@partial(jax.jit, static_argnums=0)
def _encode(graph: Any, state: Any, images: jax.Array) -> list[IndexMaps | KernelPair]:
    return nnx.merge(graph, state).encode(_floats(images))[1]


@partial(jax.jit, static_argnums=0)
def _kernels(graph: Any, state: Any, images: jax.Array) -> jax.Array:
    """The kernels that give the largest map, [N, H, W, K*K]."""
    network = nnx.merge(graph, state)
    z, memories = network.encode(_floats(images))
    for stage in reversed(range(len(memories))):
        z = network.decoder[-1 - stage](z)
        if stage:
            z = network.resampling.up(stage, z, memories[stage])
    return network.resampling.up_layers[0].kernels(z)[..., 0, :]


def _run(function: Any, network: nnx.Module, images: np.ndarray) -> Any:
    return function(*nnx.split(network), images)


def _floats(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as Markdown."""
    rows = []
    for method, result in results.items():
        paper = ROWS.get(method, Row(method))
        row = {"method": paper.name, "parameters": f"{result['parameters']:,}"}
        for name in ("psnr", "ssim", "mae", "rmse"):
            digits = 2 if name == "psnr" else 4
            row |= {name.upper(): f"{result[name]:.{digits}f}", f"paper's {name.upper()}": getattr(paper, name)}
        rows.append(row)
    return markdown_table(rows, list(rows[0]))
