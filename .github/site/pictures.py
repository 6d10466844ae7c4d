"""Draws the pictures of the README and the gallery anew, small enough to be kept beside them.

    python -m experiments joint-upsampling demo
    python .github/site/pictures.py runs/joint-upsampling-demo

The argument is the demo's folder, for its trained network and its figure. Photographs are those of scikit-image; the
extras `experiments`, `efficientnet` and `matting` are needed, and PyTorch once.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from PIL import Image
from skimage import data

from experiments.data import mattes
from experiments.engine.figures import Panel, panel_figure
from experiments.engine.runs import jitted, load_runs
from experiments.joint_upsampling.classical import FILTERS, METHODS
from experiments.joint_upsampling.evaluation import as_methods, compare
from experiments.joint_upsampling.training import DataConfig, TrainConfig
from experiments.segmentation.drawing import in_colours
from experiments.segmentation.features import normalised, pretrained
from jaxup import ops
from jaxup.cli import main
from jaxup.matting import trimap_by_distance

FOLDER = Path(__file__).parents[1] / "pictures"
LIMIT = 150_000  # bytes of a picture
Array = np.ndarray


def depth(demo: Path) -> None:
    """A part of scikit-image's Motorcycle: its depth at an eighth of the resolution, and what methods make of it."""
    networks = as_methods(load_runs(TrainConfig, (demo / "attention",)))
    (attention,) = networks.values()
    source = DataConfig(source="motorcycle").open("test")
    methods = {**FILTERS, "FGI": METHODS["FGI"], "attention network": attention}
    found = compare(source[0], 8, "grid", methods, source.unit)
    part, low = (slice(24, 248), slice(264, 584)), (slice(3, 31), slice(33, 73))
    known = found.truth[found.valid.astype(bool)]

    def coloured(map: Array) -> Array:
        return colormaps["viridis"]((map[..., 0] - known.min()) / np.ptp(known))[..., :3]

    truth = np.where(found.valid.astype(bool), coloured(found.truth), 0.65)
    panels = [Panel(found.guide[part], "photograph"), Panel(coloured(found.low[low]), "depth, an eighth of the size")]
    for name, result in found.results.items():
        panels.append(Panel(coloured(result[part]), f"{name}: {found.errors[name]:.2f} px"))
    _save("depth", [panels[:4], [*panels[4:], Panel(truth[part], "measured (grey: unknown)")]])


def features() -> None:
    """Features of a frozen EfficientNet-Lite0 as colours, brought to the photograph's resolution without training."""
    rows = []
    with TemporaryDirectory() as folder:
        network = pretrained(Path(folder))
    maps = jitted(network, lambda network, x: network(normalised(x))[network.strides.index(16)])
    for name in ("chelsea", "coffee"):
        image = getattr(data, name)()[:288, :448]
        x, guide = jnp.asarray(maps(image[None])), jnp.asarray(image[None] / np.float32(255))
        enlarged = {
            "bilinear": ops.resize(x, scale=16, method="bilinear"),
            "guided filter": ops.guided_filter(ops.resize(x, scale=16), guide, radius=16, eps=1e-3),
            "joint bilateral": ops.joint_bilateral_upsample(
                x, guide, scale=16, radius=2, sigma_spatial=0.8, sigma_range=0.1
            ),
        }
        colours = in_colours(*(np.asarray(y[0]) for y in (x, *enlarged.values())))
        titles = ["features, 18 x 28", *enlarged]
        rows.append([Panel(image / 255, "photograph"), *map(Panel, colours, titles)])
    _save("features", rows)


def matte() -> None:
    """Generated hair before a photograph: `jaxup matte` without weights."""
    rng = np.random.default_rng(3)
    background = data.coffee()[:256, :256] / 255
    alpha, colours = mattes.hair(rng, 256, 256)
    image = alpha[..., None] * colours + (1 - alpha[..., None]) * background
    trimap = trimap_by_distance((255 * alpha).round().astype(np.uint8), radius=6) / 255
    with TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("photo.png", "trimap.png", "alpha.npy")]
        for path, x in zip(paths, (image, trimap), strict=False):
            Image.fromarray((255 * x).round().astype(np.uint8)).save(path)
        main(["matte", paths[0], "--trimap", paths[1], "-o", paths[2]])
        found = np.load(paths[2])
    titles = ("photograph", "trimap", "jaxup matte", "exact")
    _save("matte", [list(map(Panel, (image, trimap, found, alpha), titles))])


def demo_figure(demo: Path) -> None:
    """The demo's own figure."""
    _fit("demo", Image.open(demo / "comparison.png"))


def _save(name: str, rows: Sequence[Sequence[Panel]]) -> None:
    with TemporaryDirectory() as folder:
        panel_figure(Path(folder, "figure.png"), rows)
        _fit(name, Image.open(Path(folder, "figure.png")))


def _fit(name: str, image: Image.Image) -> None:
    """Writes a JPEG of as good a quality as the limit allows."""
    image = image.convert("RGB")
    image.thumbnail((1400, 1400), Image.Resampling.LANCZOS)
    for quality in range(92, 20, -4):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() < LIMIT:
            break
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.jpg").write_bytes(buffer.getvalue())
    print(f"{name}.jpg: {image.width} x {image.height}, {buffer.tell()} bytes, quality {quality}")


if __name__ == "__main__":
    demo = Path(sys.argv[1])
    demo_figure(demo)
    depth(demo)
    features()
    matte()
