"""Upsampling a depth map of any unit under an image of any size: holes, normalisation and tiles."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxup.cli.methods import Method
from jaxup.files import InputError, require

Show = Callable[[int, int], None]  # tiles done, tiles in all

# Windows begin at multiples of this many low-resolution pixels, so that networks find the cells that they would find
# in the whole image (FDKN has cells of 4 x 4 pixels of the guide).
_ALIGN = 4


class Window(NamedTuple):
    """A range of low-resolution pixels that a method sees, and the part of it that is kept."""

    start: int
    stop: int
    first: int
    last: int


def fill_holes(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Give each invalid pixel of `depth` [H, W] the value of the valid pixel nearest to it."""
    if valid.all():
        return depth
    edt = require("scipy.ndimage").distance_transform_edt
    rows, columns = edt(~valid, return_distances=False, return_indices=True)
    return depth[rows, columns]


def find_scale(depth: np.ndarray, guide: np.ndarray) -> int:
    """The integer that the guide is larger by."""
    (height, width), (rows, columns) = depth.shape, guide.shape[:2]
    scale = rows // height
    if scale < 1 or (rows, columns) != (scale * height, scale * width):
        raise InputError(
            f"the guide of {columns} x {rows} pixels is no whole number of times as large as the depth map of "
            f"{width} x {height}"
        )
    return scale


def upsample_depth(
    depth: np.ndarray,
    guide: np.ndarray,
    method: Method,
    *,
    invalid: float = 0.0,
    tile: int = 512,
    show: Show = lambda done, total: None,
) -> np.ndarray:
    """Upsample a depth map to the size of its guide.

    The method sees depth in 0 .. 1 between the least and the largest valid value, with holes filled by the nearest
    valid pixel. In the result, pixels whose source pixel is a hole have that pixel's own value again.

    Args:
        depth: [h, w], numbers of any type.
        guide: uint8 [s*h, s*w, 3].
        method: what upsamples.
        invalid: the value of pixels without depth, beside NaN and infinities; NaN if there is none.
        tile: largest side in pixels of the guide of what is computed at once; 0 is the whole image.
        show: called after each tile.

    Returns:
        float64 [s*h, s*w], in the unit of `depth`.

    Raises:
        InputError: sizes that do not fit, no valid pixel, or a result that is not finite.
    """
    scale, values = find_scale(depth, guide), depth.astype(np.float64)
    valid = np.isfinite(values) & (values != invalid)
    if not valid.any():
        raise InputError("the depth map has no valid pixel")
    low, high = values[valid].min(), values[valid].max()
    span = high - low if high - low > 1e-6 * max(abs(low), abs(high)) else 1.0
    target = ((fill_holes(values, valid) - low) / span).astype(np.float32)
    result = _in_tiles(target, guide, method, scale, tile, show) * span + low
    if not np.isfinite(result).all():
        raise InputError("the method gave NaN or infinity")
    source, measured = (x.repeat(scale, axis=0).repeat(scale, axis=1) for x in (values, valid))
    return np.where(measured, result, source)


def _in_tiles(target: np.ndarray, guide: np.ndarray, method: Method, scale: int, tile: int, show: Show) -> np.ndarray:
    out = np.empty(guide.shape[:2], np.float64)
    if tile and method.margin:
        side, margin = tile // scale, method.margin(scale)
        rows, columns = (list(windows(length, side, margin)) for length in target.shape)
    else:
        rows, columns = ([Window(0, length, 0, length)] for length in target.shape)
    for index, (y, x) in enumerate((y, x) for y in rows for x in columns):
        low = target[y.start : y.stop, x.start : x.stop, None]
        fine = guide[scale * y.start : scale * y.stop, scale * x.start : scale * x.stop]
        part = method.run(jnp.asarray(low)[None], jnp.asarray(fine / np.float32(255))[None])
        top, left = scale * (y.first - y.start), scale * (x.first - x.start)
        kept = np.asarray(part)[0, top:, left:, 0][: scale * (y.last - y.first), : scale * (x.last - x.first)]
        out[scale * y.first : scale * y.last, scale * x.first : scale * x.last] = kept
        show(index + 1, len(rows) * len(columns))
    return out


def windows(length: int, side: int, margin: int) -> Iterator[Window]:
    """Cover an axis by parts of `side`, each seen with `margin` around it: windows of one size, for one compilation."""
    side, margin = max(side // _ALIGN, 1) * _ALIGN, -(-margin // _ALIGN) * _ALIGN
    size = side + 2 * margin
    if length <= size:
        yield Window(0, length, 0, length)
        return
    for first in range(0, length, side):
        start, last = max(0, first - margin), min(first + side, length)
        stop = start + size
        if stop >= length:
            start, stop = (length - size) // _ALIGN * _ALIGN, length
        yield Window(start, stop, first, last)
