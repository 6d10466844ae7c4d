"""What is not a number spoils the outputs that the docstrings name, and no others; 16 bits keep gradients finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import nn, ops
from tests.modules import call
from tests.registry.examples import thorough

H, W, S = 5, 6, 2


def drawn(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


LOW, LOW4 = (1, H, W, 3), (1, H, W, 4)
HIGH, HIGH4 = (1, S * H, S * W, 3), (1, S * H, S * W, 4)
CELL = (2, 3)  # that is spoilt
POINTS = np.stack(np.meshgrid(np.arange(4) + 0.25, np.arange(4) + 0.5, indexing="ij"), -1)[None].astype(np.float32)


def region(rows, cols):
    """Of the first and the last output of a rectangle."""
    return slice(rows[0], rows[1] + 1), slice(cols[0], cols[1] + 1)


def around(n, cell=CELL, scale=S):
    """The outputs of the cells within n of the spoilt one."""
    return region(*((scale * (c - n), scale * (c + n) + scale - 1) for c in cell))


# By kind: the function; its inputs; and for each input the entry that is spoilt, and the outputs.
KINDS = {
    "attention": (
        lambda *x: ops.attention_upsample(*x, scale=S, kernel_size=3),
        (drawn(*HIGH4), drawn(*LOW4), drawn(*LOW)),
        [((5, 6), region((5, 5), (6, 6))), (CELL, region((3, 5), (5, 7))), (CELL, region((3, 5), (5, 7)))],
    ),
    "attention with a key in high resolution": (
        lambda *x: ops.attention_upsample(*x, scale=S, kernel_size=3),
        (drawn(*HIGH4), drawn(*HIGH4), drawn(*LOW)),
        [((5, 6), region((5, 5), (6, 6))), ((5, 7), region((0, -1), (0, -1))), (CELL, region((3, 5), (5, 7)))],
    ),
    "similarity": (
        lambda *x: ops.similarity_upsample(*x, scale=S, kernel_size=3),
        (drawn(*HIGH4), drawn(*LOW4), drawn(*LOW)),
        [((5, 6), region((5, 5), (6, 6))), (CELL, around(1)), (CELL, around(1))],
    ),
    "reassemble": (
        lambda *x: ops.reassemble(*x, scale=S, kernel_size=3),
        (drawn(*LOW), 0 * drawn(1, S * H, S * W, 9)),
        [(CELL, around(1)), ((5, 6), region((5, 5), (6, 6)))],
    ),
    "pac": (
        lambda *x: ops.pac_conv_transpose(*x, scale=S),
        (drawn(*LOW), drawn(*HIGH), drawn(5, 5, 3, 2)),
        [(CELL, region((2, 6), (4, 8))), ((4, 6), region((2, 6), (4, 8)))],
    ),
    "pac, guide between samples": (
        lambda *x: ops.pac_conv_transpose(*x, scale=S),
        (drawn(*LOW), drawn(*HIGH), drawn(5, 5, 3, 2)),
        [(CELL, region((2, 6), (4, 8))), ((5, 6), region((5, 5), (6, 6)))],
    ),
    "sample": (
        ops.sample,
        (drawn(*LOW), POINTS),
        [(CELL, region((1, 2), (2, 3))), ((1, 3), region((1, 1), (3, 3)))],
    ),
    "deform": (
        lambda *x: ops.deformable_average(*x, window_size=5),
        (drawn(*LOW), drawn(1, H, W, 9), np.full((1, H, W, 9, 2), 0.25, np.float32)),
        [(CELL, region((0, 3), (1, 4))), (CELL, region((2, 2), (3, 3))), (CELL, region((2, 2), (3, 3)))],
    ),
    "fine neighbours": (
        lambda *x: ops.fine_neighbour_attention(*x, scale=S, kernel_size=1),
        (drawn(*LOW), drawn(1, S * H, S * W, 1)),
        [(CELL, region((3, 6), (5, 8))), ((5, 6), region((5, 5), (6, 6)))],
    ),
    "fine neighbours of many channels": (
        lambda *x: ops.fine_neighbour_attention(*x, scale=S, kernel_size=1),
        (drawn(1, H, W, 17), drawn(1, S * H, S * W, 1)),
        [(CELL, around(1)), ((5, 6), region((5, 5), (6, 6)))],
    ),
    "indexed pooling": (
        ops.indexed_pool,
        (drawn(*HIGH), 0 * drawn(*HIGH)),
        [((5, 6), region((2, 2), (3, 3))), ((5, 6), region((2, 2), (3, 3)))],
    ),
    "indexed upsampling": (
        ops.indexed_upsample,
        (drawn(*LOW), 0 * drawn(*HIGH)),
        [(CELL, around(0)), ((5, 6), region((5, 5), (6, 6)))],
    ),
}


@pytest.mark.parametrize("kind", [thorough(kind) if "," in kind or " with " in kind else kind for kind in KINDS])
def test_which_outputs_a_nan_spoils(kind):
    function, inputs, spoilt = KINDS[kind]
    function = jax.jit(function)
    whole = function(*inputs)
    for number, (entry, outputs) in enumerate(spoilt):
        bad = [x.copy() for x in inputs]
        bad[number][(0, *entry)] = np.nan
        found = np.asarray(function(*bad))[0]
        expected = np.zeros(found.shape[:2], bool)
        expected[outputs] = True
        np.testing.assert_array_equal(np.isnan(found).all(-1), expected, err_msg=f"input {number}")
        np.testing.assert_array_equal(found[~expected], np.asarray(whole)[0][~expected])


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_points_that_are_no_numbers(method, padding):
    points = np.array([[np.nan, 1], [np.inf, 1], [1, -np.inf]], np.float32).reshape(1, 1, 3, 2)
    found = np.asarray(ops.sample(drawn(*LOW) + 2, points, method=method, padding=padding))[0, 0]
    assert np.isnan(found[0]).all()
    assert (np.isnan(found[1:]) if padding == "reflection" else np.isfinite(found[1:])).all()
    assert padding != "zeros" or (found[1:] == 0).all()


@pytest.mark.parametrize("kind", ["sample", *map(thorough, ("attention", "similarity", "pac"))])
def test_gradients_in_16_bits_are_finite(kind):
    """Inside are numbers that float16 has not, scores and sums up to 10^6; the gradients fit, and equal those in 32."""
    function, inputs, _ = KINDS[kind]
    large = [x.astype(np.float16) if x is POINTS else (300 * x).astype(np.float16) for x in inputs]
    if kind == "pac":
        large = [large[0], (inputs[1] * 2).astype(np.float16), inputs[2].astype(np.float16)]

    def gradients(*xs):
        return jax.grad(lambda *y: function(*y).astype(jnp.float32).mean(), argnums=tuple(range(len(xs))))(*xs)

    found = jax.jit(gradients)(*large)
    true = jax.jit(gradients)(*(x.astype(np.float32) for x in large))
    for got, expected in zip(found, true, strict=True):
        assert np.abs(expected).max() < 65504
        assert got.dtype == jnp.float16
        np.testing.assert_allclose(
            got.astype(np.float32), expected, rtol=0.02, atol=0.01 * np.abs(expected).max() + 1e-4
        )


def test_modules_spoil_no_more_than_their_reach():
    """A convolution of 3 x 3 before the shuffle reaches one cell further."""
    module = nn.make_upsampler("pixel_shuffle", in_features=3, scale=S, rngs=nnx.Rngs(0))
    x = drawn(*LOW)
    x[(0, *CELL)] = np.nan
    found = np.isnan(np.asarray(call(module, x))[0]).all(-1)
    expected = np.zeros_like(found)
    expected[around(1)] = True
    np.testing.assert_array_equal(found, expected)
