"""Helpers of the module tests: random inputs, and modules whose parameters are all away from their initial values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup.interop.backbones import Shapes
from jaxup.interop.keys import flat_variables


def random(*shape: int) -> np.ndarray:
    """Standard normal float32, always the same for a shape."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def on_device(x: np.ndarray, dtype: Any) -> jax.Array:
    """As `jnp.asarray`, which compiles a program for each shape."""
    return jax.device_put(x.astype(dtype))


def randomised(module: nnx.Module, deviation: float = 0.5) -> dict[str, np.ndarray]:
    """Give every parameter of the module random values, and return them by path in float64."""
    source = np.random.default_rng(0)
    state = nnx.state(module, nnx.Param)
    new = jax.tree.map(lambda x: on_device(np.asarray(x) + source.normal(0, deviation, x.shape), x.dtype), state)
    nnx.update(module, new)
    return {path: np.asarray(x[...], np.float64) for path, x in flat_variables(module).items()}


def abstract(build: Any, *args: Any, **options: Any) -> Any:
    """The module without its arrays: enough to count parameters, and for the checks of arguments."""
    return nnx.eval_shape(lambda: build(*args, **options, rngs=Shapes()))


def initial(build: Any, *args: Any, **options: Any) -> Any:
    """The module with its own initial values."""
    return build(*args, **options, rngs=nnx.Rngs(0))


def drawn(build: Any, *args: Any, deviation: float = 0.5, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The module with normal parameters, factors around 1, and these by path in float64: nothing compiles."""
    graph, state = nnx.split(abstract(build, *args, **options))
    factors = ("scale", "var", "sigma", "periods")
    one = lambda path: float(path[-2].key in factors)  # noqa: E731  # path[-1] is the value of the variable
    values = jax.tree_util.tree_map_with_path(lambda path, x: on_device(np.full(x.shape, one(path)), x.dtype), state)
    module = nnx.merge(graph, values)
    return module, randomised(module, deviation)


def filled(build: Any, seed: int = 0) -> Any:
    """The module that a function builds, with random arrays above 0; its own initial values take seconds to compile."""
    graph, state = nnx.split(nnx.eval_shape(build))
    draw = np.random.default_rng(seed).uniform
    return nnx.merge(graph, jax.tree.map(lambda x: on_device(draw(0.1, 1, x.shape), x.dtype), state))


@nnx.jit
def call(module: nnx.Module, *inputs: Any) -> Any:
    """The module's outputs, by one compiled program instead of one per operation."""
    return module(*inputs)


def count(module: nnx.Module) -> int:
    """The number of parameters."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))


def multiply_adds(network: nnx.Module, shape: tuple[int, ...]) -> int:
    """Products of convolutions and matrices in evaluation, those with padding included, as papers count them."""
    network.eval()
    for _, node in nnx.iter_graph(network):
        if isinstance(node, nnx.Conv):  # depthwise ones have another function, of sums of products
            node.conv_general_dilated = jax.lax.conv_general_dilated
    graph, state = nnx.split(network)
    run = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))
    return _products(run(state, jax.ShapeDtypeStruct(shape, jnp.float32)).jaxpr)


def _products(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inputs, output = [x.aval for x in equation.invars], equation.outvars[0].aval
        if equation.primitive.name == "conv_general_dilated":
            total += output.size * int(np.prod(inputs[1].shape[:3]))
        elif equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            total += output.size * int(np.prod([inputs[0].shape[axis] for axis in contracted]))
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                total += _products(getattr(inner, "jaxpr", inner))
    return total


def scratch(fn: Any, *shapes: tuple[int, ...], gradients: bool) -> float:
    """Compiled scratch memory of `fn(*arrays)` as a multiple of inputs and outputs, in float32."""

    def run(*xs: jax.Array) -> Any:
        return jax.grad(lambda *ys: jnp.sum(jnp.sin(3 * fn(*ys))), tuple(range(len(xs))))(*xs)

    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    unit = sum(4 * int(np.prod(x.shape)) for x in [*inputs, jax.eval_shape(fn, *inputs)])
    compiled = jax.jit(run if gradients else fn).lower(*inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes / unit


def check_reach(network: Any, scale: int) -> None:
    """What lies beyond `network.reach(scale)` low-resolution pixels changes nothing, and what is much nearer does."""
    randomised(network)
    reach = network.reach(scale)
    length, run = 2 * reach + 8, jax.jit(lambda x, guide: network(x, guide))
    x, guide = random(1, length, 2, 1), random(1, scale * length, 2 * scale, 3)
    out = run(x, guide)
    bound = 1e-5 * np.abs(out).max()
    for middle in range(reach + 1, reach + 5):  # also where cells of several pixels lie differently
        for kept, same in ((reach, True), (reach // 4, False)):
            inside, cell = slice(middle - kept, middle + kept + 1), slice(scale * middle, scale * (middle + 1))
            fine, changed_x, changed_guide = slice(scale * inside.start, scale * inside.stop), 1 - x, 1 - guide
            changed_x[:, inside], changed_guide[:, fine] = x[:, inside], guide[:, fine]
            difference = np.abs(run(changed_x, changed_guide)[:, cell] - out[:, cell]).max()
            assert (difference <= bound) == same
