"""Cubic resampling with steps that do not follow from the sizes."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxup._checks import Pair, accum_dtype
from jaxup.ops.resize import _keys


def resize_in_steps(x: jax.Array, *, size: Pair, steps: tuple[float, ...]) -> jax.Array:
    """Bicubic interpolation (a = -0.75) of [B, h, w, C] at (i + 1/2) step - 1/2, the border continued.

    As `torch.nn.functional.interpolate` with a `scale_factor` of 1 / step that the sizes do not have exactly.
    """
    dtype = accum_dtype(x)
    rows, cols = (jnp.asarray(_matrix(n, m, t), dtype) for n, m, t in zip(x.shape[1:3], size, steps, strict=True))
    precise = jax.lax.Precision.HIGHEST
    y = jnp.einsum("Hh,bhwc->bHwc", rows, x.astype(dtype), precision=precise)
    return jnp.einsum("Ww,bHwc->bHWc", cols, y, precision=precise).astype(x.dtype)


@lru_cache(maxsize=64)
def _matrix(n: int, m: int, step: float) -> np.ndarray:
    """[m, n]: what each of m samples takes from each of n."""
    centre = (np.arange(m) + 0.5) * step - 0.5
    taps = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m)[:, None], taps.clip(0, n - 1)), _keys(taps - centre[:, None], -0.75))
    return matrix
