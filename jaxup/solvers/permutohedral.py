"""Gaussian sums over points of many dimensions, on the permutohedral lattice.

The lattice lies in the hyperplane of d + 1 coordinates with sum 0 and cuts it into equal simplices. A point spreads its
value over the d + 1 vertices of its simplex by its barycentric coordinates, vertices are blurred with (1/2, 1, 1/2)
along each of d + 1 directions, and a point collects from its vertices. Only vertices that some point has exist.

Reference:
    Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Odd numbers without a pattern: two sums of products with them tell vertices apart. Two of a million vertices have the
# same pair with a probability below 1e-7.
_FACTORS = np.random.RandomState(0).randint(0, 2**31, (2, 64)).astype(np.uint32) * np.uint32(2) + np.uint32(1)
_LAST = np.uint32(2**32 - 1)


class Lattice(NamedTuple):
    """Where N points lie among M = N (d + 1) vertices, of which those that are used come first."""

    vertex: jax.Array  # [N, d + 1], the vertices around each point
    weight: jax.Array  # [N, d + 1], its barycentric coordinates
    neighbours: jax.Array  # [d + 1, 2, M], in front of and behind each vertex; M where there is none


def make_lattice(points: jax.Array) -> Lattice:
    """The lattice of points [N, d], on which a Gaussian of deviation 1 is blurred; d is at most 63."""
    count, dimensions = points.shape
    weight, keys = _simplex(points)
    hashes = [jnp.sum(keys * _FACTORS[None, i, None, :dimensions], axis=2, dtype=jnp.uint32).ravel() for i in (0, 1)]
    vertices, vertex = _distinct(*hashes)
    neighbours = jax.lax.map(partial(_along, vertices), jnp.asarray(_steps(dimensions)))
    return Lattice(vertex.reshape(count, dimensions + 1), weight, neighbours)


def lattice_sum(lattice: Lattice, values: jax.Array) -> jax.Array:
    """The Gaussian sums of values [N, C] at all points, up to a factor that is the same for all."""
    vertex, weight, neighbours = lattice
    y = jnp.zeros((neighbours.shape[2], values.shape[1]), values.dtype)
    for k in range(vertex.shape[1]):
        y = y.at[vertex[:, k]].add(weight[:, k, None] * values)

    def blur(y: jax.Array, around: jax.Array) -> tuple[jax.Array, None]:
        near = sum((y.at[index].get(mode="fill", fill_value=0) for index in around), jnp.zeros_like(y))
        return y + 0.5 * near, None

    y, _ = jax.lax.scan(blur, y, neighbours)
    return sum((weight[:, k, None] * y[vertex[:, k]] for k in range(vertex.shape[1])), jnp.zeros_like(values))


def _simplex(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Barycentric coordinates of points [N, d], and their vertices [N, d + 1, d], without the last coordinate.

    Vertex k has coordinates that all leave the remainder k when they are divided by d + 1.
    """
    last = points.shape[1]
    elevated = jnp.matmul(points, jnp.asarray(_basis(last), points.dtype), precision="highest")
    near = jnp.round(elevated / (last + 1))
    # The i-th largest difference has rank i; what the rounded point lacks to the sum 0 turns the ranks round.
    order = jnp.argsort(jnp.argsort(near * (last + 1) - elevated, axis=1, stable=True), axis=1)
    rank = order.astype(jnp.int32) + jnp.sum(near, axis=1, keepdims=True).astype(jnp.int32)
    turns = -(rank // (last + 1))
    near, rank = near + turns.astype(near.dtype), rank + turns * (last + 1)
    steps = jnp.take_along_axis(elevated / (last + 1) - near, jnp.argsort(rank, axis=1), axis=1)
    weight = jnp.concatenate([1 + steps[:, last:] - steps[:, :1], steps[:, last - 1 :: -1] - steps[:, :0:-1]], axis=1)
    remainder = np.arange(last + 1, dtype=np.int32)[:, None]
    wrapped = rank[:, None, :last] > last - remainder[None]
    nearest = near[:, None, :last].astype(jnp.int32) * (last + 1)
    keys = nearest + remainder[None] - jnp.where(wrapped, last + 1, 0).astype(jnp.int32)
    return weight, keys.astype(jnp.uint32)


def _basis(dimensions: int) -> np.ndarray:
    """Orthogonal axes of the hyperplane, [d, d + 1], of such a length that the blur has deviation 1 along each."""
    rows = np.tri(dimensions, dimensions + 1)
    rows[np.arange(dimensions), np.arange(1, dimensions + 1)] = -np.arange(1, dimensions + 1)
    basis: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True) * (dimensions + 1) * math.sqrt(2 / 3)
    return basis


def _distinct(first: jax.Array, second: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """The distinct pairs in ascending order, behind them the largest pair; and the place of each among them."""
    first, second, origin = jax.lax.sort((first, second, jnp.arange(len(first), dtype=jnp.int32)), num_keys=2)
    differs = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    place = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(differs, dtype=jnp.int32)])
    unused = jnp.full_like(first, _LAST)
    vertices = unused.at[place].set(first), unused.at[place].set(second)
    return vertices, jnp.zeros_like(place).at[origin].set(place)


def _steps(dimensions: int) -> np.ndarray:
    """What the sums of products of a vertex change by along each of the directions, [d + 1, 2].

    The step adds 1 to every coordinate and takes d + 1 from one, of which the last is not kept.
    """
    steps = 1 - (dimensions + 1) * np.eye(dimensions + 1, dimensions, dtype=np.int64)
    sums: np.ndarray = (steps.astype(object) @ _FACTORS[:, :dimensions].astype(object).T % 2**32).astype(np.uint32)
    return sums


def _along(vertices: tuple[jax.Array, jax.Array], step: jax.Array) -> jax.Array:
    """The neighbours [2, M] of vertices in one of the directions."""
    size = len(vertices[0])
    used = (vertices[0] != _LAST) | (vertices[1] != _LAST)
    ahead = jnp.where(used, _find(vertices, vertices[0] + step[0], vertices[1] + step[1]), size)
    places = jnp.arange(size, dtype=jnp.int32)
    behind = jnp.full_like(ahead, size).at[ahead].set(places, mode="drop")
    return jnp.stack([ahead, behind])


def _find(vertices: tuple[jax.Array, jax.Array], first: jax.Array, second: jax.Array) -> jax.Array:
    """Where pairs stand among ascending ones; their number for those that do not."""
    size = len(vertices[0])

    def halve(_: int, span: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = span
        middle = (low + high) // 2
        a, b = (v.at[middle].get(mode="clip") for v in vertices)
        less = (low < high) & ((a < first) | ((a == first) & (b < second)))
        return jnp.where(less, middle + 1, low), jnp.where(less, high, middle)

    start = jnp.zeros(first.shape, jnp.int32), jnp.full(first.shape, size, jnp.int32)
    at, _ = jax.lax.fori_loop(0, size.bit_length(), halve, start)
    a, b = (v.at[at].get(mode="clip") for v in vertices)
    return jnp.where((a == first) & (b == second), jnp.minimum(at, size - 1), size)
