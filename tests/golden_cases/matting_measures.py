"""Losses and errors of alpha mattes, and errors of depth maps."""

import itertools

import jax
import numpy as np
from PIL import Image

from jaxup import losses, matting, metrics
from tests.golden_cases.converted import Function
from tests.golden_files import shared

_FASTDEPTH = {"mse": 1e6, "rmse": 1e3, "mae": 1e3, "rel": 1, "log10": 1}  # from metres to millimetres
_FASTDEPTH |= {"delta1": 1, "delta2": 1, "delta3": 1, "irmse": 1e-3, "imae": 1e-3}
_HU = ("mse", "mae", "rel", "log10", "delta1", "delta2", "delta3")


def matting_loss(inputs, params, config):
    """Both codes have no options: the source says which it is."""
    x, ends = inputs["pd"], (0, 1, 2, 5, 8, 11)
    parts = [inputs["gt"][..., first:last] for first, last in itertools.pairwise(ends)]
    alpha, unknown, foreground, background, image = parts
    options = {"unknown": unknown, "margin": 1.0 if "a2u" in config["source"] else 0.0}
    alpha = losses.alpha_loss(x, alpha, **options)
    composition = losses.composition_loss(x, image, foreground, background, **options)
    return ((alpha + composition) / 2).mean(keepdims=True)


def laplacian(inputs, params, config):
    options = {"levels": config["max_levels"], "kernel_size": config["k_size"], "sigma": config["sigma"]}
    return losses.laplacian_loss(inputs["pd"], inputs["gt"], **options).mean(keepdims=True)


def matting_metrics(inputs, params, config):
    found = inputs if "pred" in inputs else _real(config)
    x, truth = (found[name][None, ..., None] / np.float32(255) for name in ("pred", "gt"))
    unknown = found["trimap"][None, ..., None] == 128
    return {
        convention: np.stack(list(metrics.matting_errors(x, truth, unknown=unknown, convention=convention).values()))[
            :, 0
        ]
        for convention in ("python", "matlab")
    }


def _real(config):
    """An image of the data folder, and a prediction that is made of it by a formula."""
    folder = shared("data") / "matting" / "alphamatting"
    alpha, trimap = (np.asarray(Image.open(folder / f"{config['image']}_{kind}.png")) for kind in ("alpha", "trimap"))
    formula = vars(np) | {"alpha": alpha, "trimap": trimap, "__builtins__": {}}
    return {"pred": eval(config["prediction"], formula).astype(np.uint8), "gt": alpha, "trimap": trimap}


def depth_metrics(inputs, params, config):
    """In float64, as the sheet; the public code is given 0 or NaN, by convention, for what was not measured."""
    x, truth = (np.moveaxis(inputs[name].astype(np.float64), 1, 3) for name in ("pred", "target"))  # [B, 1, H, W]
    targets = {"fastdepth": truth, "hu": np.where(truth == 0, np.nan, truth)}
    with jax.enable_x64(True):
        scores = {
            convention: metrics.depth_scores(metrics.depth_errors(x, t, convention=convention), convention=convention)
            for convention, t in targets.items()
        }
    found = np.array([factor * scores["fastdepth"][name] for name, factor in _FASTDEPTH.items()])
    return {"fastdepth": np.where(np.isfinite(found), found, -1), "hu": np.array([scores["hu"][name] for name in _HU])}


def pipeline(inputs, params, config):
    image, trimap, output = (inputs[name] for name in ("image", "trimap", "net_output"))
    if config["kind"] == "a2u":
        x, alpha = matting.a2u_input(image, trimap), matting.a2u_alpha(output, trimap)
    else:
        plus_one = all(n % 32 == 1 for n in output.shape)
        x, alpha = matting.indexnet_input(image, trimap, plus_one=plus_one), matting.indexnet_alpha(output, trimap)
    return {"x": x, "alpha_float": alpha, "alpha": alpha.astype(np.uint8)}


def composition(inputs, params, config):
    """Images on disk are of Adobe's script, which does not reduce backgrounds; A2U composes anew."""
    foreground, background, alpha = (inputs[name] for name in ("fg", "bg", "alpha"))
    images = [
        matting.compose(foreground, matting.covering_background(background, size=alpha.shape, reduce=reduce), alpha)
        for reduce in (False, True)
    ]
    return {"composite_uint8": images[0].astype(np.uint8), "a2u_composite_float": images[1]}


def trimaps(inputs, params, config):
    """Of all radii and sizes that training draws."""
    alpha, sizes = inputs["alpha"], range(1, 30)
    found = {f"indexnet_r{r}": matting.trimap_by_distance(alpha, radius=r) for r in sizes}
    eroded = {s: matting.trimap_by_erosion(alpha, foreground=s, background=s) for s in sizes}
    for first, second in itertools.product(sizes, sizes):
        white, black = eroded[first] == 255, eroded[second] == 0
        found[f"a2u_fg{first}_bg{second}"] = np.where(white, 255, np.where(black, 0, 128))
    return found


ON_HOST: dict[str, Function] = {
    "matting metrics": matting_metrics,
    "depth metrics": depth_metrics,
    "pre- and post-processing": pipeline,
    "composition": composition,
    "training trimaps": trimaps,
}

OPERATORS: dict[str, Function] = ON_HOST | {
    "alpha + composition loss": matting_loss,
    "Laplacian pyramid loss (defined, not used in training)": laplacian,
}
