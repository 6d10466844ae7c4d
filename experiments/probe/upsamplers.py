"""How UPLiFT, NAF and AnyUp are trained: what each makes of a batch of photographs, and its loss.

Nothing but photographs is needed: features of the whole image, or of parts of it, are what those of its reduction are
to become. Batches have "image" uint8 [B, S, S, 3], for AnyUp also "corners" [B, 4, 2], in cells, and "disturbed" uint8
[B, S / 2, S / 2, 3], the image with other colours and noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.probe.networks import Encoder
from jaxup.cli.feature_networks import normalised
from jaxup.interop.load import IMAGENET
from jaxup.nn import NAF, AnyUp, UPLiFT
from jaxup.ops import resize

Batch = dict[str, jax.Array]
Loss = Callable[[Any, Batch], tuple[jax.Array, dict[str, jax.Array]]]
_GUIDE = 224  # the most pixels of a side of NAF's guide
_REGULAR = 0.1  # the weight of each of AnyUp's consistencies
CROPS = 4
"""Parts of an image that AnyUp's output is compared with."""


class Fit(NamedTuple):
    """How an upsampler is trained.

    Attributes:
        module: its class.
        options: of its constructor, by the encoder and whether it is to be small.
        prepare: what the frozen encoder makes of a batch; not differentiated.
        loss: of that.
    """

    module: Callable[..., Any]
    options: Callable[[Encoder, bool], dict[str, Any]]
    prepare: Callable[[Encoder, Batch], Batch]
    loss: Loss


def _reduced(image: jax.Array, side: int) -> jax.Array:
    return resize(image, size=side, method="bilinear", antialias=True)


def _features(encoder: Encoder, image: jax.Array) -> jax.Array:
    return encoder.encode(image, encoder.colours)[0]


def pyramid(encoder: Encoder, batch: Batch) -> Batch:
    """UPLiFT: features of the image and of its halves, as many as the patch allows, at most four."""
    image = batch["image"].astype(jnp.float32) / 255
    found, side = {"image": normalised(image, encoder.colours)}, image.shape[1]
    while len(found) <= 4 and side % encoder.patch_size == 0:
        found[f"level{len(found) - 1}"] = _features(encoder, _reduced(image, side))
        side = side // 2 if side % 2 == 0 else 1
    return found


def uplift_loss(model: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """From every level up to the first, each step against the features of its size: mean squared errors, added."""
    levels = [batch[f"level{i}"] for i in range(len(batch) - 1)]
    errors = []
    for start in range(1, len(levels)):
        steps = model.doublings(levels[start], batch["image"], start)
        errors += [jnp.mean((y - levels[start - 1 - i]) ** 2) for i, y in enumerate(steps)]
    return sum(errors[1:], errors[0]), {}


def halves(encoder: Encoder, batch: Batch) -> Batch:
    """NAF: features of the image and of its half, and the guide, at most four times as large as the features."""
    image, patch = batch["image"].astype(jnp.float32) / 255, encoder.patch_size
    target = _features(encoder, image)
    guide = _reduced(image, min(_GUIDE, 4 * target.shape[1], image.shape[1]))
    half = _features(encoder, _reduced(image, max(1, image.shape[1] // (2 * patch)) * patch))
    return {"features": half, "target": target, "guide": normalised(guide, IMAGENET)}


def naf_loss(model: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error."""
    target = batch["target"]
    found = model(batch["features"], batch["guide"], size=target.shape[1:3])
    return jnp.mean((found - target) ** 2), {}


def crops(encoder: Encoder, batch: Batch) -> Batch:
    """AnyUp: features of the half of the image and of parts of it at full size, and the guide, plain and disturbed."""
    image, patch = batch["image"].astype(jnp.float32) / 255, encoder.patch_size
    small = batch["disturbed"].shape[1]
    guide = _reduced(image, small)
    parts = _cut(image, batch["corners"] * patch, small)
    target = _features(encoder, parts.reshape(-1, small, small, 3))
    return {
        "features": _features(encoder, guide),
        "target": target.reshape(*parts.shape[:2], *target.shape[1:]),
        "places": batch["corners"],
        "guide": normalised(guide, IMAGENET),
        "disturbed": normalised(batch["disturbed"].astype(jnp.float32) / 255, IMAGENET),
    }


def _cut(x: jax.Array, corners: jax.Array, side: int) -> jax.Array:
    """Squares of maps [B, H, W, C] at corners [B, n, 2]: [B, n, side, side, C]."""

    def one(x: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(x, (corner[0], corner[1], 0), (side, side, x.shape[2]))

    return jax.vmap(jax.vmap(one, (None, 0)))(x, corners)


def anyup_loss(model: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`cosine_mse` of the parts; and a tenth of it of what two guides give, and of the output reduced and the input."""
    x, guide, target = batch["features"], batch["guide"], batch["target"]
    fine = model(x, guide, size=2 * x.shape[1])
    value = cosine_mse(_cut(fine, batch["places"], target.shape[2]), target)
    size = guide.shape[1:3]
    same = cosine_mse(model(x, batch["disturbed"], size=size), jax.lax.stop_gradient(model(x, guide, size=size)))
    back = cosine_mse(resize(fine, size=x.shape[1:3], method="area"), x)
    return value + _REGULAR * (same + back), {"parts": value, "guides": same, "input": back}


def cosine_mse(x: jax.Array, target: jax.Array) -> jax.Array:
    """One less the cosine, and the squared error where the target spans 0 to 1, both means over the pixels.

    mean(1 - x t / (|x| |t|)) + mean(((x - t) / (max t - min t + 1e-6))^2)
    """
    lengths = [jnp.sqrt(jnp.sum(y * y, axis=-1) + 1e-16) for y in (x, target)]
    cosine = jnp.sum(x * target, axis=-1) / (lengths[0] * lengths[1])
    span = jnp.max(target, axis=-1, keepdims=True) - jnp.min(target, axis=-1, keepdims=True) + 1e-6
    return jnp.mean(1 - cosine) + jnp.mean(((x - target) / span) ** 2)


FITS = {
    "uplift": Fit(
        UPLiFT, lambda e, small: {"in_features": e.channels, "patch_size": e.patch_size}, pyramid, uplift_loss
    ),
    "naf": Fit(NAF, lambda e, small: {"features": 64, "kernel_size": 3} if small else {}, halves, naf_loss),
    "anyup": Fit(AnyUp, lambda e, small: {"qk_features": 32} if small else {}, crops, anyup_loss),
}
