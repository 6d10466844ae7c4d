"""Masks of boxes: pasted into images, and cut out of them."""

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, check_float, check_int, check_shape, fail, jit, pair
from jaxup.ops.boxes import check_boxes


def _tents(at: jax.Array, size: int) -> jax.Array:
    """Weights of `size` pixels at positions along an axis: [..., n] -> [..., n, size]."""
    pixels = jnp.arange(size, dtype=at.dtype).reshape((1,) * at.ndim + (-1,))
    return jnp.maximum(0, 1 - jnp.abs(at[..., None] - pixels))


def paste_masks(masks: jax.Array, boxes: jax.Array, *, size: Pair, whole_pixels: bool = True) -> jax.Array:
    """Masks of boxes at the size of the image, by bilinear interpolation, and zero outside of the boxes.

    Args:
        masks: of any square size, [..., N, M, M].
        boxes: in pixels, [..., N, 4].
        size: (H, W) of the image.
        whole_pixels: torchvision's form: a mask gets a border of zeros, its box grows with it, corners are cut to whole
            numbers, and the pixels from one to the other, with both, are filled. False is mmdetection's, where boxes
            are as they are.

    Returns:
        [..., N, H, W] in the dtype of the masks.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> paste_masks(jnp.ones((1, 2, 2)), jnp.array([[1.0, 0.0, 3.0, 2.0]]), size=(2, 4), whole_pixels=False)
        Array([[[0., 1., 1., 0.],
                [0., 1., 1., 0.]]], dtype=float32)

    Reference:
        He et al., Mask R-CNN, ICCV 2017, Sec. 3. Conventions: torchvision (BSD-3-Clause), mmdetection (Apache-2.0).
    """
    check_float("masks", masks)
    check_boxes("boxes", boxes)
    if masks.ndim < 3 or masks.shape[-1] != masks.shape[-2]:
        fail("masks", "[..., N, M, M]", f"shape {masks.shape}")
    check_shape("boxes", boxes, masks.shape[:-2] + (4,))
    return _paste(masks, boxes, pair("size", size), bool(whole_pixels))


@jit(static_argnums=(2, 3))
def _paste(masks: jax.Array, boxes: jax.Array, size: Pair, whole_pixels: bool) -> jax.Array:
    dtype, side = accum_dtype(masks, boxes), masks.shape[-1]
    boxes = boxes.astype(dtype)
    weights = []
    for axis, length in enumerate(size):
        low, high = boxes[..., 1 - axis, None], boxes[..., 3 - axis, None]
        pixels = jnp.arange(length, dtype=dtype).reshape((1,) * (boxes.ndim - 1) + (-1,))
        if whole_pixels:
            middle, half = (low + high) / 2, (high - low) / 2 * (side + 2) / side
            low, last = jnp.trunc(middle - half), jnp.trunc(middle + half)
            extent = jnp.maximum(last - low + 1, 1)
            # Positions on the mask with its border, which is zero: what is taken from it is left out.
            at = jnp.clip((pixels - low + 0.5) * (side + 2) / extent - 0.5, 0, side + 1) - 1
            at = jnp.where((pixels >= low) & (pixels <= last), at, -1)
        else:
            extent = jnp.where(high > low, high - low, 1)
            at = jnp.where(high > low, (pixels + 0.5 - low) * side / extent - 0.5, -1)
        weights.append(_tents(at, side))
    pasted = jnp.einsum("...hi,...ij,...wj->...hw", weights[0], masks.astype(dtype), weights[1])
    return pasted.astype(masks.dtype)


def crop_masks(masks: jax.Array, boxes: jax.Array, index: jax.Array, *, size: int, aligned: bool = True) -> jax.Array:
    """What true masks have inside of boxes: `roi_align` with adaptive sampling, of one mask for each box.

    Boxes within the image have as many samples as they ask for. There is one step for each box, and no gradient.

    Args:
        masks: of any type, [B, T, H, W].
        boxes: in pixels, [B, N, 4].
        index: which mask each box is for, integers [B, N]; the first for those below 0.
        size: M.
        aligned: as for `roi_align`.

    Returns:
        [B, N, M, M] in the dtype of the boxes, shares of each bin that the mask has.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> masks = jnp.array([[[[True, False], [True, False]]]])
        >>> crop_masks(masks, jnp.array([[[0.0, 0.0, 2.0, 2.0]]]), jnp.array([[0]]), size=1)
        Array([[[[0.5]]]], dtype=float32)

    Reference:
        He et al., Mask R-CNN, ICCV 2017, Sec. 3.1.
    """
    check_boxes("boxes", boxes)
    check_shape("masks", masks, (boxes.shape[0], None, None, None))
    check_shape("index", index, boxes.shape[:-1])
    return _crop(masks, boxes, index, check_int("size", size), bool(aligned))


@jit(static_argnums=(3, 4))
def _crop(masks: jax.Array, boxes: jax.Array, index: jax.Array, size: int, aligned: bool) -> jax.Array:
    dtype = accum_dtype(boxes)
    images = jnp.broadcast_to(jnp.arange(boxes.shape[0])[:, None], index.shape)

    def one(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        box, image, number = given
        mask = masks[image, jnp.maximum(number, 0)].astype(dtype)
        rows, cols = (_means(box[1 - axis], box[3 - axis], mask.shape[axis], size, aligned) for axis in (0, 1))
        return jnp.matmul(rows @ mask, cols.T)

    boxes = jax.lax.stop_gradient(boxes).astype(dtype)
    if 0 in (index.size, masks.shape[1]):
        return jnp.zeros((*index.shape, size, size), dtype)
    found: jax.Array = jax.lax.map(one, (boxes.reshape(-1, 4), images.reshape(-1), index.reshape(-1)))
    cut: jax.Array = found.reshape(*index.shape, size, size)
    return cut


def _means(low: jax.Array, high: jax.Array, length: int, bins: int, aligned: bool) -> jax.Array:
    """The mean over the samples of each bin along an axis, as a matrix [bins, length]."""
    most, dtype = -(-length // bins) + 1, low.dtype
    start, extent = low - (0.5 if aligned else 0), high - low
    extent = extent if aligned else jnp.maximum(extent, 1)
    count = jnp.clip(jnp.ceil(extent / bins), 0, most)
    numbers = jnp.arange(most, dtype=dtype)
    share = (numbers + 0.5) / jnp.maximum(count, 1)
    at = start + (jnp.arange(bins, dtype=dtype)[:, None] + share[None]) * (extent / bins)
    read = (at >= -1) & (at <= length) & (numbers < count)[None]
    tents = _tents(jnp.clip(at, 0, length - 1), length)
    return jnp.sum(jnp.where(read[..., None], tents, 0), axis=1) / jnp.maximum(count, 1)
