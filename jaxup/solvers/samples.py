"""Where measured depth lies in the image: low-resolution pixels, sparse samples, and a first guess between them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Ratio, accum_dtype, check_image, check_shape
from jaxup.ops.filters import check_guide, check_larger_guide
from jaxup.ops.resize import resize

Maps = tuple[jax.Array, jax.Array, jax.Array]  # data, guide, confidence


def prepare(x: jax.Array, guide: jax.Array, confidence: jax.Array | None) -> Maps:
    """The checked inputs of a solver in the type of its sums, as [B, C, H, W]; data without confidence is zero."""
    check_image("x", x)
    check_guide(guide, x.shape[:3])
    trust = trusted(x, confidence)
    dtype = accum_dtype(x, guide, trust)
    data = jnp.where(trust > 0, x, 0)
    first, second, third = (jnp.moveaxis(y.astype(dtype), 3, 1) for y in (data, guide, trust))
    return first, second, third


def trusted(x: jax.Array, confidence: jax.Array | None) -> jax.Array:
    """A checked confidence, 1 everywhere if there is none."""
    if confidence is None:
        return jnp.ones_like(x[..., :1])
    check_image("confidence", confidence)
    check_shape("confidence", confidence, (*x.shape[:3], 1))
    return confidence


def upsample(
    solver: Callable[..., Any],
    x: jax.Array,
    guide: jax.Array,
    scale: Ratio | None,
    confidence: jax.Array | None,
    options: dict[str, Any],
) -> Any:
    """A solver of sparse data on the low-resolution pixels, each at the centre of its block."""
    check_image("x", x)
    check_larger_guide(guide, x, scale)
    data, weight = place(x, trusted(x, confidence), guide.shape[1:3])
    return solver(data, guide, confidence=weight, **options)


def place(x: jax.Array, confidence: jax.Array, size: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Low-resolution pixels as samples of the image: data [B, H, W, C] and their confidence [B, H, W, 1].

    The confidence of a pixel is divided among the four pixels around the centre of its block by bilinear weights: one
    pixel where a ratio is odd, two of one half where it is even. Where several meet, data is their weighted mean.
    """
    if x.shape[1:3] == size:
        return x, confidence
    dtype = accum_dtype(x, confidence)
    weight = confidence.astype(dtype)
    pair = jnp.concatenate([jnp.where(weight > 0, x.astype(dtype), 0) * weight, weight], axis=3)
    total = jnp.zeros((x.shape[0], *size, pair.shape[3]), dtype)
    rows, columns = (_around_centres(*lengths) for lengths in zip(x.shape[1:3], size, strict=True))
    for row, share_y in rows:
        for column, share_x in columns:
            share = jnp.asarray(np.outer(share_y, share_x)[None, :, :, None], dtype)
            total = total.at[:, row[:, None], column].add(share * pair)
    weight = total[..., -1:]
    return (total[..., :-1] / jnp.where(weight > 0, weight, 1)).astype(x.dtype), weight


def _around_centres(low: int, high: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every cell of an axis, the pixel at or before its centre and the next one, with their shares."""
    twice = (2 * np.arange(low) + 1) * high - low  # 2 low times the position of the centre
    before, share = twice // (2 * low), twice % (2 * low) / (2 * low)
    taps = [(before, 1 - share), (np.minimum(before + 1, high - 1), share)]
    return [tap for tap in taps if tap[1].any()]


def fill(data: jax.Array, weight: jax.Array) -> jax.Array:
    """A smooth first guess of [B, C, H, W]: means of the data over blocks of 2, 4, 8, ..., each where finer ones lack.

    Where there is no data at all it is zero.
    """
    size = data.shape[2:]
    if max(size) == 1:
        return jnp.where(weight > 0, data, 0)
    pair = jnp.concatenate([weight * data, weight], axis=1)
    pair = jnp.pad(pair, ((0, 0), (0, 0), (0, size[0] % 2), (0, size[1] % 2)))
    rows = pair[:, :, ::2] + pair[:, :, 1::2]
    sums = rows[..., ::2] + rows[..., 1::2]
    total = sums[:, -1:]
    coarse = fill(sums[:, :-1] / jnp.where(total > 0, total, 1), total)
    fine = (2 * coarse.shape[2], 2 * coarse.shape[3])
    between = jnp.moveaxis(resize(jnp.moveaxis(coarse, 1, 3), size=fine, method="bilinear"), 3, 1)
    return jnp.where(weight > 0, data, between[..., : size[0], : size[1]])


def fill_images(x: jax.Array, confidence: jax.Array) -> jax.Array:
    """The same for images [B, H, W, C], in the dtype of x."""
    dtype = accum_dtype(x, confidence)
    weight = jnp.moveaxis(confidence.astype(dtype), 3, 1)
    data = jnp.where(weight > 0, jnp.moveaxis(x.astype(dtype), 3, 1), 0)
    return jnp.moveaxis(fill(data, weight), 1, 3).astype(x.dtype)
