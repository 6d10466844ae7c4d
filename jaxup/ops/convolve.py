"""Convolutions in the forms that XLA for CPUs has a fast way for."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, accum_dtype, known
from jaxup.ops.linear import bilinear
from jaxup.ops.pointwise import on_cpus, pointwise_conv, sums_in_loops
from jaxup.ops.windows import in_memory

# Pixels whose patches are formed at a time.
_BLOCK = 1024

# Outputs up to which XLA is slow; pixels and channels from which on it is.
_FEW, _MANY, _WIDE = 16, 4096, 32

Padding = tuple[Pair, Pair]


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[Pair],
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    feature_group_count: int = 1,
    precision: Any = None,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of NHWC and HWIO, which modules pass to `nnx.Conv`.

    A 1 x 1 kernel is a product of matrices, `pointwise_conv`. A larger one that is not strided, dilated or grouped is
    made of what is fast on CPUs. There a convolution without any padding takes 2 to 4 times as long as one with a
    column of zeros, which is cut away again; one of 3 channels, or with zeros around of more than half a kernel, up to
    4 times as long as with a fourth channel, and with the zeros in memory; and the gradient with respect to the kernel
    up to 13 times as long as products of patches, the longest where the number of outputs is odd. That gradient is
    summed in float32 or more. Over several CPU devices it is left to XLA: see `sums_in_loops`. Outputs a little below
    16 or 32 are filled up.
    """
    if isinstance(padding, str):
        sizes = [d * (k - 1) + 1 for d, k in zip(rhs_dilation, kernel.shape, strict=False)]
        padding = jax.lax.padtype_to_pads(x.shape[1:3], sizes, strides, padding)
    single = tuple(lhs_dilation) == (1, 1) and feature_group_count == 1
    if single and kernel.shape[:2] == (1, 1):
        return pointwise_conv(x, kernel, strides, padding, precision=precision)
    if not single or not tuple(strides) == tuple(rhs_dilation) == (1, 1):
        options |= {"feature_group_count": feature_group_count, "lhs_dilation": lhs_dilation, "precision": precision}
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=rhs_dilation, **options)
    (top, bottom), (left, right) = padding
    return _convolve(x, kernel, ((top, bottom), (left, right)), precision)


def convolve_layer(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Sequence[Pair], **options: Any
) -> jax.Array:
    """The same for layers that are run once: `convolve` where its gradients are faster, or else XLA's convolution.

    Patches gain up to 24 times with few outputs, and up to 4 times with many channels and pixels; elsewhere they lose
    up to a half. In a loop, XLA's gradient of a kernel takes up to 120 times as long.
    """
    rows, columns, channels, features = kernel.shape
    many = math.prod(map(known, x.shape[:3])) >= _MANY
    wide = min(channels, features) >= (_WIDE if rows * columns <= 9 else 2 * _WIDE)
    if features <= _FEW or (many and wide) or rows == columns == 1:
        return convolve(x, kernel, strides, padding, **options)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    features = kernel.shape[3]
    # On CPUs 25 outputs take half as long again as 32.
    more = -features % 16 if features < 32 and features % 16 > 8 and on_cpus() else 0
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, more)))
    return _at_once(x, kernel, padding, precision)[..., :features]


@partial(_convolve.defjvp, symbolic_zeros=True)
def _convolve_jvp(padding: Padding, precision: Any, primals: Any, tangents: Any) -> Any:
    rows, columns = primals[1].shape[:2]
    return bilinear(
        lambda x, kernel: _convolve(x, kernel, padding, precision),
        lambda ct, kernel: _to_pixels(ct, kernel, padding, precision),
        lambda x, ct: to_kernel(x, ct, (rows, columns), padding, precision),
        primals,
        tangents,
    )


