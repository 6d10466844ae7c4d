"""Comparison of trained networks on noisy test images: a table with the paper's numbers beside ours, and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.data.denoising import FOLDERS, Images, grey_images
from experiments.data.photos import middles
from experiments.denoising.networks import Network, NetworkConfig, gflops, parameters
from experiments.denoising.paper import COSTS, RESULTS
from experiments.denoising.pictures import comparison, index_figure
from experiments.denoising.training import TrainConfig
from experiments.engine.figures import busiest_window
from experiments.engine.processes import for_each
from experiments.engine.progress import read_metrics
from experiments.engine.report import leaves_results, markdown_table, publish
from experiments.engine.runs import Run, jitted, load_runs
from jaxup.files import InputError
from jaxup.metrics import psnr, ssim
from jaxup.models import DnCNNSegNet
from jaxup.models.resampling import Resampling
from jaxup.nn import IndexNetwork
from jaxup.nn.indexnet import IndexMaps

Method = Callable[[np.ndarray], np.ndarray]  # noisy float32 [H, W] -> the image without noise
Scores = dict[str, float]


@dataclass(frozen=True)
class EvaluateConfig:
    """What to compare on which images."""

    run_dir: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Directory of a training run, whose newest checkpoint is tested with the noise that it was trained for; may be
    given several times."""
    tests: tuple[str, ...] = ("photos",)
    """photos (two photographs in scikit-image's wheel), set12, bsd68, or the path of a folder of images."""
    data_dir: Path | None = None
    """Folder that has denoise/Set12 and denoise/bsd68.csv or denoise/BSD68. None: the environment variable
    JAXUP_DATA."""
    images: int | None = None
    """Test on the first ones of each set only; none: on all."""
    crop: int | None = None
    """Test on the middle of each image only, so many pixels wide and high; none: on all of it."""
    own_statistics: bool = False
    """Normalise the features of each image by their own mean and variance, as in training, and not by the running ones;
    shows whether the latter are to blame for a poor result."""
    seed: int = 0
    """Of the noise, which differs from image to image and is the same for all methods."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write a picture per image, and the index maps of the first stage, to `out`."""


@leaves_results
def evaluate(config: EvaluateConfig) -> None:
    """Compare trained networks with total variation and the noisy images: PSNR and SSIM, pictures on request."""
    if config.data_dir is not None and not set(config.tests) & set(FOLDERS):
        raise InputError(f"data_dir: has no effect on the tests {', '.join(config.tests)}")
    if config.own_statistics and not config.run_dir:
        raise InputError("own_statistics: has no effect without a run_dir")
    runs = load_runs(TrainConfig, config.run_dir, key=lambda run: (run.label, run.sigma))
    read = read_tests(config.tests, config.data_dir)
    tests = {name: middles(images, config.images, config.crop) for name, images in read.items()}
    for run in runs if config.own_statistics else ():
        run.network.train()
    results, text = compare(runs, tests, config.seed, config.out if config.pictures else None)
    if config.own_statistics:
        text += "\nFeatures are normalised by each image's own statistics."
    publish(config.out, results, text)


def read_tests(names: Sequence[str], directory: Path | None) -> dict[str, Images]:
    """Test sets by name: photos, those of `FOLDERS`, or folders of images."""
    return {Path(name).name: _read_test(name, directory) for name in names}


def _read_test(name: str, directory: Path | None) -> Images:
    """The images of a test set, or of a folder."""
    if name == "photos" or name in FOLDERS:
        return grey_images(name, directory, "test")
    return grey_images("folder", Path(name), "test")


def compare(
    runs: Sequence[Run], tests: Mapping[str, Images], seed: int, pictures: Path | None
) -> tuple[dict[str, Any], str]:
    """Results by level of noise and method, and the tables as text; one table for each level."""
    results, texts = {}, []
    for sigma in sorted({run.config.sigma for run in runs}) or [25.0]:
        chosen = [run for run in runs if run.config.sigma == sigma]
        costs = {run.label: cost_cells(run.config.network) | speed_cells(run.run_dir) for run in chosen}
        methods = {"noisy": lambda x: x, "total variation": _total_variation(sigma)}
        methods |= {run.label: as_method(run.network) for run in chosen}
        folder = None if pictures is None else pictures / f"sigma-{sigma:g}"
        scores = {
            name: evaluate_images(methods, images, sigma, seed, None if folder is None else folder / name)
            for name, images in tests.items()
        }
        if folder is not None:
            image = next(iter(next(iter(tests.values())).values()))
            noisy = _padded(with_noise(image, 0, sigma, seed)[busiest_window(image)], 8)
            index_figure(folder / "index-maps.png", noisy, _index_maps(chosen, noisy))
        rows = [_row(label, chosen, scores, sigma, costs.get(label, {})) for label in methods]
        filled = {key for row in rows for key, value in row.items() if value != ""}
        columns = [key for key in max(rows, key=len) if key in filled]
        sizes = ", ".join(f"{name} ({len(images)})" for name, images in tests.items())
        texts.append(f"sigma = {sigma:g}, means of images: {sizes}\n\n{markdown_table(rows, columns)}")
        results[f"sigma {sigma:g}"] = {"table": rows, "images": scores}
    return results, "\n\n".join([*texts, _NOTE])


