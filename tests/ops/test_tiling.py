"""Images by strips of rows: what the whole gives, in bounded memory."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import ops
from jaxup.ops import filters, tiling
from tests.compare import assert_close
from tests.modules import random
from tests.registry.examples import thorough

bilateral_ops = importlib.import_module("jaxup.ops.bilateral")  # not the function of that name
FILTER = partial(filters._guided_filter.__wrapped__, radius=(2, 1), per_channel=False, step=1)


def both(run, *inputs):
    """Values and gradients, as one program."""

    def program(ct, *inputs):
        out, pull = jax.vjp(run, *inputs)
        return out, pull(ct)

    return jax.jit(program)(jnp.cos(jnp.arange(inputs[0].size, dtype=jnp.float32)).reshape(inputs[0].shape), *inputs)


@pytest.mark.parametrize("height", [23, 24])
@pytest.mark.first(1)
def test_strips_give_what_the_whole_image_gives(height, monkeypatch):
    """With a last strip that overlaps the one before, and one that does not; the filter's borders are the image's."""
    x, guide = random(1, height, 5, 2), random(1, height, 5, 3)
    run = lambda x, guide: FILTER(x, guide, 1e-2)  # noqa: E731
    whole = both(run, x, guide)
    strips = []
    monkeypatch.setattr(tiling, "STRIP_BYTES", 1)
    monkeypatch.setattr(
        jax.lax, "fori_loop", lambda *loop, inner=jax.lax.fori_loop: strips.append(loop[1]) or inner(*loop)
    )
    jax.tree.map(partial(assert_close, relative=1e-5), both(run, x, guide), whole)
    assert strips == [-(-height // 8)]


def bilateral(x, guide):
    """Not the compiled functions, which would be those of other sizes of strips."""
    near = jnp.float32(0.3)
    return bilateral_ops._bilateral_mean.__wrapped__(x, guide, 1, near, jnp.float32(2))


def joint_bilateral(x, guide):
    return bilateral_ops._upsample.__wrapped__(x[:, ::2, ::2], guide, None, jnp.float32(0.3), jnp.float32(2), 1)


@pytest.mark.parametrize(
    ("run", "channels"), [(bilateral, 2), thorough(bilateral, 9), (joint_bilateral, 2), thorough(joint_bilateral, 9)]
)
def test_cached_strips_give_what_the_whole_image_gives(run, channels, monkeypatch):
    """Of 2 images of 10 rows, also in forward mode; the last two strips overlap."""
    x, guide = random(2, 10, 4, channels), random(2, 10, 4, 3)
    ct, rows = jnp.cos(x), []

    def program(x, guide):
        out, change = jax.jvp(run, (x, guide), (jnp.sin(x), jnp.cos(guide)))
        return out, change, jax.vjp(run, x, guide)[1](ct)

    whole = jax.jit(program)(x, guide)
    inner = tiling._over_strips
    monkeypatch.setattr(tiling, "_over_strips", lambda how, arrays: rows.append(how.rows) or inner(how, arrays))
    monkeypatch.setattr(tiling, "CACHED_BYTES", 2000)
    strips = jax.jit(lambda x, guide: program(x, guide))(x, guide)
    jax.tree.map(partial(assert_close, relative=1e-5), strips, whole)
    assert min(rows) > 1, rows


@pytest.mark.thorough
def test_memory_of_a_large_image_is_bounded():
    """Compiled, not run: a 4K image of 64 channels under a colour guide in less than 6 GiB."""
    x, guide = (jax.ShapeDtypeStruct((1, 2160, 3840, c), np.float32) for c in (64, 3))
    compiled = jax.jit(lambda x, guide: FILTER(x, guide, 1e-2)).lower(x, guide).compile()
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert total < 6 * 2**30, total / 2**30


# Of super-resolution, and of a level of a feature pyramid, where queries and keys have few channels in SAPA.
SHAPES = {
    "super-resolution": ((10, 48, 48, 64), (10, 24, 24, 64), (10, 24, 24, 64)),
    "pyramid": ((1, 128, 128, 256), (1, 64, 64, 256), (1, 64, 64, 256)),
    "pyramid, few": ((1, 128, 128, 32), (1, 64, 64, 32), (1, 64, 64, 256)),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("operator", "at"),
    [
        (ops.attention_upsample, "super-resolution"),
        (ops.attention_upsample, "pyramid"),
        (ops.similarity_upsample, "super-resolution"),
        (ops.similarity_upsample, "pyramid, few"),
    ],
)
def test_scratch_of_attention_with_gradients(operator, at):
    """Compiled, not run: at most 1.5 times inputs and outputs."""
    run = partial(operator, scale=2, kernel_size=5)
    query, key, value = (jax.ShapeDtypeStruct(shape, np.float32) for shape in SHAPES[at])
    ct = jax.ShapeDtypeStruct((*query.shape[:3], value.shape[3]), np.float32)
    compiled = jax.jit(lambda ct, *x: jax.vjp(run, *x)[1](ct)).lower(ct, query, key, value).compile()
    memory = compiled.memory_analysis()
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert memory.temp_size_in_bytes <= 1.5 * arrays, memory.temp_size_in_bytes / arrays
