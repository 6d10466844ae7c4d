"""1 x 1 convolutions and linear layers as products of matrices whose gradients are fast on CPUs."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from jaxup._checks import Pair, accum_dtype, known
from jaxup.ops.linear import bilinear

# Pixels that are summed at a time in the gradient of a kernel, and inputs from which on: of fewer outputs; of sums.
_BLOCK, _SOME, _MANY = 1024, 64, 256


def pointwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[Pair],
    *,
    precision: Any = None,
    **_: Any,
) -> jax.Array:
    """The same linear map at every pixel, in the place of `jax.lax.conv_general_dilated` in `nnx.Conv`.

        y[h, w, :] = x[s h - p, s w - p, :] kernel[0, 0]

    Sums are in float32 or more. On one CPU core, from some ten channels, this is 1 to 3 times as fast as the
    convolution, and 1.3 to 7 times with gradients: most where there are hundreds of channels.

    Args:
        x: [B, H, W, C].
        kernel: [1, 1, C, F].
        strides: s, vertical and horizontal.
        padding: p, zeros before and after the rows and the columns, or "SAME" or "VALID", which add none.
        precision: of the product.

    Returns:
        [B, h, w, F] in the dtype of x.
    """
    if not isinstance(padding, str):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return _product(x[:, :: strides[0], :: strides[1]], kernel[0, 0], precision)


def pointwise_dot(
    x: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    *,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """The same for [..., C] and [C, F], in the place of `jax.lax.dot_general` in `nnx.Linear`."""
    if preferred_element_type is not None or out_sharding is not None:
        return jax.lax.dot_general(
            x,
            kernel,
            dimension_numbers,
            precision=precision,
            preferred_element_type=preferred_element_type,
            out_sharding=out_sharding,
        )
    return _product(x, kernel, precision)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    return _contract(x, kernel, ((x.ndim - 1,), (0,)), precision)


@partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(precision: Any, primals: Any, tangents: Any) -> Any:
    spread = jax.typeof(primals[1]).sharding  # which sums over a batch of several devices have to be told
    explicit = spread if AxisType.Explicit in spread.mesh.axis_types else None
    return bilinear(
        lambda x, kernel: _product(x, kernel, precision),
        lambda ct, kernel: _contract(ct, kernel, ((ct.ndim - 1,), (1,)), precision),
        lambda x, ct: _to_kernel(x, ct, precision, explicit),
        primals,
        tangents,
    )


def _contract(a: jax.Array, b: jax.Array, axes: Any, precision: Any, out_sharding: Any = None) -> jax.Array:
    options: Any = dict(precision=precision, preferred_element_type=accum_dtype(a), out_sharding=out_sharding)
    return jax.lax.dot_general(a, b, (axes, ((), ())), **options).astype(a.dtype)


def _to_kernel(x: jax.Array, ct: jax.Array, precision: Any, out_sharding: Any) -> jax.Array:
    """The gradient of the kernel, on CPUs by blocks of pixels where the outputs are few or the inputs many.

    At once, XLA forms the pixels of x transposed. By blocks it does not, and where there are less outputs than inputs,
    their channels come first: up to 2.4 times as fast for a quarter as many, as fast for a half. And with transposed x
    it computes anew what x is the sum of: all blocks of a residual stage, up to six times as long as the product.
    Elsewhere blocks take up to a third longer.
    """
    over, pixels = tuple(range(x.ndim - 1)), math.prod(map(known, x.shape[:-1]))
    at_once = partial(_contract, axes=(over, over), precision=precision, out_sharding=out_sharding)
    inputs, outputs = x.shape[-1], ct.shape[-1]
    few = inputs >= max(_SOME, 4 * outputs)
    summed = inputs >= max(_MANY, outputs // 2)  # or has a stride, and twice the channels
    if not (few or summed) or pixels < _BLOCK or out_sharding is not None or sums_in_loops():
        return at_once(x, ct)

    def blocks(x: jax.Array, ct: jax.Array) -> jax.Array:
        how: Any = dict(size=min(_BLOCK, pixels // 2), precision=precision)
        return _by_blocks(ct, x, **how).T if 2 * outputs <= inputs else _by_blocks(x, ct, **how)

    total: jax.Array = jax.lax.platform_dependent(x, ct, cpu=blocks, default=at_once)
    return total


def _by_blocks(a: jax.Array, b: jax.Array, size: int, precision: Any) -> jax.Array:
    wide, dtype = accum_dtype(a), a.dtype
    a, b = (y.reshape(-1, y.shape[-1]) for y in (a, b))
    count = a.shape[0] // size

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        options: Any = dict(precision=precision, preferred_element_type=wide)
        return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), **options)

    def add(n: jax.Array, total: jax.Array) -> jax.Array:
        block = [jax.lax.dynamic_slice_in_dim(y, n * size, size) for y in (a, b)]
        return total + product(*block)

    rest = [y[count * size :] for y in (a, b)]
    total: jax.Array = jax.lax.fori_loop(0, count, add, product(*rest))
    return total.astype(dtype)


def sums_in_loops() -> bool:
    """Whether a batch may be split over several CPU devices.

    Then each step of a loop over blocks would sum the kernel's gradient over them. XLA for CPUs starts the sums behind
    a loop while it still runs, in another order on each device: some wait in one and some in the other, in threads that
    all devices of a process share, and the program hangs.
    """
    return on_cpus() and jax.device_count() > 1


def on_cpus() -> bool:
    """Whether programs run on CPUs by default."""
    return bool(jax.default_backend() == "cpu")
