"""What every module owes its callers, checked on every module of the registry."""

from collections.abc import Callable
from functools import cache
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup import nn
from tests.compare import assert_close, assert_finite
from tests.registry import MODULES, firsts
from tests.registry.examples import ModuleExample, slow, tiered

ROUNDING = 1e-5  # float32, after another order of the same sums, through several layers
SYMBOLIC = [  # upsamplers that can be exported with a symbolic height and width
    "deconvolution",
    "pixel_shuffle",
    "carafe",
    "dysample",
    "max_unpool",
    "indexnet",
    "pac",
]
NOISE = 1e-6  # of the largest gradient: what remains of gradients that vanish identically


def modules(
    *required: str, each: bool = True, families: int = 0, siblings: Any = None, **options: Any
) -> pytest.MarkDecorator:
    """The modules whose constructors have the given options, or by default one of each family, unless `each`.

    `families`: of the last ones of these only, which compile faster than the first.
    `siblings`: the mark of those that are not the first of their family, if it is not the usual one.
    """
    taking = [e for e in MODULES if all(e.takes(name) for name in required)]
    first = firsts(taking)
    rest = [siblings(e) for e in taking if e not in first] if siblings else []
    tiers = tiered(first if siblings else taking, None if each else first[-families:], **options)
    examples = [*tiers, *rest]
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.name)


def total(outputs: Any) -> jax.Array:
    """A loss that weighs every entry of every output differently."""
    return sum(jnp.sum(jnp.sin(3 * y.astype(jnp.float32))) for y in jax.tree.leaves(outputs))


@cache
def with_gradients(graph: Any) -> Callable[..., Any]:
    """The outputs, and the gradients with respect to the parameters and all inputs."""

    def loss(params: Any, rest: Any, *inputs: jax.Array) -> tuple[jax.Array, Any]:
        outputs = nnx.merge(graph, params, rest, copy=True)(*inputs)
        return total(outputs), outputs

    def run(params: Any, rest: Any, *inputs: jax.Array) -> tuple[jax.Array, Any]:
        wrt = (0, *range(2, 2 + len(inputs)))
        gradients, outputs = jax.grad(loss, argnums=wrt, has_aux=True)(params, rest, *inputs)
        return outputs, gradients

    return jax.jit(run)


@cache
def forward(graph: Any) -> Callable[..., Any]:
    """The outputs from a split module."""
    return jax.jit(lambda state, *inputs: nnx.merge(graph, state, copy=True)(*inputs))


@cache
def reference(example: ModuleExample) -> Any:
    """The outputs and the gradients of a new module, by the one program that most tests compare with."""
    graph, params, rest = nnx.split(example.make(), nnx.Param, ...)
    return with_gradients(graph)(params, rest, *example.inputs())


@modules("rngs", each=False, families=3, siblings=slow)
def test_parameters_depend_on_rngs_only(example):
    params = [nnx.state(example.build(rngs=nnx.Rngs(seed)), nnx.Param) for seed in (0, 0, 1)]
    chex.assert_trees_all_equal(params[0], params[1])
    chex.assert_type(jax.tree.leaves(params[0]), jnp.float32)
    if jax.tree.leaves(params[0]):
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(params[0], params[2])


@modules(each=False, families=3, siblings=slow)
@pytest.mark.parametrize("jit", [jax.jit, slow(nnx.jit)], ids=["jax", "nnx"])
@pytest.mark.first(1)
def test_jit_of_the_module(example, jit):
    assert_close(jit(lambda m, *xs: m(*xs))(example.make(), *example.inputs()), reference(example)[0], ROUNDING)


@pytest.mark.slow  # examples in docstrings run without jit, too
@modules()
def test_jit_equals_eager(example):
    assert_close(example.make()(*example.inputs()), reference(example)[0], ROUNDING)


@modules("rngs", each=False)
def test_every_parameter_is_used(example):
    for path, gradient in nnx.to_flat_state(reference(example)[1][0]):
        assert jnp.any(gradient[...] != 0), f"no gradient reaches {path}"


@pytest.mark.slow
@modules("rngs")
def test_nnx_grad(example):
    """`nnx.grad` agrees with `jax.grad` of the split module."""
    module, inputs = example.make(), example.inputs()
    gradients = nnx.jit(nnx.grad(lambda m: total(m(*inputs))))(module)
    assert_close(jax.tree.leaves(gradients), jax.tree.leaves(reference(example)[1][0]), ROUNDING, NOISE)


