"""Logits of whole images, in one piece or from overlapping windows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_image, check_int, fail, jit, pair
from jaxup.ops.resize import resize

Network = Callable[[jax.Array], jax.Array]


def whole(fn: Network, x: jax.Array, *, cell: int | None = None) -> jax.Array:
    """Logits for every pixel of an image: those of a network, resized bilinearly to the size of the image.

    Args:
        fn: from an image [B, H, W, C] to logits [B, h, w, K].
        x: [B, H, W, C].
        cell: side in pixels of what one logit covers, where the last ones go beyond the image: they are enlarged by it
            and cut, not resized. None: the `cell` of fn, which the official `Segmenter` has; others are resized.

    Returns:
        [B, H, W, K].

    Raises:
        ValueError: x is not a floating [B, H, W, C], or the cells do not cover it.

    Example:
        >>> whole(lambda x: x[:, ::4, ::4], jnp.ones((1, 9, 7, 3))).shape
        (1, 9, 7, 3)

    Reference:
        Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015.
    """
    check_image("x", x)
    return _enlarged(fn(x), (x.shape[1], x.shape[2]), _cell(fn, cell))


def slide(fn: Network, x: jax.Array, *, crop: int | Pair, stride: int | Pair, cell: int | None = None) -> jax.Array:
    """Average the logits of overlapping windows, each resized bilinearly to its window.

        out(p) = sum over the windows W that hold p of resize(fn(x in W))(p) / their number

    Windows stand at multiples of the stride; the last ones are shifted back into the image. All have one size, the
    crop, or the image's where that is smaller, so that a network is compiled once, whatever the sizes of the images.
    Inside of `jax.jit` windows are a loop of the program (`lax.scan`); outside, a module is compiled as it is, and a
    function should be a jitted one.

    Args:
        fn: an NNX module, or a function, from [B, h, w, C] to logits [B, h', w', K].
        x: [B, H, W, C].
        crop: height and width of a window.
        stride: from one window to the next, not larger than the crop.
        cell: as for `whole`.

    Returns:
        [B, H, W, K], float32, or float64 if the logits are.

    Raises:
        ValueError: x is not a floating [B, H, W, C], or the stride is larger than the crop.

    Example:
        >>> slide(lambda x: x[:, ::4, ::4], jnp.ones((1, 20, 9, 3)), crop=8, stride=5).shape
        (1, 20, 9, 3)

    Reference:
        Zheng et al., Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective, CVPR 2021, section 4.1.
    """
    check_image("x", x)
    x = jnp.asarray(x)
    crop, stride = pair("crop", crop), pair("stride", stride)
    if stride[0] > crop[0] or stride[1] > crop[1]:
        fail("stride", f"at most the crop {crop}", stride)
    size = min(crop[0], x.shape[1]), min(crop[1], x.shape[2])
    rows, columns = (_starts(n, c, s) for n, c, s in zip(x.shape[1:3], size, stride, strict=True))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    cover = np.zeros(x.shape[1:3], np.float32)
    for row, column in corners:
        cover[row : row + size[0], column : column + size[1]] += 1
    total = (_scanned if isinstance(x, jax.core.Tracer) else _looped)(fn, x, corners, size, _cell(fn, cell))
    return total / cover.astype(total.dtype)[None, :, :, None]


def _cell(fn: Network, cell: int | None) -> int | None:
    return getattr(fn, "cell", None) if cell is None else check_int("cell", cell)


def _enlarged(logits: jax.Array, size: Pair, cell: int | None) -> jax.Array:
    if cell is None:
        return resize(logits, size=size, method="bilinear")
    covered = (cell * logits.shape[1], cell * logits.shape[2])
    if covered[0] < size[0] or covered[1] < size[1]:
        fail("cell", f"cells that cover an image of {size}", f"{cell}, which covers {covered}")
    return resize(logits, scale=cell, method="bilinear")[:, : size[0], : size[1]]


def _scanned(fn: Network, x: jax.Array, corners: np.ndarray, size: Pair, cell: int | None) -> jax.Array:
    """The sum of all logits; the program has the network once."""
    logits = jax.eval_shape(lambda x: fn(_cut(x, corners[0], size)), x)
    total = jnp.zeros((*x.shape[:3], logits.shape[3]), accum_dtype(logits))
    total, _ = jax.lax.scan(lambda t, at: (_add(t, fn(_cut(x, at, size)), at, size, cell), None), total, corners)
    return total


def _looped(fn: Network, x: jax.Array, corners: np.ndarray, size: Pair, cell: int | None) -> jax.Array:
    """The same, one window after the other: compiled programs know their size, and not where they are."""
    run = _compiled(fn) if isinstance(fn, nnx.Module) else fn
    logits = run(_cut(x, corners[0], size))
    total = _add(jnp.zeros((*x.shape[:3], logits.shape[3]), accum_dtype(logits)), logits, corners[0], size, cell)
    for corner in corners[1:]:
        total = _add(total, run(_cut(x, corner, size)), corner, size, cell)
    return total


def _starts(length: int, crop: int, stride: int) -> np.ndarray:
    """Where windows begin along an axis."""
    count = -(-(length - crop) // stride) + 1
    return np.minimum(np.arange(count) * stride, length - crop)


@jit(static_argnums=2)
def _cut(x: jax.Array, corner: jax.Array | np.ndarray, size: Pair) -> jax.Array:
    return jax.lax.dynamic_slice(x, (0, corner[0], corner[1], 0), (x.shape[0], *size, x.shape[3]))


@jit(static_argnums=(3, 4))
def _add(
    total: jax.Array, logits: jax.Array, corner: jax.Array | np.ndarray, size: Pair, cell: int | None
) -> jax.Array:
    """Logits of a window, enlarged to it, on top of what is there."""
    logits = _enlarged(logits, size, cell).astype(total.dtype)
    at = (0, corner[0], corner[1], 0)
    return jax.lax.dynamic_update_slice(total, jax.lax.dynamic_slice(total, at, logits.shape) + logits, at)


def _compiled(module: nnx.Module) -> Network:
    """A module as a compiled function, which modules of one structure share."""
    graph, state = nnx.split(module)
    return partial(_apply, graph, state)


@jit(static_argnums=0)
def _apply(graph: Any, state: Any, x: jax.Array) -> jax.Array:
    network: Network = nnx.merge(graph, state, copy=True)
    return network(x)