_NOTE = """\
PSNR in dB, unclipped. SSIM: window of 11 x 11 Gaussian weights, range 1. SSIM (2): window of 7 x 7 equal weights, range
2, as the paper's numbers are. GFLOPs: 2^30 multiply-adds for 224 x 224 pixels. Columns "paper": Lu et al., Table 7."""


def as_method(network: Network) -> Method:
    """A trained network as a function of images of any size: what is missing to a multiple of 8 is reflected."""
    run, multiple = jitted(network), 8 if isinstance(network, DnCNNSegNet) else 1

    def denoise(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        return np.asarray(run(_padded(image, multiple)[None, ..., None])[0, :height, :width, 0])

    return denoise


def _padded(image: np.ndarray, multiple: int) -> np.ndarray:
    return np.pad(image, [(0, -length % multiple) for length in image.shape], mode="reflect")


def _total_variation(sigma: float) -> Method:
    from skimage.restoration import denoise_tv_chambolle  # here, because it is slow to import

    # Of 0.6, 0.8, 1 and 1.2 the best on three images of Set12 at every sigma.
    return lambda x: denoise_tv_chambolle(x, weight=0.8 * sigma / 255)


def with_noise(image: np.ndarray, index: int, sigma: float, seed: int) -> np.ndarray:
    """Image number `index` of a set with its noise, float32 [H, W] on a scale of 0 to 1, not clipped."""
    noise = np.random.default_rng((seed, index)).standard_normal(image.shape, np.float32)
    return image.astype(np.float32) / 255 + np.float32(sigma / 255) * noise


def evaluate_images(
    methods: Mapping[str, Method], images: Images, sigma: float, seed: int, folder: Path | None
) -> dict[str, dict[str, Scores]]:
    """Scores by method and image; a picture of every image into `folder`."""
    named = list(images.items())

    def scores_of(index: int) -> dict[str, Scores]:
        name, image = named[index]
        if min(image.shape) < 11:
            raise InputError(f"{name}: expected at least 11 x 11 pixels for SSIM, got {image.shape}")
        truth, noisy = image.astype(np.float32) / 255, with_noise(image, index, sigma, seed)
        results = {method: run(noisy) for method, run in methods.items()}
        found = {method: score(result, truth) for method, result in results.items()}
        if folder is not None:
            comparison(folder / f"{name}.png", results, truth, {m: found[m]["PSNR"] for m in methods})
        return found

    each = for_each(len(named), scores_of, alone=folder is not None)
    return {method: {name: found[method] for (name, _), found in zip(named, each, strict=True)} for method in methods}


def score(result: np.ndarray, truth: np.ndarray) -> Scores:
    """PSNR and SSIM of images [H, W]."""
    x, t = (jnp.asarray(image, jnp.float32)[None, ..., None] for image in (result, truth))
    values = {"PSNR": psnr(x, t), "SSIM": ssim(x, t), "SSIM (2)": ssim(x, t, data_range=2, window="uniform")}
    return {name: float(value[0]) for name, value in values.items()}


def _row(
    label: str, runs: Sequence[Run], scores: Mapping[str, Any], sigma: float, costs: Mapping[str, Any]
) -> dict[str, Any]:
    """A line of the table."""
    row: dict[str, Any] = {"method": label, **costs}
    config = next((run.config.network for run in runs if run.label == label), None)
    for test, methods in scores.items():
        images = methods[label].values()
        for name in next(iter(images)):
            row[f"{test} {name}"] = float(np.mean([image[name] for image in images]))
        if test in ("set12", "bsd68"):
            row[f"{test} paper"] = _paper(config, test, sigma)
    return row


def _paper(config: NetworkConfig | None, test: str, sigma: float) -> str:
    known = None if config is None or config.features != 64 else RESULTS.get(config.model, {}).get((test, sigma))
    return "" if known is None else f"{known[0]:.2f}/{known[1]:.4f}"


def cost_cells(config: NetworkConfig) -> dict[str, Any]:
    """Parameters and GFLOPs, ours and the paper's."""
    paper = COSTS.get(config.model, ("", "")) if config.features == 64 else ("", "")
    cells = {"parameters": parameters(config), "params. paper": paper[0]}
    return cells | {"GFLOPs": gflops(config), "GFLOPs paper": paper[1] and f"{paper[1]:.2f}"}


def speed_cells(run_dir: Path) -> dict[str, Any]:
    """Seconds per step and the share of waiting for data, medians of the lines after the first, which compiles."""
    lines = read_metrics(run_dir)
    steps = np.diff([0, *(line["step"] for line in lines)])
    seconds = [line["seconds"] / n for line, n in zip(lines, steps, strict=True)]
    waits = [line.get("data_wait", np.nan) for line in lines]
    first = min(1, len(lines) - 1)
    return {"s/step": float(np.median(seconds[first:])), "data wait": float(np.median(waits[first:]))} if lines else {}


def _index_maps(runs: Sequence[Run], noisy: np.ndarray) -> dict[str, IndexMaps]:
    """The index maps of the first stage by network, where there are any."""
    found = {}
    for run in runs:
        stages = getattr(run.network, "resampling", None)
        if isinstance(stages, Resampling) and any(isinstance(layer, IndexNetwork) for layer in stages.down_layers):
            maps = jitted(run.network, _first_maps)(noisy[None, ..., None])
            found[run.label] = jax.tree.map(lambda x: np.asarray(x[0]), maps)
    return found


def _first_maps(network: Any, x: jax.Array) -> IndexMaps:
    return network.encode(x)[1][0]
