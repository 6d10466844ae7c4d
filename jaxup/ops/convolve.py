"""Convolutions in the forms that XLA for CPUs has a fast way for."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxup._checks import Pair, known
from jaxup.ops.linear import bilinear
from jaxup.ops.patches import by_patches
from jaxup.ops.pointwise import on_cpus, pointwise_conv, sums_in_loops
from jaxup.ops.windows import in_memory
from jaxup.ops.winograd import ROWS, convolve_by_rows, to_kernel_by_rows

# Outputs up to which XLA is slow; pixels and channels from which on it is.
_FEW, _MANY, _WIDE = 16, 4096, 16

# Pixels and channels from which on Winograd's form is faster; and, of twice the channels, products in bfloat16.
_PIXELS, _CHANNELS = 1024, 64

# Settings of JAX that ask for plain sums.
_EXACT = ("highest", "float32")

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
    16 or 32 are filled up. In float32, kernels of 3 or 5 rows and 64 channels or more take half to three fifths of the
    products (`jaxup.ops.winograd`), with two to three times the rounding errors of plain sums; plain sums are had by
    `jax.default_matmul_precision("highest")`, or a precision. In bfloat16, from 128 channels on, each row of a kernel
    is one product of matrices, and their sum is rounded once.
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

    Patches gain up to 24 times with few outputs, and up to 4 times with many pixels and not too few channels; elsewhere
    they lose up to a half. In a loop, XLA's gradient of a kernel takes up to 120 times as long.
    """
    rows, columns, channels, features = kernel.shape
    many = math.prod(map(known, x.shape[:3])) >= _MANY
    wide = min(channels, features) >= (_WIDE if rows * columns <= 9 else 2 * _WIDE)
    large = _by_fewer_products(x, kernel.shape, options.get("precision")) or _by_products_of_rows(x, kernel.shape)
    if features <= _FEW or (many and wide) or large or rows == columns == 1:
        return convolve(x, kernel, strides, padding, **options)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    features = kernel.shape[3]
    # On CPUs 25 outputs take half as long again as 32.
    more = -features % 16 if features < 32 and features % 16 > 8 and on_cpus() else 0
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, more)))
    return _forward(x, kernel, padding, precision)[..., :features]


@partial(_convolve.defjvp, symbolic_zeros=True)
def _convolve_jvp(padding: Padding, precision: Any, primals: Any, tangents: Any) -> Any:
    size = primals[1].shape[:2]

    def back(x: jax.Array, ct: jax.Array) -> jax.Array:
        if _by_fewer_products(x, primals[1].shape, precision) and not sums_in_loops():
            return to_kernel_by_rows(x, ct, size, padding)
        return to_kernel(x, ct, size, padding, precision)

    return bilinear(
        lambda x, kernel: _convolve(x, kernel, padding, precision),
        lambda ct, kernel: _to_pixels(ct, kernel, padding, precision),
        back,
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
    return _forward(ct, flipped, ((rows - top, rows - bottom), (columns - left, columns - right)), precision)


def _forward(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    if _by_fewer_products(x, kernel.shape, precision):
        return convolve_by_rows(x, kernel, padding, partial(_at_once, precision=precision))
    if _by_products_of_rows(x, kernel.shape):
        return _products_of_rows(x, kernel, padding, precision)
    return _at_once(x, kernel, padding, precision)


def _is_large(x: jax.Array, kernel: Sequence[int], channels: int) -> bool:
    """Whether there are so many channels, and many pixels, on CPUs.

    Rows or columns that an Explicit mesh axis splits do not count: JAX cannot fill them up.
    """
    pixels = known(x.shape[0]) * known(x.shape[1], 0) * known(x.shape[2], 0)
    split = any(axis is not None for axis in jax.typeof(x).sharding.spec[1:3])
    return on_cpus() and pixels >= _PIXELS and min(kernel[2:]) >= channels and not split


def _by_fewer_products(x: jax.Array, kernel: Sequence[int], precision: Any) -> bool:
    """Whether Winograd's form is faster, as it is of many channels and pixels, and its rounding is allowed."""
    settings: Any = jax.config  # whose attributes have no types
    exact = x.dtype != jnp.float32 or precision is not None or settings.jax_default_matmul_precision in _EXACT
    return kernel[0] in ROWS and kernel[1] > 1 and not exact and _is_large(x, kernel, _CHANNELS)


def _by_products_of_rows(x: jax.Array, kernel: Sequence[int]) -> bool:
    """Whether numbers have 16 bits that XLA for CPUs multiplies fast in products of matrices, but in no convolution."""
    return bool(x.dtype == jnp.bfloat16) and _is_large(x, kernel, 2 * _CHANNELS)


def _products_of_rows(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    """One product for each row of the kernel, of pixels that lie beside each other; summed in float32."""
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)))
    (rows, columns), features = kernel.shape[:2], kernel.shape[3]
    height, width = (n - size + 1 for n, size in zip(x.shape[1:3], (rows, columns), strict=True))
    beside = in_memory(jnp.concatenate([x[:, :, j : j + width] for j in range(columns)], axis=3))
    options: Any = dict(precision=precision, preferred_element_type=jnp.float32)
    parts = [
        jax.lax.dot_general(
            beside[:, i : i + height], kernel[i].reshape(-1, features), (((3,), (0,)), ((), ())), **options
        )
        for i in range(rows)
    ]
    return sum(parts[1:], parts[0]).astype(x.dtype)


def to_kernel(x: jax.Array, ct: jax.Array, size: Pair, padding: Padding, precision: Any = None) -> jax.Array:
    """The gradient of a kernel of that many rows and columns: [B, H, W, C], [B, h, w, F] -> [rows, columns, C, F]."""
    options: dict[str, Any] = dict(size=size, padding=padding, precision=precision)
    at_once, blocks = partial(_transposed, **options), partial(by_patches, **options)
    kernel: jax.Array = jax.lax.platform_dependent(x, ct, cpu=at_once if sums_in_loops() else blocks, default=at_once)
    return kernel


def _transposed(x: jax.Array, ct: jax.Array, *, size: Pair, padding: Padding, precision: Any) -> jax.Array:
    zero = jnp.zeros((*size, x.shape[3], ct.shape[3]), ct.dtype)
    run = partial(_at_once, x, padding=padding, precision=precision)
    kernel: jax.Array = jax.linear_transpose(lambda kernel: run(kernel), zero)(ct)[0]
    return kernel


def _at_once(x: jax.Array, kernel: jax.Array, padding: Padding, precision: Any) -> jax.Array:
    rows, columns = padding
    # Below 0, which is what a gradient has of zeros further out than a kernel reaches, XLA reads what lies in memory.
    many = any(max(sides) > size // 2 or min(sides) < 0 for sides, size in zip(padding, kernel.shape, strict=False))
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
