"""Attention of queries on one grid to a neighbourhood of fixed size on another, shifted inside at the borders."""

import jax
import numpy as np

from jaxup._checks import check_divides, check_image, check_int, check_odd, check_shape
from jaxup.ops.rows import by_rows
from jaxup.ops.window_attend import attend_counted


def neighbour_counts(queries: int, keys: int, size: int) -> np.ndarray:
    """How often each of the keys is a neighbour of each query along one axis, [queries, keys].

    Keys are thought of as enlarged by nearest neighbours; a query looks at `size` in a row of those of its own residue
    modulo d = max(1, queries // keys), the window shifted inside where it would stand over; or at all of these.
    """
    step, place = max(1, queries // keys), np.arange(queries)
    counts, rest, index = np.zeros((queries, keys), int), place % step, place // step
    length = -(-(queries - rest) // step)
    start = np.clip(index - size // 2, 0, np.maximum(length - size, 0))
    for t in range(size):
        seen = t < length
        at = ((start + t) * step + rest)[seen]
        np.add.at(counts, (place[seen], (2 * at + 1) * keys // (2 * queries)), 1)
    return counts


@by_rows("query", "key", "value", reach=lambda **_: None)
def neighbourhood_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, kernel_size: int, num_heads: int = 1
) -> jax.Array:
    r"""Average of the K x K cells around each pixel, by softmaxed scaled dot products, head by head.

        out_m[i] = sum_{j in N(i)} softmax_{j in N(i)}(q_m[i] . k_m[j] / sqrt(D/M)) v_m[j]

    with M heads of D/M consecutive channels of query and key, and C/M of value. For an integer ratio of the grids N(i)
    is the K x K window around the cell of pixel i, shifted inside at the borders of the map. For others it is that of
    the maps enlarged by nearest neighbours, with dilation floor(ratio), in which cells may count twice. A map with
    fewer than K cells along an axis is seen whole there. Queries are processed in tiles, and anew in the backward pass.

    Args:
        query: [B, H, W, D].
        key: [B, h, w, D].
        value: [B, h, w, C].
        kernel_size: K, odd.
        num_heads: M, a divisor of D and C.

    Returns:
        [B, H, W, C] in the dtype of value; scores and sums are in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong ranks, dtypes or shapes, an even K, M that divides not both.

    Example:
        >>> import jax.numpy as jnp
        >>> value = jnp.array([0.0, 1.0, 2.0, 9.0]).reshape(1, 1, 4, 1)
        >>> query, key = jnp.zeros((1, 1, 8, 2)), jnp.zeros((1, 1, 4, 2))
        >>> neighbourhood_attend(query, key, value, kernel_size=3).ravel()
        Array([1., 1., 1., 1., 4., 4., 4., 4.], dtype=float32)

    Reference:
        Hassani et al., Neighborhood Attention Transformer, CVPR 2023; cross-scale as valeoai/NAF (Apache-2.0) has it.
    """
    for name, x in (("query", query), ("key", key), ("value", value)):
        check_image(name, x)
    check_shape("key", key, (query.shape[0], None, None, query.shape[3]))
    check_shape("value", value, (*key.shape[:3], None))
    check_divides("num_heads", check_int("num_heads", num_heads), "the channels of query", query.shape[3])
    check_divides("num_heads", num_heads, "the channels of value", value.shape[3])
    return attend_counted(query, key, value, (neighbour_counts, check_odd("kernel_size", kernel_size)), num_heads, True)
