"""Reconstructions of the test images: the table with the paper's numbers beside ours, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from experiments.checkpoint import load_model
from experiments.config import load_config
from experiments.errors import InputError
from experiments.joint.evaluation import save_results
from experiments.recon.configs import ROWS, Row
from experiments.recon.pictures import index_figure, reconstruction_figure
from experiments.recon.training import TrainConfig, build, runs, smoked, train_one
from experiments.report import markdown_table
from jaxup import metrics
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
    if config.out is not None and config.out.exists():
        raise InputError(f"{config.out}: exists already")
    if not config.run_dir:
        raise InputError("run_dir: expected the directory of a run, or of several")
    found = [load_config(TrainConfig, run_dir) for run_dir in _run_dirs(config.run_dir)]
    if len({replace(run.data, data_dir=None) for run in found}) > 1:
        raise InputError("run_dir: the runs are of different images")
    networks = {run.methods[0]: load_model(run.run.run_dir, build(run)) for run in found}
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
    results = {method: scores(network, images) for method, network in networks.items()}
    text = f"{len(images)} test images. {_NOTE}\n\n{table(results)}"
    print(text)
    if out is None:
        return
    save_results(out, results, text)
    shown = _floats(images[np.linspace(0, len(images) - 1, min(_SHOWN, len(images))).astype(int)])
    richest = int(jnp.argmax(jnp.std(shown, axis=(1, 2, 3))))
    columns = {"input": np.asarray(shown[..., 0])}
    for method, network in networks.items():
        reconstruct, encode = _compiled(network)
        columns[ROWS.get(method, Row(method)).name] = np.asarray(reconstruct(shown)[..., 0])
        memories = encode(shown[richest : richest + 1])
        if isinstance(memories[0], IndexMaps):
            index_figure(out / f"index_maps_{method}.png", np.asarray(shown[richest, ..., 0]), memories)
    reconstruction_figure(out / "reconstructions.png", columns)


def scores(network: nnx.Module, images: np.ndarray) -> dict[str, float]:
    """Parameters, and the columns of the table; "psnr_per_image" is the mean of the images' own."""
    reconstruct, _ = _compiled(network)

    @jax.jit
    def measure(y: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        return {name: getattr(metrics, name)(y, x) for name in ("psnr", "ssim", "mae", "rmse")}

    parts = []
    for start in range(0, len(images), _BATCH):
        x = _floats(images[start : start + _BATCH])
        parts.append(jax.device_get(measure(reconstruct(x), x)))
    each = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}
    rmse = float(np.sqrt(np.mean(each["rmse"] ** 2)))
    return {
        "parameters": sum(p.size for p in jax.tree.leaves(nnx.state(network, nnx.Param))),
        "psnr": float(-20 * np.log10(rmse)),
        "ssim": float(np.mean(each["ssim"])),
        "mae": float(np.mean(each["mae"])),
        "rmse": rmse,
        "psnr_per_image": float(np.mean(each["psnr"])),
    }


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


def _floats(images: np.ndarray) -> jax.Array:
    return jnp.asarray(images, jnp.float32) / 255


def _compiled(network: Any) -> tuple[Any, Any]:
    """Reconstruction and encoder memories as functions of images."""
    graph, state = nnx.split(network)
    reconstruct = jax.jit(lambda state, x: jnp.clip(nnx.merge(graph, state)(x), 0, 1))
    encode = jax.jit(lambda state, x: nnx.merge(graph, state).encode(x)[1])
    return (lambda x: reconstruct(state, x)), (lambda x: encode(state, x))
