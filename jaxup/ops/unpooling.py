"""Max pooling with indices, and unpooling: the hard form of pooling and upsampling with index maps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, check_image, check_shape, fail, jit, pair
from jaxup.ops.index import check_regions
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import merge_phases, split_phases


class MaxPooled(NamedTuple):
    """Maxima [B, h, w, C] and where they were: flat positions row * W + column of the plane, int32 [B, h, w, C]."""

    values: jax.Array
    indices: jax.Array


@by_rows("x", reach=lambda **_: 0)
def max_index(x: jax.Array, *, scale: int | Pair = 2) -> jax.Array:
    """The index map of max pooling: 1 at the first maximum, row by row, of each region of sy x sx pixels, else 0.

    Of one channel that holds the largest value of all, `max_index(jnp.max(x, axis=-1, keepdims=True))`, it is the
    *holistic max index* (HMI). It is constant almost everywhere: its gradient is zero. A NaN counts as largest.

    Args:
        x: HR map [B, sy*h, sx*w, C].
        scale: s, an integer >= 1 or a pair (vertical, horizontal).

    Returns:
        Index map [B, sy*h, sx*w, C] in the dtype of x.

    Raises:
        ValueError: a wrong rank or dtype, or a scale that does not divide the height and width.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 5.0, 5.0], [2.0, 0.0, 5.0, 5.0]]).reshape(1, 2, 4, 1)
        >>> max_index(x)[0, :, :, 0]
        Array([[0., 1., 1., 0.],
               [0., 0., 0., 0.]], dtype=float32)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Eq. 1, and Sec. 6.1.2 for HMI.
    """
    check_image("x", x)
    return _max_index(x, check_regions(x, scale))


@jit(static_argnums=1)
def _max_index(x: jax.Array, scale: Pair) -> jax.Array:
    return merge_phases(_one_hot(_first_maximum(split_phases(x, scale)), scale).astype(x.dtype))


def max_pool(x: jax.Array, *, scale: int | Pair = 2) -> MaxPooled:
    """Max pooling over regions of sy x sx pixels, and the positions of the maxima: `torch.nn.MaxPool2d`.

    Among equal values the first counts, row by row, and receives the whole gradient; a NaN counts as largest.
    Incomplete regions at the bottom and right are dropped.

    Args:
        x: HR map [B, H, W, C].
        scale: s, an integer >= 1 or a pair (vertical, horizontal): kernel size and stride.

    Returns:
        (values, indices): maxima [B, floor(H / sy), floor(W / sx), C] in the dtype of x, and their flat positions
        row * W + column in the plane of their channel, int32.

    Raises:
        ValueError: a wrong rank or dtype, or a wrong scale.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 9.0], [2.0, 0.0, 9.0]]).reshape(1, 2, 3, 1)
        >>> values, indices = max_pool(x)
        >>> values.item(), indices.item()
        (3.0, 1)

    Reference:
        Badrinarayanan et al., SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
        TPAMI 2017.
    """
    check_image("x", x)
    return _max_pool(x, pair("scale", scale))


@jit(static_argnums=1)
def _max_pool(x: jax.Array, scale: Pair) -> MaxPooled:
    (_, height, width, _), (sy, sx) = x.shape, scale
    rows, cols = height // sy, width // sx
    regions = split_phases(x[:, : sy * rows, : sx * cols], scale)
    position = _first_maximum(regions)
    # Selected by position: `jnp.max` would divide the gradient among equal values.
    values = jnp.sum(jnp.where(_one_hot(position, scale), regions, jnp.zeros_like(regions)), axis=(2, 4))
    row = sy * jnp.arange(rows, dtype=jnp.int32)[None, :, None, None] + position // sx
    col = sx * jnp.arange(cols, dtype=jnp.int32)[None, None, :, None] + position % sx
    return MaxPooled(values, row * width + col)


@by_rows("x", "indices", reach=lambda **_: None)
def max_unpool(
    x: jax.Array, indices: jax.Array, *, scale: int | Pair | None = None, size: int | Pair | None = None
) -> jax.Array:
    """Write values to given positions of a map of zeros: `torch.nn.MaxUnpool2d`, the inverse of `max_pool`.

        out[row, col, c] = x[i, j, c]    where row * W + col = indices[i, j, c],    0 elsewhere

    Positions below the map are dropped. Where two values meet, one of them stays, and gradients are undefined.

    Args:
        x: LR map [B, h, w, C].
        indices: flat positions in the plane of each channel, integers [B, h, w, C].
        scale: s: the output has sy*h x sx*w pixels. Give either this or `size`.
        size: output size (H, W), which tells W where pooling dropped incomplete regions.

    Returns:
        HR map [B, H, W, C] in the dtype of x.

    Raises:
        ValueError: wrong ranks, dtypes or shapes; not exactly one of `scale` and `size`.

    Example:
        >>> max_unpool(3 * jnp.ones((1, 1, 1, 1)), jnp.full((1, 1, 1, 1), 5), size=(2, 3))[0, :, :, 0]
        Array([[0., 0., 0.],
               [0., 0., 3.]], dtype=float32)

    Reference:
        Badrinarayanan et al., SegNet, 2017 (see `max_pool`).
    """
    check_image("x", x)
    if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        fail("indices", "an integer dtype", jnp.result_type(indices))
    check_shape("indices", indices, x.shape)
    if (scale is None) == (size is None):
        fail("scale, size", "exactly one of them", f"scale={scale!r}, size={size!r}")
    if size is None:
        sy, sx = pair("scale", scale)
        size = sy * x.shape[1], sx * x.shape[2]
    else:
        size = pair("size", size)
    return _max_unpool(x, indices, size)


@jit(static_argnums=2)
def _max_unpool(x: jax.Array, indices: jax.Array, size: Pair) -> jax.Array:
    height, width = size
    channel = jnp.arange(x.shape[3])[None, None]
    # Made from x, so that a sharded batch stays sharded.
    zeros = jnp.pad(x[:, :0, :0], ((0, 0), (0, height), (0, width), (0, 0)))

    def write(plane: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
        return plane.at[at // width, at % width, channel].set(values, mode="drop", unique_indices=True)

    return jax.vmap(write)(zeros, indices, x)


def _first_maximum(regions: jax.Array) -> jax.Array:
    """Position u * sx + v of the first maximum of each region: [B, h, sy, w, sx, C] -> int32 [B, h, w, C]."""
    batch, height, sy, width, sx, channels = regions.shape
    flat = regions.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, sy * sx, channels)
    return jnp.argmax(flat, axis=3).astype(jnp.int32)


def _one_hot(position: jax.Array, scale: Pair) -> jax.Array:
    """Whether a pixel is the one at `position` of its region: [B, h, w, C] -> bool [B, h, sy, w, sx, C]."""
    number = jnp.arange(scale[0] * scale[1], dtype=jnp.int32).reshape(1, 1, scale[0], 1, scale[1], 1)
    return position[:, :, None, :, None] == number
