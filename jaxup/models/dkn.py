"""Deformable kernel networks: depth upsampling by averages over a few learned positions (Kim, Ponce and Ham, 2019)."""

import math
from collections.abc import Sequence
from functools import partial, reduce
from operator import add, mul
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_features, check_int, check_odd, check_shape, fail, pair
from jaxup._colours import LUMA
from jaxup.models.dkn_streams import Maps, dkn_stream, fdkn_stream
from jaxup.models.joint import BICUBIC_REACH
from jaxup.ops.deform import GRIDS, deformable_average
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle, pixel_unshuffle, resize
from jaxup.ops.softmax import softmax

_BEFORE, _AFTER = 25, 24  # pixels that DKN's receptive field reaches to the left and right
_STRIDE = 4  # of the strided layers together, and of FDKN's cells


class DKN(nnx.Module):
    """Deformable kernel network: every pixel averages k x k samples, whose weights and positions are learned.

        f = resize(x),  (A, O), (A', O') = stream(f), stream'(guide),  K = sigmoid(A) sigmoid(A') - its mean over q,
        out[p] = f[p] + sum_q K[p, q] f(q + O[p, q] O'[p, q])

    with q on a k x k grid around p and f read bilinearly, inside a d x d window (`jaxup.ops.deformable_average`).
    Without the residual, K is divided by its sum instead, and f[p] is not added. Without a guide there is one stream,
    and with `from_depth=False` only that of the guide; without offsets, O O' is zero.

    A stream (Table 1) sees 25 pixels before and 24 after each pixel (51 x 51 in the paper, whose last row and column
    go unread), zeros outside the image, and has two convolutions of stride 2. The paper runs it for 16 shifts of its
    inputs and interleaves the outputs. Here each layer runs once, at full resolution, and the phases after a stride go
    on as images of their own: the same result, without computing the first three layers again for several shifts (per
    pixel 1.16 M multiply-adds, not 1.58 M), and for images of any size, filled up with zeros to multiples of 4. Only
    while training is there a difference: the statistics of batch normalisation are those of all 16 shifts together.

    Parameters for k = 3: 1,158,070; 577,467 without a guide. n1, n2 = 256, 128: 1,748,150; 256, 256: 2,345,142; 256,
    512: 3,539,126; 256, 1024: 5,927,094. (The paper has 1.1, 1.7, 2.3, 3.5 and 5.8 M.)

    Args:
        kernel_size: k.
        window_size: d, odd.
        widths: n1, n2, the widths of the last two layers of each stream.
        guide_features: channels of the guide; None for a network without guidance.
        from_depth: let kernels depend on the depth too; false for the guide alone.
        offsets: learn the positions; false for the k x k pixels around p, k odd, whatever the window and grid.
        residual: learn what is to be added to f, by kernels of sum zero.
        grid: where the k x k grid lies, "centred" as in the paper, or "shifted" or "compressed" as in its code, see
            `deformable_average`.
        cubic_coefficient: a of the bicubic interpolation that enlarges x: -0.75 as in PyTorch, or -0.5 as in Pillow,
            by which the official code enlarges depth before the network; `interop.from_torch` chooses that.
        dtype: the type in which convolutions compute; parameters are float32, kernels and positions never below.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: depth x [B, h, w, 1], guide [B, H, W, Cg] of any size, x being enlarged to it by bicubic
        interpolation (and left alone where it has that size already) -> [B, H, W, 1] in the dtype of x. Without
        guidance `module(x)`, with x enlarged already.

    Raises:
        ValueError: a wrong option, an x or guide of a wrong rank, dtype or shape, a guide too few or too many.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> network = DKN(widths=(16, 8), rngs=nnx.Rngs(0))
        >>> network.eval()
        >>> nnx.jit(network)(jnp.ones((1, 2, 3, 1)), jnp.ones((1, 8, 12, 3))).shape
        (1, 8, 12, 1)

    Reference:
        Kim, Ponce and Ham, Deformable Kernel Networks for Guided Depth Map Upsampling, 2019, Sec. 3 and Table 1, and
        Sec. 1.1 and Table 2 of the supplement. Official code: jun0kim/DKN (GPL-3.0), with another grid.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 3,
        window_size: int = 15,
        widths: Pair = (128, 128),
        guide_features: int | None = 3,
        from_depth: bool = True,
        offsets: bool = True,
        residual: bool = True,
        grid: str = "centred",
        cubic_coefficient: float = -0.75,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel_size, self.window_size, self.residual, self.grid = kernel_size, window_size, residual, grid
        self.guide_features, self.from_depth, self.offsets = guide_features, from_depth, offsets
        self.cubic_coefficient = cubic_coefficient
        _check_options(self)
        widths = pair("widths", widths)
        stream = partial(dkn_stream, samples=kernel_size**2, widths=widths, offsets=offsets, dtype=dtype, rngs=rngs)
        self.depth_stream = stream(1) if from_depth else None
        self.guide_stream = None if guide_features is None else stream(guide_features)

    def __call__(self, x: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Enlarge x to the size of the guide."""
        target = _enlarged(x, guide, self)
        return averaged(target, *self.kernels(target, guide), self)

    def kernels(self, target: jax.Array, guide: jax.Array | None = None) -> Maps:
        """Weights [B, H, W, k*k] and offsets [B, H, W, 2*k*k] of depth in the size of the guide."""
        height, width = target.shape[1:3]
        weights, offsets = kernels(_maps(self, _pad(target), None if guide is None else _pad(guide)), self)
        return weights[:, :height, :width], None if offsets is None else offsets[:, :height, :width]

    def reach(self, scale: float) -> int:
        """How many low-resolution pixels beyond its own an output pixel depends on at most, at a scale."""
        return math.ceil((_BEFORE + self.window_size // 2 + 1) / scale) + BICUBIC_REACH


class FDKN(nnx.Module):
    """Fast deformable kernel network: `DKN` whose streams run at a quarter of the resolution.

    The 4 x 4 pixels of a cell become channels (`jaxup.ops.pixel_unshuffle`), six 3 x 3 convolutions per stream predict
    the weights and offsets of all 16, and these go back to their pixels. Every layer sees zeros outside the image, and
    sizes that are no multiples of 4 are filled up with zeros at the bottom and on the right.

    Parameters for k = 3: 703,072; 693,856 with `luminance`, to which the paper's 0.6 M seem to belong; 346,928 without
    a guide. n1, n2 = 256, 128: 1,146,208; 256, 256: 1,846,880; 256, 512: 3,248,224; 256, 1024: 6,050,912 (in the paper
    1.1, 1.7, 2.9 and 5.9 M, though its file sizes of 4.5, 7.3, 13.0 and 24.2 MB agree with ours). Multiply-adds per
    pixel: a 16th of the parameters.

    Args:
        kernel_size: k.
        window_size: d, odd.
        widths: n1, n2, the widths of the last two layers of each stream.
        guide_features: channels of the guide; None for a network without guidance.
        from_depth: let kernels depend on the depth too; false for the guide alone.
        offsets: learn the positions; false for the k x k pixels around p, k odd, whatever the window and grid.
        luminance: reduce an RGB guide to 0.299 R + 0.587 G + 0.114 B first, as in the official code; the paper has
            16 channels of each colour.
        residual: learn what is to be added to f, by kernels of sum zero.
        grid: where the k x k grid lies, "centred" as in the paper, or "shifted" or "compressed" as in its code, see
            `deformable_average`.
        cubic_coefficient: a of the bicubic interpolation that enlarges x: -0.75 as in PyTorch, or -0.5 as in Pillow,
            by which the official code enlarges depth before the network; `interop.from_torch` chooses that.
        dtype: the type in which convolutions compute; parameters are float32, kernels and positions never below.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: depth x [B, h, w, 1], guide [B, H, W, Cg] of any size, x being enlarged to it by bicubic
        interpolation (and left alone where it has that size already) -> [B, H, W, 1] in the dtype of x. Without
        guidance `module(x)`, with x enlarged already.

    Raises:
        ValueError: a wrong option, an x or guide of a wrong rank, dtype or shape, a guide too few or too many.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> network = FDKN(rngs=nnx.Rngs(0))
        >>> network.eval()
        >>> nnx.jit(network)(jnp.ones((1, 2, 3, 1)), jnp.ones((1, 8, 12, 3))).shape
        (1, 8, 12, 1)

    Reference:
        Kim, Ponce and Ham, Deformable Kernel Networks for Guided Depth Map Upsampling, 2019, Sec. 3.3, and Sec. 1.2 and
        Tables 1 and 2 of the supplement. Official code: jun0kim/DKN (GPL-3.0), with another grid and `luminance`.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 3,
        window_size: int = 15,
        widths: Pair = (128, 128),
        guide_features: int | None = 3,
        from_depth: bool = True,
        offsets: bool = True,
        luminance: bool = False,
        residual: bool = True,
        grid: str = "centred",
        cubic_coefficient: float = -0.75,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel_size, self.window_size, self.residual, self.grid = kernel_size, window_size, residual, grid
        self.guide_features, self.from_depth, self.offsets = guide_features, from_depth, offsets
        self.cubic_coefficient = cubic_coefficient
        self.luminance = luminance
        _check_options(self)
        if luminance and guide_features != 3:
            fail("guide_features", "3 with luminance", guide_features)
        cell, widths = _STRIDE**2, pair("widths", widths)
        stream = partial(
            fdkn_stream, samples=cell * kernel_size**2, widths=widths, offsets=offsets, dtype=dtype, rngs=rngs
        )
        self.depth_stream = stream(cell) if from_depth else None
        inputs = None if guide_features is None else cell if luminance else cell * guide_features
        self.guide_stream = None if inputs is None else stream(inputs)

    def __call__(self, x: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Enlarge x to the size of the guide."""
        return self._run(_enlarged(x, guide, self), guide)

    def each_channel(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Every channel of x [B, h, w, C] as a map by itself, all with the same weights; the guide is seen once."""
        batch, height, width, channels = x.shape
        maps = jnp.moveaxis(x, 3, 1).reshape(batch * channels, height, width, 1)
        y = self._run(_enlarged(maps, guide, self, channels), guide)
        return jnp.moveaxis(y.reshape(batch, channels, *y.shape[1:3]), 1, 3)

    def _run(self, target: jax.Array, guide: jax.Array | None) -> jax.Array:
        """The network for maps of the size of the guide, of which each image may have several."""
        return averaged(target, *self.kernels(target, guide), self)

    def kernels(self, target: jax.Array, guide: jax.Array | None = None) -> Maps:
        """Weights [B, H, W, k*k] and offsets [B, H, W, 2*k*k] of depth in the size of the guide."""
        seen = _luminance(guide) if self.luminance and guide is not None else guide
        maps = _maps(self, _to_cells(target), None if seen is None else _to_cells(seen))
        weights, offsets = kernels(maps, self)
        size = target.shape[1:3]
        return _from_cells(weights, size), None if offsets is None else _from_cells(offsets, size)

    def reach(self, scale: float) -> int:
        """How many low-resolution pixels beyond its own an output pixel depends on at most, at a scale.

        The six 3x3 convolutions count in cells. What a network depends on depends on where the cells lie: a part of an
        image has those of the whole if it begins at a multiple of 4 pixels of the guide.
        """
        return math.ceil((_STRIDE * (6 + 1) + self.window_size // 2 + 1) / scale) + BICUBIC_REACH


def _check_options(network: DKN | FDKN) -> None:
    check_int("kernel_size", network.kernel_size)
    check_odd("window_size", network.window_size)
    check_choice("grid", network.grid, GRIDS)
    if network.guide_features is not None:
        check_int("guide_features", network.guide_features)
    elif not network.from_depth:
        fail("guide_features", "channels of the guide where from_depth is false", None)
    if not network.offsets:
        check_odd("kernel_size", network.kernel_size)


def _enlarged(x: jax.Array, guide: jax.Array | None, network: DKN | FDKN, maps: int = 1) -> jax.Array:
    """The depth in the size of the guide, after checks of both; `maps` for each guide."""
    guide_features = network.guide_features
    check_features("x", x, 1)
    if (guide is None) != (guide_features is None):
        expected, actual = ("a guide", "none") if guide is None else ("no guide", "one")
        fail("guide", f"{expected}, as the network was built", actual)
    if guide is None or guide_features is None:
        return x
    check_features("guide", guide, guide_features)
    check_shape("guide", guide, (x.shape[0] // maps, None, None, None))
    return resize(x, size=guide.shape[1:3], method="bicubic", cubic_coefficient=network.cubic_coefficient)


def _pad(x: jax.Array) -> jax.Array:
    rows, columns = ((_BEFORE, _AFTER + -size % _STRIDE) for size in x.shape[1:3])
    return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def _to_cells(x: jax.Array) -> jax.Array:
    """Space to depth, of an image filled up to a multiple of the cell's size."""
    height, width = x.shape[1:3]
    filled = jnp.pad(x, ((0, 0), (0, -height % _STRIDE), (0, -width % _STRIDE), (0, 0)))
    return pixel_unshuffle(filled, scale=_STRIDE)


def _from_cells(y: jax.Array, size: tuple[int, ...]) -> jax.Array:
    return pixel_shuffle(y, scale=_STRIDE)[:, : size[0], : size[1]]


def _luminance(guide: jax.Array) -> jax.Array:
    weights = jnp.array(LUMA, accum_dtype(guide))[None, None, None]
    return jnp.sum(weights * guide.astype(weights.dtype), axis=-1, keepdims=True).astype(guide.dtype)


def _maps(network: DKN | FDKN, target: jax.Array, guide: jax.Array | None) -> list[Maps]:
    """What each stream makes of its image; that of a guide for each of its maps."""
    images = (network.depth_stream, target), (network.guide_stream, guide)
    found = [stream.scores(image) for stream, image in images if stream is not None and image is not None]
    repeats = target.shape[0] // max(1, found[-1][0].shape[0])
    return [*found[:-1], jax.tree.map(lambda y: jnp.repeat(y, repeats, axis=0), found[-1])] if repeats > 1 else found


def kernels(maps: Sequence[Maps], network: DKN | FDKN) -> Maps:
    """The streams' weights and offsets multiplied with each other, and the weights of each pixel normalised.

    Where a cell holds several pixels, its channels run over samples and then pixels.
    """
    dtype = accum_dtype(maps[0][0])
    samples = network.kernel_size**2
    pixels = maps[0][0].shape[3] // samples
    scores = [scores.astype(dtype).reshape(*scores.shape[:3], samples, pixels) for scores, _ in maps]
    if network.residual:
        weights = reduce(mul, map(nnx.sigmoid, scores))
        weights = weights - jnp.mean(weights, axis=3, keepdims=True)
    else:  # the softmax of logarithms is the division by the sum, at any scale
        weights = softmax(reduce(add, map(nnx.log_sigmoid, scores)), 3)
    steps = [offsets.astype(dtype) for _, offsets in maps if offsets is not None]
    return weights.reshape(*weights.shape[:3], samples * pixels), reduce(mul, steps) if steps else None


def averaged(target: jax.Array, weights: jax.Array, offsets: jax.Array | None, network: DKN | FDKN) -> jax.Array:
    """The average itself."""
    if offsets is None:
        out = reassemble(target, weights, scale=1, kernel_size=network.kernel_size)
    else:
        offsets = offsets.reshape(*weights.shape, 2)
        out = deformable_average(target, weights, offsets, window_size=network.window_size, grid=network.grid)
    return out + target if network.residual else out
