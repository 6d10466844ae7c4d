"""Paired central difference convolution: a convolution of the differences between neighbouring keys and the query."""

import jax
import jax.numpy as jnp

from jaxup._checks import (
    Pair,
    accum_dtype,
    check_divides,
    check_float,
    check_image,
    check_int,
    check_odd,
    check_rank,
    check_shape,
    jit,
    pair,
)
from jaxup.ops.regions import convolve_groups
from jaxup.ops.rows import by_rows
from jaxup.ops.windows import pad_window


@by_rows("key", "query", reach=lambda kernel, dilation, **_: pair("dilation", dilation)[0] * (kernel.shape[0] // 2))
def paired_difference_conv(
    key: jax.Array, query: jax.Array, kernel: jax.Array, *, dilation: int | Pair = 1, groups: int = 1
) -> jax.Array:
    r"""Grouped convolution over the differences between the keys in a dilated K x K window and the query at its centre.

        v[i, l] = sum_n sum_{d in group(l)} kernel[n, d, l] (key[i_n, d] - query[i, d])
                = (kernel * key)[i, l] - sum_d query[i, d] (sum_n kernel[n, d, l])

    computed in the second form: a dilated convolution and a 1 x 1 convolution. Beyond the border, keys are those of
    the nearest pixel. Output l belongs to group floor(l G / L). Cost: (K^2 + 1) D/G multiply-adds per output entry.

    Args:
        key: [B, H, W, D].
        query: [B, H, W, D].
        kernel: [K, K, D/G, L], K odd.
        dilation: distance between the neighbours, an integer or a pair (vertical, horizontal).
        groups: G, a divisor of D and L.

    Returns:
        [B, H, W, L] in the dtype of the key. Both terms are computed in float32 for 16-bit inputs: they cancel.

    Raises:
        ValueError: a wrong rank, dtype or shape, an even K, G that does not divide D and L.

    Example:
        >>> import jax.numpy as jnp
        >>> key, query = jnp.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1), jnp.ones((1, 1, 3, 1))
        >>> paired_difference_conv(key, query, jnp.ones((3, 3, 1, 1))).ravel()
        Array([ 3., 12., 21.], dtype=float32)

    Reference:
        Zhou et al., A Refreshed Similarity-based Upsampler for Direct High-Ratio Feature Upsampling, 2024, Eqs. 11
        and 12. What keys are beyond the border is that of the official code (zmhhmz/ReSFU, no licence file).
    """
    check_image("key", key)
    check_float("query", query)
    check_shape("query", query, key.shape)
    check_float("kernel", kernel)
    check_rank("kernel", kernel, 4, "[K, K, D/G, L]")
    size, groups = check_odd("kernel size", kernel.shape[0]), check_int("groups", groups)
    check_divides("groups", groups, "the channels of key", key.shape[3])
    check_divides("groups", groups, "the outputs of kernel", kernel.shape[3])
    check_shape("kernel", kernel, (size, size, key.shape[3] // groups, None))
    return _paired_difference_conv(key, query, kernel, pair("dilation", dilation), groups)


@jit(static_argnums=(3, 4))
def _paired_difference_conv(
    key: jax.Array, query: jax.Array, kernel: jax.Array, dilation: Pair, groups: int
) -> jax.Array:
    dtype, reach = accum_dtype(key, query, kernel), kernel.shape[0] // 2
    padded = pad_window(key.astype(dtype), (dilation[0] * reach, dilation[1] * reach), "edge")
    kernel = kernel.astype(dtype)
    of_key = _conv(padded, kernel, dilation, groups)
    of_query = _conv(query.astype(dtype), jnp.sum(kernel, axis=(0, 1), keepdims=True), (1, 1), groups)
    return (of_key - of_query).astype(key.dtype)


def _conv(x: jax.Array, kernel: jax.Array, dilation: Pair, groups: int) -> jax.Array:
    return convolve_groups(
        x,
        kernel,
        (1, 1),
        "VALID",
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=jax.lax.Precision.HIGHEST,
    )
