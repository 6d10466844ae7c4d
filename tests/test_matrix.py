"""What every operator owes its callers, checked on every example of the registry.

Most tests run the operator together with its gradients: a hand-written VJP has to survive `vmap`, sharding
and 16-bit inputs as well as the forward pass does.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxup._checks import accum_dtype
from tests.compare import assert_close, assert_finite
from tests.registry import EXAMPLES, Example, firsts
from tests.registry.examples import marked, slow, thorough, tiered

ROUNDING = 2e-6  # float32, after another order of the same sums
GRADIENTS = 1e-4  # likewise; a gradient may be a small difference of large sums


def examples(quick: list[Example] | None = None) -> pytest.MarkDecorator:
    """All examples; by default only the quick ones, where they are given."""
    return pytest.mark.parametrize("example", tiered(EXAMPLES, quick), ids=lambda example: example.name)


each_operator = examples()
one_of_a_family = examples(firsts(EXAMPLES))  # by default; the others in the thorough tests
# Likewise, but the first three take seconds to compile each time.
LARGE = ("attention_upsample", "deformable_average", "fine_neighbour_attention")
QUICK = [e for e in firsts(EXAMPLES) if e.name not in LARGE]
the_others_by_night = pytest.mark.parametrize(
    "example", marked(EXAMPLES, QUICK, [e for e in EXAMPLES if e not in firsts(EXAMPLES)]), ids=lambda e: e.name
)


def differentiable(example: Example, inputs: tuple[jax.Array, ...]) -> tuple[int, ...]:
    return tuple(range(len(inputs))) if example.differentiable is None else example.differentiable


def with_gradients(example: Example) -> Callable[..., Any]:
    """The outputs, and the gradients of a loss that weighs every output entry differently."""

    def loss(*inputs: jax.Array) -> tuple[jax.Array, Any]:
        outputs = example.fn(*inputs)
        leaves = [y.astype(accum_dtype(y)) for y in jax.tree.leaves(outputs)]
        return sum(jnp.sum(jnp.sin(3 * y)) for y in leaves), outputs

    def run(*inputs: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
        gradients, outputs = jax.grad(loss, argnums=differentiable(example, inputs), has_aux=True)(*inputs)
        return outputs, gradients

    return run


@cache
def compiled(example: Example) -> Callable[..., Any]:
    """One jitted function per example, so that tests with the same shapes share one compilation."""
    return jax.jit(with_gradients(example))


@the_others_by_night
@pytest.mark.first(2)
def test_jit_equals_eager(example):
    inputs = example.inputs()
    assert_close(compiled(example)(*inputs)[0], example.fn(*inputs), ROUNDING)


@the_others_by_night
@pytest.mark.first(2)
def test_vmap_equals_batch(example):
    inputs = example.inputs()
    count = len(example.inputs.images(1, 1))
    axes = [0 if i < count else None for i in range(len(inputs))]

    def one(*inputs: jax.Array) -> Any:
        outputs, gradients = with_gradients(example)(*[x[None] if i < count else x for i, x in enumerate(inputs)])
        positions = differentiable(example, inputs)
        gradients = tuple(g[0] if i < count else g for i, g in zip(positions, gradients, strict=True))
        return jax.tree.map(lambda y: y[0], outputs), gradients

    outputs, gradients = jax.jit(jax.vmap(one, in_axes=axes))(*inputs)
    expected = compiled(example)(*inputs)
    positions = differentiable(example, inputs)
    gradients = tuple(g if i < count else g.sum(0) for i, g in zip(positions, gradients, strict=True))
    assert_close(outputs, expected[0], ROUNDING)
    assert_close(gradients, expected[1], GRADIENTS)


@each_operator
@pytest.mark.first(9)
def test_gradients(example):
    """The change of the loss along a random direction, by central differences of the program in double precision."""
    with jax.enable_x64(True):
        inputs = example.inputs(dtype=jnp.float64)
        random, positions = np.random.default_rng(1), differentiable(example, inputs)
        direction = {i: random.choice([-1.0, 1.0], inputs[i].shape) for i in positions}

        def loss(step: float) -> float:
            moved = [x + step * direction[i] if i in direction else x for i, x in enumerate(inputs)]
            return sum(np.sum(np.sin(3 * np.asarray(y))) for y in jax.tree.leaves(compiled(example)(*moved)[0]))

        gradients, numeric = compiled(example)(*inputs)[1], (loss(1e-6) - loss(-1e-6)) / 2e-6
    terms = [np.asarray(g) * direction[i] for i, g in zip(positions, gradients, strict=True)]
    analytic = sum(term.sum() for term in terms)
    assert abs(numeric - analytic) <= 1e-7 * sum(np.abs(term).sum() for term in terms)


@one_of_a_family
@pytest.mark.parametrize("dtype", [jnp.bfloat16, slow(jnp.float16)], ids=["bfloat16", "float16"])
@pytest.mark.first(3)
def test_half_precision(example, dtype):
    inputs = example.inputs(dtype=dtype)
    outputs, gradients = compiled(example)(*inputs)
    chex.assert_type(jax.tree.leaves((outputs, gradients)), dtype)
    assert_finite((outputs, gradients))
    expected = compiled(example)(*[x.astype(jnp.float32) for x in inputs])
    assert_close(outputs, expected[0], 2e-2)


FAR = ["pac_conv_transpose", "fine_neighbour_attention", "reassemble_reflect", "gaussian_filter", "attention_upsample"]


@pytest.mark.parametrize("example", [thorough(e) if e.name in FAR else slow(e) for e in EXAMPLES], ids=lambda e: e.name)
def test_float16_gradients_of_large_values(example):
    """Finite wherever the true gradient fits float16, and near it: nothing inside may exceed 16 bits."""
    inputs = [jnp.asarray(100 * x, jnp.float16) for x in example.inputs(batch=1)]
    positions = differentiable(example, tuple(inputs))

    @jax.jit
    def gradients(size: jax.Array, *inputs: jax.Array) -> tuple[jax.Array, ...]:
        def loss(*inputs: jax.Array) -> jax.Array:
            leaves = [y.astype(jnp.float32) for y in jax.tree.leaves(example.fn(*inputs))]
            # Numbers of a few bits, which float16 holds as they are.
            signs = [jnp.round(8 * jnp.cos(jnp.arange(y.size, dtype=jnp.float32))).reshape(y.shape) for y in leaves]
            return size * sum(jnp.sum(y * sign) for y, sign in zip(leaves, signs, strict=True))

        return jax.grad(loss, positions)(*inputs)

    for size in (0.125, 16.0, 1024.0, 4096.0):
        half = gradients(size, *inputs)
        for actual, expected in zip(half, gradients(size, *[x.astype(jnp.float32) for x in inputs]), strict=True):
            a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
            fits = np.abs(b) < 65000
            assert np.all(np.isfinite(a[fits]))
            bound = 1e-3 * np.max(np.abs(b[fits]), initial=0) + 1e-6
            assert np.all(np.abs(a - b)[fits] <= bound), f"{np.max(np.abs(a - b)[fits]):.3g} > {bound:.3g}"


@the_others_by_night
def test_double_precision(example):
    """float64 is computed in float64, and float32 stays what it is where x64 is enabled."""
    single = compiled(example)(*example.inputs())
    with jax.enable_x64(True):
        outputs, gradients = double = compiled(example)(*example.inputs(dtype=jnp.float64))
        chex.assert_type(jax.tree.leaves(double), jnp.float64)
        for dtype, other in [(jnp.float64, r"f32\[\d"), (jnp.float32, r"f64\[\d")]:  # no array of the other kind
            jaxpr = jax.make_jaxpr(with_gradients(example))(*example.inputs(dtype=dtype))
            assert not re.search(other, str(jaxpr)), f"{other} appears in the computation in {dtype.__name__}"
    assert_close(single[0], outputs, 1e-5)
    assert_close(single[1], gradients, GRADIENTS)


@the_others_by_night
def test_second_eager_call_compiles_nothing(example):
    """An operator that makes a closure for a loop or a `jit` anew would compile at every call."""
    inputs, events = example.inputs(), []

    def listen(event: str, duration: float, **_: Any) -> None:
        events.append(event)

    jax.block_until_ready(example.fn(*inputs))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(example.fn(*inputs))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert [event for event in events if "backend_compile" in event] == []


@the_others_by_night
def test_deterministic(example):
    inputs, fn = example.inputs(), compiled(example)
    chex.assert_trees_all_equal(fn(*inputs), fn(*inputs))


@the_others_by_night
@pytest.mark.first(2)
def test_empty_batch(example):
    inputs = example.inputs(batch=0)
    outputs, gradients = compiled(example)(*inputs)
    for empty, full in zip(
        jax.tree.leaves(outputs), jax.tree.leaves(jax.eval_shape(example.fn, *example.inputs())), strict=True
    ):
        assert empty.shape == (0, *full.shape[1:])
    assert_finite(gradients)


BAD = {
    "list": lambda x: x.tolist(),
    "big-endian": lambda x: x.astype(">f4"),
    "integers": lambda x: np.zeros(x.shape, np.int32),
    "objects": lambda x: x.astype(object),
    "complex": lambda x: x.astype(np.complex64),
    "another rank": lambda x: x[None],
    "nothing": lambda x: None,
}


@each_operator
def test_bad_arrays(example):
    """A ValueError that names the argument: while tracing, so that nothing is compiled here."""
    inputs = [np.asarray(x) for x in example.inputs(batch=1)]
    for i in range(1 if example.name == "max_unpool" else len(inputs)):  # whose example adds its second argument itself
        for kind, change in BAD.items():
            if kind in ("integers", "list") and inputs[i].ndim == 0:
                continue  # a number may be an integer, and none is a list
            changed = [change(x) if i == n else x for n, x in enumerate(inputs)]
            with pytest.raises(ValueError, match=r"^[\w\[\] ]+: expected .*, got "):
                jax.eval_shape(lambda changed=changed: example.fn(*changed))
    if example.name in ("box_coding", "paste_masks"):
        return  # of no box, which may be
    with pytest.raises(ValueError, match=r"^\w+: expected at least one pixel, got shape \(1, 0, "):
        jax.eval_shape(lambda: example.fn(*example.inputs(batch=1, grid=(0, 4))))


@each_operator
def test_numpy_arrays(example):
    """NumPy's own arrays give what JAX's give, those in float64 too, which count as float32 without x64."""
    inputs = [np.asarray(x) for x in example.inputs()]
    expected = jax.eval_shape(example.fn, *inputs)
    for dtype in (np.float32, np.float64):
        given = [x.astype(dtype) for x in inputs]
        chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(lambda given=given: example.fn(*given)), expected)


@the_others_by_night
@pytest.mark.first(2)
def test_one_pixel(example):
    outputs, gradients = compiled(example)(*example.inputs(grid=(1, 1)))
    assert all(y.size for y in jax.tree.leaves(outputs))
    assert_finite((outputs, gradients))


@the_others_by_night
@pytest.mark.parametrize("axis_type", [slow(AxisType.Auto), AxisType.Explicit], ids=["Auto", "Explicit"])
@pytest.mark.first(2)
def test_sharded_batch(example, axis_type):
    if jax.device_count() < 4:
        pytest.skip("needs four devices: run on the CPU, or where there are four")
    inputs, count = example.inputs(), len(example.inputs.images(1, 1))
    expected = compiled(example)(*inputs)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    by_batch, replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, by_batch if i < count else replicated) for i, x in enumerate(inputs)]
        run = compiled(example).lower(*placed).compile()
        actual = run(*placed)
    assert "all-gather" not in run.as_text(), "a part of the computation was gathered on every device"
    assert_close(actual[0], expected[0], ROUNDING)
    assert_close(actual[1], expected[1], GRADIENTS)
    for y in jax.tree.leaves(actual[0]):
        assert y.sharding.is_equivalent_to(by_batch, y.ndim), "the result was gathered on one device"


@one_of_a_family
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "gradients"])
def test_scratch_memory(example, gradients):
    if jax.default_backend() != "cpu":
        pytest.skip("the bounds are those of the CPU backend")
    fn = with_gradients(example) if gradients else example.fn
    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in example.inputs.shapes(1, (64, 64))]
    outputs = jax.eval_shape(example.fn, *inputs)
    unit = sum(4 * int(np.prod(x.shape)) for x in [*inputs, *jax.tree.leaves(outputs)])
    used = jax.jit(fn).lower(*inputs).compile().memory_analysis().temp_size_in_bytes / unit
    assert used <= example.scratch[gradients], f"scratch is {used:.2f} times the inputs and outputs"
