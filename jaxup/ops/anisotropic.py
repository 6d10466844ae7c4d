"""Joint bilateral upsampling with a Gaussian of its own, turned and stretched, in each low-resolution cell."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_choice, check_image, check_int, check_shape, fail
from jaxup.ops.resize import resize, take_lines
from jaxup.ops.rows import by_rows
from jaxup.ops.softmax import softmax
from jaxup.ops.windows import pad_window

CENTRES = ("nearest", "floor")
_LEAST = 1e-6  # of a sigma
_SMALL = 1e-8  # beside a variance


@by_rows("x", "guide", reach=lambda **_: None)
def anisotropic_bilateral_upsample(
    x: jax.Array,
    guide: jax.Array,
    sigma_x: jax.Array,
    sigma_y: jax.Array,
    theta: jax.Array,
    sigma_range: jax.Array,
    *,
    scale: float | tuple[float, float] | None = None,
    radius: int = 8,
    reach: float = 2.0,
    centre: str = "nearest",
) -> jax.Array:
    r"""Average of the cells around each pixel, each of which says by its own Gaussian how much it counts.

        out[p] = sum_u softmax_u(-(x'/sigma_x[u])^2 / 2 - (y'/sigma_y[u])^2 / 2 - |(g[p] - l[u])/sigma_r[u]|^2 / 2) x[u]

    with (x', y') the way from the centre of cell u to pixel p, turned by theta[u], and l the guide, interpolated
    bilinearly on the cells' grid. The cells u are those at offsets of up to R from the pixel's own, R = reach
    max(sigma_x, sigma_y), enlarged bilinearly, rounded up, and 1 to `radius`; beyond the border those of the border
    count again. Cells are processed row by row, and anew in the backward pass: scratch memory is that of one row. R and
    the choice of the cells have no gradient.

    Args:
        x: [B, h, w, C].
        guide: [B, H, W, Cg], in 0 .. 1.
        sigma_x: [B, h, w, 1], in pixels of the guide.
        sigma_y: the same.
        theta: the same, in radians.
        sigma_range: the same, in the guide's unit.
        scale: pixels of a cell, a number or a pair (vertical, horizontal); None: the ratio of the sizes.
        radius: the largest R, in cells.
        reach: R in sigmas; sigmas are in pixels, R is in cells, as in the official code.
        centre: which cell is the pixel's own, the "nearest", or that to the upper left of it ("floor").

    Returns:
        [B, H, W, C] in the dtype of x; weights and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, a scale or reach that is not above 0, an unknown centre.

    Example:
        >>> x, guide, one = jnp.eye(3)[None, ..., None], jnp.ones((1, 6, 6, 3)), jnp.ones((1, 3, 3, 1))
        >>> anisotropic_bilateral_upsample(x, guide, one, one, 0 * one, one, radius=1).shape
        (1, 6, 6, 1)

    Reference:
        Seo et al., Upsample Anything: A Simple and Hard to Beat Baseline for Feature Upsampling, 2025.
    """
    for name, y in (("x", x), ("guide", guide)):
        check_image(name, y)
    check_shape("guide", guide, (x.shape[0], None, None, None))
    maps = {"sigma_x": sigma_x, "sigma_y": sigma_y, "theta": theta, "sigma_range": sigma_range}
    for name, y in maps.items():
        check_image(name, y)
        check_shape(name, y, (*x.shape[:3], 1))
    check_choice("centre", centre, CENTRES)
    ratios = (guide.shape[1] / x.shape[1], guide.shape[2] / x.shape[2]) if scale is None else scale
    steps = (ratios, ratios) if isinstance(ratios, int | float) else tuple(ratios)
    if not (len(steps) == 2 and min(steps) > 0 and reach > 0):
        fail("scale, reach", "numbers above 0", (scale, reach))
    options = (steps, check_int("radius", radius), float(reach), centre)
    out: jax.Array = _upsample(x, guide, sigma_x, sigma_y, theta, sigma_range, options=options)
    return out


@partial(jax.jit, static_argnames="options")
def _upsample(x: jax.Array, guide: jax.Array, *maps: jax.Array, options: tuple[Any, ...]) -> jax.Array:
    steps, radius, reach, centre = options
    dtype, (height, width), size = accum_dtype(x, guide, *maps), x.shape[1:3], guide.shape[1:3]
    guide = guide.astype(dtype)
    sigma_x, sigma_y, theta, sigma_range = (y.astype(dtype) for y in maps)
    parts = [_Axis(*args, centre, radius) for args in zip((height, width), size, steps, strict=True)]
    widest = resize(jax.lax.stop_gradient(jnp.maximum(sigma_x, sigma_y)), size=size, method="bilinear")
    reached = jnp.clip(jnp.ceil(reach * widest), 1, radius)
    inverse = [1 / (2 * jnp.maximum(sigma, _LEAST) ** 2 + _SMALL) for sigma in (sigma_x, sigma_y, sigma_range)]
    low = resize(guide, size=(height, width), method="bilinear")
    kernels = [jnp.cos(theta), jnp.sin(theta), *inverse, low]
    cells = pad_window(jnp.concatenate([*kernels, x.astype(dtype)], axis=-1), (radius, radius), "edge")
    pixels = _blocks(jnp.concatenate([reached, guide], axis=-1), parts)
    run = jax.checkpoint(partial(_row, cells, guide.shape[3], parts), prevent_cse=False)
    rows = jax.lax.map(lambda args: run(*args), (jnp.arange(height), pixels, jnp.asarray(parts[0].way, dtype)))
    return _image(rows, parts).astype(x.dtype)


class _Axis:
    """Which pixels belong to the cells of one axis, and their ways from the cells around."""

    def __init__(self, low: int, high: int, step: float, centre: str, radius: int):
        place = (np.arange(high) + 0.5) / step - 0.5
        own = np.clip(np.rint(place) if centre == "nearest" else np.floor(place), 0, low - 1).astype(int)
        first = np.searchsorted(own, np.arange(low))
        self.cells, self.most = low, int(np.bincount(own).max())
        self.pixels = np.minimum(first[:, None] + np.arange(self.most), high - 1)  # [cells, most]
        self.back = own * self.most + np.arange(high) - first[own]  # where each pixel is among these
        self.regular = np.array_equal(self.back, np.arange(self.pixels.size))
        around = np.clip(np.arange(low)[:, None] + np.arange(-radius, radius + 1), 0, low - 1)
        self.way = self.pixels[:, :, None] - ((around + 0.5) * step - 0.5)[:, None]  # [cells, most, 2 radius + 1]
        self.offsets = np.arange(-radius, radius + 1)


def _blocks(x: jax.Array, parts: list[_Axis]) -> jax.Array:
    """The pixels of each cell, [h, B, my, w, mx, C]."""
    for axis, part in enumerate(parts, 1):
        x = x if part.regular else take_lines(x, part.pixels.ravel(), axis)
    rows, cols = parts
    x = x.reshape(x.shape[0], rows.cells, rows.most, cols.cells, cols.most, x.shape[3])
    return jnp.moveaxis(x, 1, 0)


def _image(x: jax.Array, parts: list[_Axis]) -> jax.Array:
    """The inverse of `_blocks`."""
    x = jnp.moveaxis(x, 0, 1)
    x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], -1, x.shape[5])
    for axis, part in enumerate(parts, 1):
        x = x if part.regular else take_lines(x, part.back, axis)
    return x


def _row(
    cells: jax.Array, colours: int, parts: list[_Axis], row: jax.Array, pixels: jax.Array, down: jax.Array
) -> jax.Array:
    """The pixels [B, my, w, mx, C] of one row of cells; `down` [my, K] are the ways from the rows around."""
    (batch, tall, wide, wide_pixels, _), size = pixels.shape, len(parts[1].offsets)
    around = jax.lax.dynamic_slice_in_dim(cells, row, size, axis=1)
    columns = np.arange(wide)[:, None] + np.arange(size)
    around = jnp.take(around, columns.ravel(), axis=2).reshape(batch, size, wide, size, -1)
    around = jnp.moveaxis(around, 1, 2)  # [B, w, K, K, ...]
    kernels, values = around[..., : 5 + colours], around[..., 5 + colours :]
    cos, sin, wx, wy, wr = (kernels[:, None, :, None, ..., i] for i in range(5))  # [B, 1, w, 1, K, K]
    dy = down[None, :, None, None, :, None]
    dx = jnp.asarray(parts[1].way, cells.dtype)[None, None, :, :, None, :]
    scores = -((dx * cos + dy * sin) ** 2) * wx - (dy * cos - dx * sin) ** 2 * wy
    for i in range(colours):
        difference = pixels[..., 1 + i, None, None] - kernels[:, None, :, None, ..., 5 + i]
        scores = scores - difference**2 * wr
    offsets = parts[1].offsets
    near = jnp.asarray(offsets[:, None] ** 2 + offsets**2, cells.dtype)[(None,) * 4] <= pixels[..., 0, None, None] ** 2
    weights = softmax(jnp.where(near, scores, -jnp.inf), (-2, -1))
    weights = weights.reshape(batch, tall, wide, wide_pixels, size**2)
    values = values.reshape(batch, wide, size**2, -1)
    return jnp.einsum("btwpn,bwnc->btwpc", weights, values, precision=jax.lax.Precision.HIGHEST)