@modules("dtype", each=False, families=4)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, slow(jnp.float16)], ids=["bfloat16", "float16"])
@pytest.mark.first(1)
def test_half_precision(example, dtype):
    """Parameters and their gradients stay float32 while the computation is done in `dtype`."""
    module, inputs = example.make(dtype=dtype), example.inputs(dtype=dtype)
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    output, gradients = with_gradients(graph)(params, rest, *inputs)
    chex.assert_type(jax.tree.leaves((output, gradients[1:])), dtype)
    chex.assert_type(jax.tree.leaves((params, gradients[0])), jnp.float32)
    assert_finite((output, gradients))
    graph, params, rest = nnx.split(example.make(), nnx.Param, ...)
    assert_close(output, with_gradients(graph)(params, rest, *[x.astype(jnp.float32) for x in inputs])[0], 3e-2)


@modules(each=False, rest=slow)
def test_empty_batch(example):
    module = example.make()
    module.eval()  # an empty batch has no statistics
    graph, state = nnx.split(module)
    outputs = forward(graph)(state, *example.inputs(batch=0))
    full = jax.eval_shape(forward(graph), state, *example.inputs())
    for empty, y in zip(jax.tree.leaves(outputs), jax.tree.leaves(full), strict=True):
        assert empty.shape == (0, *y.shape[1:])


@modules(each=False, rest=slow, families=4)
@pytest.mark.parametrize("grid", [(1, 1), slow((1, 5))], ids=["pixel", "line"])
def test_one_pixel_and_one_line(example, grid):
    graph, state = nnx.split(example.make())
    assert_finite(forward(graph)(state, *example.inputs(grid=grid)))


@modules(each=False, families=3, siblings=slow)
@pytest.mark.first(1)
def test_linen_view(example):
    """`nnx.bridge.to_linen` has the same parameter tree and, given the same parameters, the same output."""
    module, inputs = example.make(), example.inputs()
    linen = nnx.bridge.to_linen(example.build)
    if not example.takes("rngs"):
        linen = linen.clone(skip_rng=True)
    variables = jax.jit(linen.init)(jax.random.key(0), *example.inputs(batch=0))  # a short program
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    if params:
        chex.assert_trees_all_equal_shapes(variables["params"], params)
        variables = {**variables, "params": params}
    apply = jax.jit(lambda variables, *xs: linen.apply(variables, *xs, mutable=True)[0])  # BatchNorm's statistics move
    assert_close(apply(variables, *inputs), reference(example)[0], ROUNDING)


@pytest.mark.thorough
@pytest.mark.parametrize("name", nn.UPSAMPLERS)
def test_export(name):
    """To other runtimes, with any batch; with any height and width, or an error that says what has to be known."""
    entry, guide = nn.UPSAMPLERS[name], 32
    up = nn.make_upsampler(name, in_features=32, guide_features=guide, scale=2, rngs=nnx.Rngs(0))
    up.eval()

    def export(batch, height, width):
        shapes = [(batch, height, width, 32)] + [(batch, 2 * height, 2 * width, guide)] * entry.guided
        xs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        (out,) = jax.export.export(jax.jit(lambda *xs: up(*xs)))(*xs).out_avals
        assert out.shape == (batch, 2 * height, 2 * width, 32)

    batch, height, width = jax.export.symbolic_shape("b, h, w")
    if name in SYMBOLIC:
        export(batch, height, width)
    else:
        export(batch, 4, 3)
        with pytest.raises(ValueError, match=r"^\w+: expected a height and width that are known .*, got .*h, .*w"):
            export(batch, height, width)


@pytest.mark.thorough
@modules(each=False, rest=slow)
@pytest.mark.parametrize("axis_type", [slow(AxisType.Auto), AxisType.Explicit], ids=["Auto", "Explicit"])
def test_data_parallel(example, axis_type):
    """Batch sharded, parameters replicated: the same output, sharded, and the same gradients."""
    if jax.device_count() < 4:
        pytest.skip("needs four devices: run on the CPU, or where there are four")
    inputs = example.inputs()
    graph, params, rest = nnx.split(example.make(), nnx.Param, ...)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    by_batch, replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        state = jax.device_put((params, rest), replicated)
        placed = (*state, *jax.device_put(inputs, by_batch))
        sharded = with_gradients(graph).lower(*placed).compile()
        outputs, gradients = sharded(*placed)
    assert "all-gather" not in sharded.as_text(), "a part of the computation was gathered on every device"
    assert_close(jax.device_get((outputs, gradients)), jax.device_get(reference(example)), ROUNDING, NOISE)
    for y in jax.tree.leaves(outputs):
        assert y.sharding.is_equivalent_to(by_batch, y.ndim), "the output was gathered on one device"
