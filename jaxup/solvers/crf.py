"""The fully connected CRF: labels that agree between pixels near in space and alike in colour, by mean field."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import accum_dtype, check_choice, check_image, check_int, check_rank, fail, jit
from jaxup.ops.filters import Number, check_guide, check_scalar
from jaxup.solvers.permutohedral import lattice_sum, make_lattice

METHODS = ("lattice", "exact")
_BLOCK = 2**22  # pairs of pixels at a time

Sums = Callable[[jax.Array], jax.Array]  # [N, K] -> [N, K]


def dense_crf(
    x: jax.Array,
    guide: jax.Array,
    *,
    iterations: int = 10,
    bilateral_weight: Number = 4.0,
    sigma_spatial: Number = 67.0,
    sigma_colour: Number = 3 / 255,
    smooth_weight: Number = 3.0,
    sigma_smooth: Number = 1.0,
    method: str = "lattice",
) -> jax.Array:
    r"""Probabilities of labels after mean field in a fully connected CRF with Gaussian potentials.

        Q_i <- softmax_l(x_i(l) + sum_m w_m sum_j K^m_ij Q_j(l)),    Q = softmax(x) at first, all pixels at once

        K^1_ij = exp(-|p_i - p_j|^2 / (2 sigma_spatial^2) - |I_i - I_j|^2 / (2 sigma_colour^2))
        K^2_ij = exp(-|p_i - p_j|^2 / (2 sigma_smooth^2))

    over all pixels j of the image, i itself included, where two labels that differ cost w_m (Potts), p is a position,
    and I the guide. Each K is divided by sqrt(sum_j K_ij) of both of its pixels, so that weights do not depend on the
    size of the image. There is no stopping rule: mean field of all pixels at once need not converge.

    `method`: "exact" forms all pairs of K^1, as many at a time as fit into 16 MiB, and takes time that grows with the
    square of the pixels; "lattice" sums them on the permutohedral lattice, in time and memory proportional to the
    pixels, with a kernel that differs from the Gaussian by some per cent. K^2 is exact with both. Differentiable in all
    arrays and numbers, in the guide and sigmas of the lattice almost everywhere.

    Args:
        x: logits of the labels, [B, H, W, K].
        guide: [B, H, W, C], from 0 to 1.
        iterations: how many, 0 for softmax(x).
        bilateral_weight: w_1, at least 0.
        sigma_spatial: in pixels, > 0.
        sigma_colour: in the guide's unit, > 0.
        smooth_weight: w_2, at least 0.
        sigma_smooth: in pixels, > 0.
        method: "lattice" or "exact".

    Returns:
        Q [B, H, W, K] in the dtype of x; computed in float32, or float64 if an input is. A NaN spoils its whole image.

    Raises:
        ValueError: maps whose shapes do not fit, or an option out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> guide = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 6, 1)
        >>> x = jnp.array([3.0, -0.5, 3.0, -3.0, 0.5, -3.0]).reshape(1, 1, 6, 1)
        >>> (dense_crf(jnp.concatenate([x, -x], axis=3), guide, method="exact")[0, 0, :, 0] > 0.5).tolist()
        [True, True, True, False, False, False]

    Reference:
        Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011,
        whose Eq. (4) leaves i itself out of the sums; their code does not, and normalises. The numbers of the options
        are those published with DeepLab-v2 on ResNet-101.
    """
    check_image("x", x)
    check_guide(guide, x.shape[:3])
    check_choice("method", method, METHODS)
    for name, value in dict(sigma_spatial=sigma_spatial, sigma_colour=sigma_colour, sigma_smooth=sigma_smooth).items():
        check_scalar(name, value)
    for name, value in dict[str, Any](bilateral_weight=bilateral_weight, smooth_weight=smooth_weight).items():
        check_rank(name, value, 0)
        if not isinstance(value, jax.core.Tracer) and not value >= 0:
            fail(name, "a number >= 0", repr(value))
    dtype = accum_dtype(x, guide)
    options = (bilateral_weight, sigma_spatial, sigma_colour, smooth_weight, sigma_smooth)
    return _mean_field(
        x.astype(dtype),
        guide.astype(dtype),
        tuple(jnp.asarray(option, dtype) for option in options),
        check_int("iterations", iterations, 0),
        method,
    ).astype(jnp.result_type(x))


@jit(static_argnums=(3, 4))
def _mean_field(
    x: jax.Array, guide: jax.Array, options: tuple[jax.Array, ...], iterations: int, method: str
) -> jax.Array:
    bilateral_weight, sigma_spatial, sigma_colour, smooth_weight, sigma_smooth = options

    def one(x: jax.Array, guide: jax.Array) -> jax.Array:
        height, width, labels = x.shape
        rows, columns = jnp.indices((height, width), x.dtype)
        place = jnp.stack([rows, columns], axis=2) / sigma_spatial
        points = jnp.concatenate([place, guide / sigma_colour], axis=2).reshape(height * width, -1)
        alike = _normalised(_lattice_sums(points) if method == "lattice" else _exact_sums(points), len(points), x.dtype)
        near = _normalised(_smooth_sums(height, width, sigma_smooth), len(points), x.dtype)
        logits = x.reshape(-1, labels)

        def step(_: int, q: jax.Array) -> jax.Array:
            return jax.nn.softmax(logits + bilateral_weight * alike(q) + smooth_weight * near(q), axis=1)

        q: jax.Array = jax.lax.fori_loop(0, iterations, step, jax.nn.softmax(logits, axis=1))
        return q.reshape(x.shape)

    return jax.vmap(one)(x, guide)


def _normalised(sums: Sums, pixels: int, dtype: Any) -> Sums:
    """Those of K_ij / sqrt(sum_k K_ik  sum_k K_jk)."""
    scaling = jax.lax.rsqrt(jnp.maximum(sums(jnp.ones((pixels, 1), dtype)), np.finfo(dtype).tiny))
    return lambda q: scaling * sums(scaling * q)


def _lattice_sums(points: jax.Array) -> Sums:
    lattice = make_lattice(points)
    return lambda q: lattice_sum(lattice, q)


def _exact_sums(points: jax.Array) -> Sums:
    rows = min(len(points), max(1, _BLOCK // len(points)))

    @jax.checkpoint
    def row(q: jax.Array, point: jax.Array) -> jax.Array:
        return jnp.matmul(jnp.exp(-0.5 * jnp.sum((points - point[None]) ** 2, axis=1)), q, precision="highest")

    return lambda q: jax.lax.map(partial(row, q), points, batch_size=rows)


def _smooth_sums(height: int, width: int, sigma: jax.Array) -> Sums:
    """One matrix for each axis."""
    down, right = (
        jnp.exp(-0.5 * ((n[:, None] - n[None]) / sigma) ** 2)
        for n in (jnp.arange(length, dtype=sigma.dtype) for length in (height, width))
    )

    def sums(q: jax.Array) -> jax.Array:
        image = q.reshape(height, width, -1)
        return jnp.einsum("ih,hwk,jw->ijk", down, image, right, precision="highest").reshape(q.shape)

    return sums
