"""Upsampling a depth map of any unit under an image of any size: holes, normalisation and tiles."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxup.cli.methods import Method
from jaxup.files import InputError, read_depth, require, white_level

Scale = tuple[float, float]  # vertical, horizontal
Show = Callable[[int, int], None]  # tiles done, tiles in all
Warn = Callable[[str], None]

# Windows begin at multiples of this many low-resolution pixels, so that networks find the cells that they would find
# in the whole image (FDKN has cells of 4 x 4 pixels of the guide).
_ALIGN = 4

# What lies beyond the other values by this factor is no depth; maps from 0.1 m to 1000 m have gaps of less.
_FAR = 1e5
# The limits of float16, uint16 and int16, which mark pixels without depth also where others come closer.
_CODES = (65504, 65535, 32767, 32768)
# A method may overshoot the numbers that a file stores at this part of all pixels, by this part of the span of depths;
# and everywhere by 1.5, which rounds to the number for pixels without depth, if this is beside those.
_PIXELS, _OVERSHOOT, _ROUNDS = 1 / 20, 1 / 4, 1.5
_ODD = 10  # a number that is alone beyond the others by this factor may be depth, and may be no depth: pointed out


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
    filled: np.ndarray = depth[rows, columns]
    return filled


def read_confidence(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """Read the confidence of each pixel of a depth map.

    Returns:
        float64 [h, w] in 0 .. 1: whole numbers up to 2 are levels of 1/2, as phones have them, other 8- or 16-bit
        numbers parts of 255 or 65535.

    Raises:
        InputError: a file of another size, or other numbers.
    """
    stored = read_depth(path)
    if stored.shape != size:
        (height, width), (rows, columns) = stored.shape, size
        raise InputError(f"{path}: expected {columns} x {rows} pixels as the depth map has, got {width} x {height}")
    with np.errstate(invalid="ignore"):  # NaN of the kind that signals is NaN
        values = stored.astype(np.float64)
    if stored.dtype.kind in "ui":
        values /= 2 if values.max() <= 2 else np.iinfo(stored.dtype).max if stored.dtype.itemsize <= 2 else 1
    if not (np.isfinite(values) & (values >= 0) & (values <= 1)).all():
        raise InputError(f"{path}: expected 0 to 1, whole numbers up to 2, or 8 or 16 bits, got {stored.dtype} beyond")
    return values


def far_values(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Where a map holds numbers of pixels without depth that are finite and huge, as renderers and cameras write them.

    Among the magnitudes of valid values, those above a gap of five decades, if those below are the most pixels or the
    most different numbers; and the limits of 16-bit types that are more than twice the others, if those are several
    numbers, or one of more pixels.

    Args:
        values: [h, w].
        valid: bool [h, w].

    Returns:
        bool [h, w].
    """
    found, counts = np.unique(np.abs(values[valid & (values != 0)]), return_counts=True)
    if not found.size:
        return np.zeros_like(valid)
    below, total = np.cumsum(counts), found.size
    most = (2 * below >= below[-1]) | (2 * np.arange(1, total + 1) >= total)
    gaps = np.flatnonzero((found[:-1] < found[1:] / _FAR) & most[:-1])
    near = slice(gaps[0] + 1 if gaps.size else total)
    limit, others = found[near][-1], ~np.isin(found[near], _CODES)
    if others.sum() > 1 or 2 * counts[near][others].sum() > counts[near].sum():
        limit = min(limit, 2 * found[near][others][-1])
    far: np.ndarray = valid & (np.abs(values) > limit)
    return far


def _point_out(values: np.ndarray, warn: Warn) -> None:
    """Warn of one number far beyond all others, such as 9999 in a map of metres, which `far_values` leaves as it is."""
    sizes = np.abs(values)
    others = sizes[sizes < sizes.max(initial=0)]
    if others.size and others.min() < others.max() < sizes.max() / _ODD:
        odd = values[sizes.argmax()]
        warn(
            f"{odd:.6g} is {sizes.max() / others.max():.0f} times the next number, {others.max():.6g}: "
            f"if it stands for pixels without depth, say --invalid {odd:.6g}"
        )


def find_scale(depth: np.ndarray, guide: np.ndarray) -> Scale:
    """What the guide is larger by, vertically and horizontally."""
    (height, width), (rows, columns) = depth.shape, guide.shape[:2]
    if rows < height or columns < width:
        raise InputError(f"the guide of {columns} x {rows} pixels is smaller than the depth map of {width} x {height}")
    return rows / height, columns / width


