"""Convolutions with 3 or 5 rows by fewer products: Winograd's minimal filtering, along rows.

m outputs of a column, one below the other, need m r products with a kernel of r rows; and n = m + r - 1 in the form

    y = A^T [(G w) * (B^T x)],    x of n rows, w of r, y of m,

which multiplies polynomials by their values at n points. Here n is 6: 4 outputs of 3 rows (half the products), or 2 of
5 rows (three fifths). Each product is a convolution of one plane, a sixth of B^T x, with a kernel of one row. The
points are 0, 5/8, -5/8, 3/2, -3/2 and infinity; with them rounding errors are two to three times those of plain sums.

Reference:
    Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for Convolutional Neural
    Networks, CVPR 2016; Alam, Anderson, Barabasz and Gregg, Winograd Convolution for Deep Neural Networks: Efficient
    Point Selection, 2022.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair
from jaxup.ops.patches import products, rows_of_block, turned_padding, upright
from jaxup.ops.windows import in_memory

ROWS = (3, 5)  # of kernels
_POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)  # and infinity
_COUNT = len(_POINTS) + 1

Padding = tuple[Pair, Pair]
OneRow = Callable[..., jax.Array]
State = tuple[jax.Array, jax.Array]  # patches, and sums of products


class Transforms(NamedTuple):
    """Each [6, ...]: of m outputs, of the r rows of a kernel, and of 6 rows of pixels."""

    outputs: np.ndarray
    kernel: np.ndarray
    pixels: np.ndarray


@cache
def transforms(rows: int) -> Transforms:
    """A, G and B^T for a kernel of that many rows.

    Row i of B^T has the coefficients of the polynomial that is zero at all points but the i-th. What it is there, G
    divides by.
    """

    def values(degree: int) -> np.ndarray:
        """Of 1, x, x^2, ... at the points; at infinity, the last coefficient."""
        return np.array([[point**k for k in range(degree)] for point in _POINTS] + [[0] * (degree - 1) + [1]], float)

    others = [[q for q in _POINTS if q != point] for point in _POINTS]
    scales = [np.prod([point - q for q in rest]) for point, rest in zip(_POINTS, others, strict=True)]
    pixels = [[*np.poly(rest)[::-1], 0] for rest in others]
    kernel = values(rows) / np.array([*scales, 1])[:, None]
    return Transforms(values(_COUNT + 1 - rows), kernel, np.array([*pixels, np.poly(_POINTS)[::-1]]))


def convolve_by_rows(x: jax.Array, kernel: jax.Array, padding: Padding, one_row: OneRow) -> jax.Array:
    """The convolution [B, H, W, C], [r, k, C, F] -> [B, h, w, F], made of `one_row(plane, [1, k, C, F], padding)`.

    Scratch memory: the planes that the outputs are sums of, 1.5 (r = 3) or 3 (r = 5) times as large as these.
    """
    size, columns = len(kernel), padding[1]
    if max(columns) > kernel.shape[1] // 2:
        x, columns = _pad(x, (0, 0), columns), (0, 0)
    matrices, x = transforms(size), in_memory(x)  # once, and not for each plane
    pixels, taps = _by_six(x, size, padding[0]), [kernel[i : i + 1] for i in range(size)]
    planes = [
        one_row(in_memory(_sum(of_pixels, pixels)), _sum(of_kernel, taps), ((0, 0), columns))
        for of_pixels, of_kernel in zip(matrices.pixels, matrices.kernel, strict=True)
    ]
    y = jnp.stack([_sum(of_output, planes) for of_output in matrices.outputs.T], axis=2)
    y = y.reshape(y.shape[0], y.shape[1] * y.shape[2], *y.shape[3:])
    return y[:, : x.shape[1] + sum(padding[0]) - size + 1]


def to_kernel_by_rows(x: jax.Array, ct: jax.Array, size: Pair, padding: Padding) -> jax.Array:
    """The gradient of the kernel: [B, H, W, C], [B, h, w, F] -> [r, k, C, F], a few rows of pixels at a time.

    The transpose of the above in its kernel: products of patches, as in `by_patches`, of each plane with one of A ct.
    """
    matrices, (rows, columns), (channels, features) = transforms(size[0]), size, (x.shape[3], ct.shape[3])
    step, turned = matrices.outputs.shape[1], features < channels
    width, narrow, wide = (x if turned else ct).shape[2], min(channels, features), max(channels, features)
    count = -(-ct.shape[1] // step)
    back = turned_padding(size, padding)
    x = _filled(x, rows, padding[0], (0, 0) if turned else padding[1])
    ct = _pad(ct, (0, count * step - ct.shape[1]), back[1] if turned else (0, 0))
    of_pixels, of_outputs = (jnp.asarray(matrix, x.dtype) for matrix in (matrices.pixels, matrices.outputs))

    def add(first: Any, block: int, state: State) -> State:
        """The products of `block` times `step` rows of outputs."""
        seen = jax.lax.dynamic_slice_in_dim(x, first * step, block * step + _COUNT - step, axis=1)
        part = jax.lax.dynamic_slice_in_dim(ct, first * step, block * step, axis=1)
        pixels, outputs = _every(seen, step, _COUNT, block), _every(part, step, step, block)

        def plane(i: jax.Array, state: State) -> State:
            a, b = in_memory(_weighed(of_pixels[i], pixels)), in_memory(_weighed(of_outputs[i], outputs))
            patches, more = products(*((b, a) if turned else (a, b)), state[0], (1, columns), None)
            return patches, state[1].at[i].add(more)

        total: State = jax.lax.fori_loop(0, _COUNT, plane, state)
        return total

    block, taps = min(count, rows_of_block(x.shape[0], width)), columns * narrow
    patches = jnp.zeros((x.shape[0], block, width, taps), x.dtype)
    state = patches, jnp.zeros((_COUNT, *((taps, wide) if taps < wide else (wide, taps))), x.dtype)
    state = jax.lax.fori_loop(0, count // block, lambda n, state: add(n * block, block, state), state)
    if rest := count % block:
        state = add(count - rest, rest, (patches[:, :rest], state[1]))
    total = upright(state[1], taps, wide).reshape(_COUNT, columns, narrow, wide)
    total = jnp.swapaxes(total[:, ::-1], 2, 3) if turned else total
    kernel: jax.Array = jnp.tensordot(jnp.asarray(matrices.kernel, x.dtype), total, (0, 0))
    return kernel


def _by_six(x: jax.Array, size: int, padding: Pair) -> list[jax.Array]:
    """The six rows of pixels that each few rows of the output depend on: [B, H, W, C] -> six [B, T, W, C]."""
    step = _COUNT + 1 - size
    count = -(-(x.shape[1] + sum(padding) - size + 1) // step)
    return _every(_filled(x, size, padding), step, _COUNT, count)


def _filled(x: jax.Array, size: int, padding: Pair, columns: Pair = (0, 0)) -> jax.Array:
    """With the zeros around, and as many rows below as the last few outputs need."""
    step = _COUNT + 1 - size
    count = -(-(x.shape[1] + sum(padding) - size + 1) // step)
    below = count * step + size - 1 - x.shape[1] - padding[0]
    return _pad(x, (padding[0], below), columns)


def _pad(x: jax.Array, rows: Pair, columns: Pair) -> jax.Array:
    """With zeros, or less where a number is negative."""
    padded: jax.Array = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    return padded


def _every(x: jax.Array, step: int, first: int, count: int) -> list[jax.Array]:
    """Each `step`-th row, `count` of them, from the first, second, ... on."""
    return [jax.lax.slice_in_dim(x, k, k + (count - 1) * step + 1, step, axis=1) for k in range(first)]


def _weighed(weights: jax.Array, terms: Sequence[jax.Array]) -> jax.Array:
    parts = [weights[k] * term for k, term in enumerate(terms)]
    return sum(parts[1:], parts[0])


def _sum(weights: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    """Those whose weight is not 0, each in its own dtype."""
    used = [(float(w), term) for w, term in zip(weights, terms, strict=True) if w]
    parts = [term if w == 1 else term * jnp.asarray(w, term.dtype) for w, term in used]
    return sum(parts[1:], parts[0])
