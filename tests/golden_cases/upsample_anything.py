"""The fitted bilateral filter: its kernel, its criterion, and the fit, in float64, because it is chaotic."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxup import ops
from jaxup.solvers.upsample_anything import _apply, _fit, reduced
from tests.golden_cases.converted import Function

NAMES = ("sx_raw", "sy_raw", "th_raw", "sr_raw")


def _options(config):
    return dict(scale=config["scale"], radius=config["R_max"])


def kernel(inputs, params, config):
    x, guide, *maps = (inputs[name] for name in ("feat", "guide", "sx", "sy", "th", "sr"))
    options = _options(config) | {"reach": config["alpha_dyn"], "centre": config["center_mode"]}
    return ops.anisotropic_bilateral_upsample(x, guide, *maps, **options)


def criterion(inputs, params, config):
    low, image = inputs["lr"], inputs["hr"]
    raw = tuple(jnp.moveaxis(params[name], 1, 3).astype(image.dtype) for name in NAMES)
    found = _apply(raw, low, image, **_options(config))
    return {"pred": found, "loss": jnp.abs(found - image).mean()[None]}


def fit(inputs, params, config):
    """Outputs, and the gradients of the first step."""
    with jax.enable_x64(True):
        guide, x = jnp.asarray(inputs["image8"] / 255.0), jnp.asarray(np.float64(inputs["feat"]))
        size, scale = x.shape[1:3], (float(config["scale"]),) * 2
        start = (np.log(config["init_sigma"]), np.log(config["init_sigma_r"]))
        _, history, loss = _fit(guide, (size, scale, config["steps"], start, config["R_max"]))
        low = reduced(guide, size, scale)
        at_first = tuple(jnp.full((1, *size, 1), value) for value in (start[0], start[0], 0.0, start[1]))
        error = lambda raw: jnp.abs(_apply(raw, low, guide, **_options(config)) - guide).mean()  # noqa: E731
        gradients = jax.jit(jax.grad(error))(at_first)
        outputs = {"lr_rgb": low, "loss": loss, "initial_features": _apply(at_first, x, guide, **_options(config))}
        for n in range(1, config["steps"] + 1):
            raw = tuple(h[n - 1] for h in history)
            outputs |= {f"step{n}_{name}": r[0, ..., 0] for name, r in zip(NAMES, raw, strict=True)}
            if n in (1, 2, 3, 4, 5, 10, 20, config["steps"]):
                outputs[f"step{n}_features"] = _apply(raw, x, guide, **_options(config))
        outputs["features"] = outputs[f"step{config['steps']}_features"]
        named = {f"param/{name}": jnp.moveaxis(g, 3, 1) for name, g in zip(NAMES, gradients, strict=True)}
        return jax.device_get((outputs, named))


OPERATORS: dict[str, Function] = {
    "Upsample Anything kernel": kernel,
    "Upsample Anything loss": criterion,
    "Upsample Anything fit": fit,
}
ON_HOST = {"Upsample Anything fit"}
