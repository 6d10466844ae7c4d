"""Classical solvers, in float64, as the authors' codes are: their systems are too ill-conditioned for less."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup import solvers
from jaxup.solvers.tgv import edge_tensor
from tests.golden_cases.converted import Function

EXACT: dict[str, Any] = dict(form="official", tolerance=1e-13, iterations=50_000)


def in_double(function: Function) -> Function:
    """The function on float64 images [1, H, W, C], its results as they are stored, [H, W] or [H, W, C]."""

    def run(inputs: Any, params: Any, config: Any) -> dict[str, np.ndarray]:
        with jax.enable_x64(True):
            images = {k: jnp.asarray(np.float64(x).reshape(1, *x.shape[:2], -1)) for k, x in inputs.items()}
            found = function(images, params, config)
            return {k: np.asarray(x[0, ..., 0] if x.shape[3] == 1 else x[0]) for k, x in found.items()}

    return run


def mrf(inputs, params, config):
    options = EXACT | {"smoothness": 1 / config["sigma_d"] ** 2, "sigma": config["sigma_s"]}
    return {"u": solvers.mrf_interpolate(inputs["depth"], inputs["image"] / 255, **options)}


def sd_filter(inputs, params, config):
    """The static weights alone are those of one step with 1 for each dynamic one, which is 1.00001 there."""
    f, g = inputs["f"], inputs["g"]
    trust = (f[..., :1] > 0).astype(f.dtype) if config["sparse"] else None
    options = EXACT | {name: config[name] for name in ("mu", "nu", "neighbours")}
    u = solvers.sd_filter(f, g, confidence=trust, smoothness=config["lambda"], steps=config["steps"], **options)
    return {"u": u, "w": solvers.sd_filter(f, g, smoothness=config["lambda"] / 1.00001, steps=1, **options)}


def tgv(inputs, params, config):
    """It counts from 0 to `maxits`, compares sums over the image, and does not look at its argument of the tensor."""
    d, grey, weight = (inputs[name] for name in ("d", "gray", "w"))
    options = dict(alpha=tuple(config["tgv_alpha"]), iterations=config["maxits"] + 1, check=config["check"])
    tolerance = config["tol"] / d[0, ..., 0].size
    u = solvers.tgv_interpolate(d, grey, confidence=weight, weight=1.0, form="official", tolerance=tolerance, **options)
    tensor = edge_tensor(jnp.moveaxis(grey, 3, 1), jnp.asarray(10.0), jnp.asarray(0.75), "official")
    return {"u": u} | {name: t[:, 0, ..., None] for name, t in zip("abc", tensor, strict=True)}


OPERATORS: dict[str, Function] = {
    "MRF (Diebel and Thrun), public third-party implementation": in_double(mrf),
    "sd_filter": in_double(sd_filter),
    "tgv_depth": in_double(tgv),
}