def upsample_depth(
    depth: np.ndarray,
    guide: np.ndarray,
    method: Method,
    *,
    invalid: float = 0.0,
    confidence: np.ndarray | None = None,
    fill: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
    tile: int = 512,
    show: Show | None = None,
    warn: Warn = lambda message: None,
) -> np.ndarray:
    """Upsample a depth map to the size of its guide.

    The method sees depth in 0 .. 1 between the least and the largest valid value, with holes filled by the nearest
    valid pixel. In the result, pixels whose source pixel is a hole have that pixel's own value again. `far_values` are
    holes like others, so that they spoil nothing around them, and are warned of.

    Args:
        depth: [h, w], numbers of any type.
        guide: uint8 or uint16 [H, W, 3], see `white_level`; H >= h and W >= w in any ratio.
        method: what upsamples.
        invalid: the value of pixels without depth, beside NaN and infinities; NaN if there is none.
        confidence: [h, w] in 0 .. 1, for solvers; 0 where what was measured does not count.
        fill: leave the method's values where there is no depth.
        limits: least and largest whole number that will be stored as depth. What a method overshoots them by becomes
            the nearest of the two, with a warning, if it is up to a quarter of the span of depths at up to a twentieth
            of the pixels, or up to 1.5.
        tile: largest side in pixels of the guide of what is computed at once; 0 is the whole image.
        show: called after each tile, or a solver's steps; compiled solvers that call it are not kept in JAX's cache.
        warn: called with a line about what should be looked at.

    Returns:
        float64 [H, W], in the unit of `depth`.

    Raises:
        InputError: sizes that do not fit, no valid pixel, or a result that is not finite.
    """
    find_scale(depth, guide)
    with np.errstate(invalid="ignore"):  # NaN of the kind that signals is NaN
        values = depth.astype(np.float64)
    valid = np.isfinite(values) & (values != invalid)
    if not valid.any():
        raise InputError("the depth map has no valid pixel")
    far = far_values(values, valid)
    valid &= ~far
    low, high = values[valid].min(), values[valid].max()
    if far.any():
        least, most = values[far].min(), values[far].max()
        huge = f"{least:.6g}" if least == most else f"{least:.6g} to {most:.6g}"
        warn(
            f"{far.sum()} pixels of {huge} are far from the others, {low:.6g} to {high:.6g}: "
            f"taken as pixels without depth, as --invalid would"
        )
    _point_out(values[valid & (values != 0)], warn)
    span = high - low if high - low > 1e-6 * max(abs(low), abs(high)) else 1.0
    target = ((fill_holes(values, valid) - low) / span).astype(np.float32)
    if method.solver:
        trust = valid if confidence is None else valid * confidence
        if not trust.any():
            raise InputError("no valid pixel of the depth map has a confidence above 0")
        weight = jnp.asarray(trust, jnp.float32)[None, ..., None]
        method = method._replace(run=partial(method.run, confidence=weight, show=show, warn=warn))
    result: np.ndarray = _in_tiles(target, guide, method, tile, show or (lambda done, total: None)) * span + low
    if not np.isfinite(result).all():
        raise InputError("the method gave NaN or infinity")
    rows, columns = (_sources(low, high) for low, high in zip(depth.shape, guide.shape, strict=False))
    measured, source = (x[rows[:, None], columns] for x in (valid, values))
    kept = measured | fill
    if limits[0] <= low and high <= limits[1]:
        result[kept] = _within(result[kept], limits, _OVERSHOOT * span, warn)
    result[~kept] = source[~kept]
    return result


def _within(values: np.ndarray, limits: tuple[float, float], most: float, warn: Warn) -> np.ndarray:
    """Values within the limits, where they are beyond them a little or at few pixels; else as they are."""
    inside: np.ndarray = np.clip(values, *limits)
    excess = np.abs(values - inside)
    beyond = excess >= 0.5  # others are rounded to the nearest of the two
    few = beyond.mean() <= _PIXELS
    if not beyond.any() or excess.max() > max(most if few else 0, _ROUNDS):
        return values
    ends = " to ".join(f"{limit:.0f}" for limit in limits)
    least, largest = values.min(), values.max()
    warn(f"the method overshoots, {least:.6g} to {largest:.6g}: {beyond.sum()} pixels become the nearest of {ends}")
    return inside


def _sources(low: int, high: int) -> np.ndarray:
    """The low-resolution pixel under the centre of each pixel of an axis."""
    return (2 * np.arange(high) + 1) * low // (2 * high)


def _in_tiles(target: np.ndarray, guide: np.ndarray, method: Method, tile: int, show: Show) -> np.ndarray:
    out, white = np.empty(guide.shape[:2], np.float64), np.float32(white_level(guide))
    sizes = list(zip(target.shape, guide.shape[:2], strict=True))
    if tile and method.margin:
        rows, columns = (list(_tiles(low, high, tile, method.margin(high / low))) for low, high in sizes)
    else:
        rows, columns = ([Window(0, low, 0, low)] for low, _ in sizes)
    for index, (y, x) in enumerate((y, x) for y in rows for x in columns):
        (top, bottom, *inner_y), (left, right, *inner_x) = (
            [end * high // low for end in window] for window, (low, high) in zip((y, x), sizes, strict=True)
        )
        part = method.run(
            jnp.asarray(target[y.start : y.stop, x.start : x.stop])[None, ..., None],
            jnp.asarray(guide[top:bottom, left:right] / white)[None],
        )
        kept_y, kept_x = slice(*inner_y), slice(*inner_x)
        whole = np.asarray(part)[0, ..., 0]
        out[kept_y, kept_x] = whole[kept_y.start - top : kept_y.stop - top, kept_x.start - left : kept_x.stop - left]
        show(index + 1, len(rows) * len(columns))
    return out


def _tiles(low: int, high: int, tile: int, margin: int) -> Iterator[Window]:
    """Windows that begin where a pixel of the guide does, too: at 7.5 every second one, at 240 / 7 every seventh."""
    period = low // math.gcd(low, high)
    return windows(low, tile * low // high, margin, align=_ALIGN if period == 1 else period)


def windows(length: int, side: int, margin: int, align: int = _ALIGN) -> Iterator[Window]:
    """Cover an axis by parts of `side`, each seen with `margin` around it: windows of one size, for one compilation."""
    side, margin = max(side // align, 1) * align, -(-margin // align) * align
    size = side + 2 * margin
    if length <= size:
        yield Window(0, length, 0, length)
        return
    for first in range(0, length, side):
        start, last = max(0, first - margin), min(first + side, length)
        stop = start + size
        if stop >= length:
            start, stop = (length - size) // align * align, length
        yield Window(start, stop, first, last)