def _to_pixels(ct: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    """The gradient of the pixels, with a kernel of its own.

    That of XLA has the kernel's two last axes swapped, and takes ten times as long in a loop on CPUs.
    """
    flipped = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    (top, bottom), (left, right) = padding
    rows, columns = (size - 1 for size in kernel.shape[:2])
    return _at_once(ct, flipped, ((rows - top, rows - bottom), (columns - left, columns - right)), precision)


def to_kernel(x: jax.Array, ct: jax.Array, size: Pair, padding: Padding, precision: Any = None) -> jax.Array:
    """The gradient of a kernel of that many rows and columns: [B, H, W, C], [B, h, w, F] -> [rows, columns, C, F]."""
    options: dict[str, Any] = dict(size=size, padding=padding, precision=precision)
    at_once, blocks = partial(_transposed, **options), partial(_by_patches, **options)
    kernel: jax.Array = jax.lax.platform_dependent(x, ct, cpu=at_once if sums_in_loops() else blocks, default=at_once)
    return kernel


def _transposed(x: jax.Array, ct: jax.Array, *, size: Pair, padding: Padding, precision: Any) -> jax.Array:
    zero = jnp.zeros((*size, x.shape[3], ct.shape[3]), ct.dtype)
    run = partial(_at_once, x, padding=padding, precision=precision)
    kernel: jax.Array = jax.linear_transpose(lambda kernel: run(kernel), zero)(ct)[0]
    return kernel


def _at_once(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    rows, columns = padding
    many = any(max(sides) > max(2, size // 2) for sides, size in zip(padding, kernel.shape, strict=False))
    bare = padding == ((0, 0), (0, 0))
    if on_cpus() and (many or (bare and x.shape[3] < 4)):
        x, kernel = _padded(x, kernel, padding)
        bare, rows = True, (0, 0)
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        (rows, (0, 1) if bare else columns),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
    return y[:, :, :-1] if bare else y


def _padded(x: jax.Array, kernel: jax.Array, padding: Padding) -> tuple[jax.Array, jax.Array]:
    """With the zeros in memory, also those of who calls: more than half a kernel, or 3 channels, is slow without."""
    more = 1 if x.shape[3] == 3 else 0
    rows, columns = padding
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, more, 0)))
    return in_memory(x), jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))


def _by_patches(x: jax.Array, ct: jax.Array, *, size: Pair, padding: Padding, precision: Any) -> jax.Array:
    """The gradient as products with patches, a few rows at a time, which are written where those before them were.

    Patches are of what has fewer channels: of x, or of ct, which gives the kernel turned round. In the products the
    narrower factor comes first: the other order takes twice as long.
    """
    if ct.shape[3] < x.shape[3]:
        back = [(n - 1 - before, n - 1 - after) for n, (before, after) in zip(size, padding, strict=True)]
        turned = _by_patches(ct, x, size=size, padding=(back[0], back[1]), precision=precision)
        return jnp.swapaxes(turned[::-1, ::-1], 2, 3).astype(ct.dtype)
    (rows, columns), (batch, height, width, features), channels = size, ct.shape, x.shape[3]
    wide, taps = accum_dtype(x), rows * columns * channels
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)))
    block = max(1, min(known(height), _BLOCK // max(1, known(batch) * known(width))))
    count = height // block
    few = taps < features

    def products(seen: jax.Array, ct: jax.Array, patches: jax.Array) -> tuple[jax.Array, jax.Array]:
        for i in range(rows):
            for j in range(columns):
                tap = seen[:, i : i + ct.shape[1], j : j + width].astype(wide)
                patches = jax.lax.dynamic_update_slice_in_dim(patches, tap, (i * columns + j) * channels, axis=3)
        first, second = ct.astype(wide).reshape(-1, features), patches.reshape(-1, taps)
        first, second = (second, first) if few else (first, second)
        return patches, jax.lax.dot_general(first, second, (((0,), (0,)), ((), ())), precision=precision)

    def add(n: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        seen = jax.lax.dynamic_slice_in_dim(x, n * block, block + rows - 1, axis=1)
        part = jax.lax.dynamic_slice_in_dim(ct, n * block, block, axis=1)
        patches, more = products(seen, part, state[0])
        return patches, state[1] + more

    def empty(rows: Any) -> jax.Array:
        return jnp.zeros((batch, rows, width, taps), wide)

    _, rest = products(x[:, count * block :], ct[:, count * block :], empty(height - count * block))
    total: jax.Array = jax.lax.fori_loop(0, count, add, (empty(block), rest))[1]
    return (total if few else total.T).reshape(rows, columns, channels, features).astype(ct.dtype)
