"""Helpers of the module tests: random inputs, and modules whose parameters are all away from their initial values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup.interop.keys import flat_variables


def random(*shape: int) -> np.ndarray:
    """Standard normal float32, always the same for a shape."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def randomised(module: nnx.Module, deviation: float = 0.5) -> dict[str, np.ndarray]:
    """Give every parameter of the module random values, and return them by path in float64."""
    source = np.random.default_rng(0)
    state = nnx.state(module, nnx.Param)
    new = jax.tree.map(lambda x: jnp.asarray(x + source.normal(0, deviation, x.shape), x.dtype), state)
    nnx.update(module, new)
    return {path: np.asarray(x[...], np.float64) for path, x in flat_variables(module).items()}


def count(module: nnx.Module) -> int:
    """The number of parameters."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))


def scratch(fn: Any, *shapes: tuple[int, ...], gradients: bool) -> float:
    """Compiled scratch memory of `fn(*arrays)` as a multiple of inputs and outputs, in float32."""

    def run(*xs: jax.Array) -> Any:
        return jax.grad(lambda *ys: jnp.sum(jnp.sin(3 * fn(*ys))), tuple(range(len(xs))))(*xs)

    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    unit = sum(4 * int(np.prod(x.shape)) for x in [*inputs, jax.eval_shape(fn, *inputs)])
    compiled = jax.jit(run if gradients else fn).lower(*inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes / unit
