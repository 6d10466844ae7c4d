from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, models, ops
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.modules import abstract, call, check_reach, count, drawn, random, scratch
from tests.oracles import dkn as oracle
from tests.registry.examples import thorough

# The others take a minute together.
QUICK = {"fdkn_real__crop_half_weights", "kernel_fdkn__img", "resample__bgr"}


@pytest.mark.parametrize("case", goldens.cases("dkn/*", quick=QUICK))
@pytest.mark.first(2, 2)
def test_golden(case):
    goldens.check(goldens.load(case))


OPTIONS = dict(kernel_size=3, window_size=15, residual=True, grid="centred")


@pytest.mark.parametrize(
    "network, size, guide_features, change",
    [
        thorough(models.DKN, (4, 8), 3, {}),
        (models.DKN, (4, 4), None, dict(residual=False, kernel_size=2, window_size=3)),
        (models.FDKN, (8, 4), 2, dict(kernel_size=5, window_size=5, grid="shifted")),
        (models.FDKN, (4, 12), None, dict(residual=False, kernel_size=1, grid="compressed")),
        (models.FDKN, (6, 9), 3, {}),  # filled up to 8 x 12
        thorough(models.FDKN, (8, 4), 3, dict(residual=False, from_depth=False, kernel_size=5, window_size=5)),
        (models.FDKN, (5, 7), 3, dict(residual=False, offsets=False, kernel_size=5)),
        thorough(models.DKN, (4, 4), 3, dict(residual=False, from_depth=False, offsets=False)),
    ],
)
@pytest.mark.first(3)
def test_equals_the_loops(network, size, guide_features, change):
    """Of DKN, that is the 16 shifted passes."""
    options = OPTIONS | change
    module, params = drawn(network, **options, widths=(4, 4), guide_features=guide_features, deviation=0.2)
    module.eval()
    depth, guide = random(1, *size, 1), random(1, *size, 3)[..., :guide_features] if guide_features else None
    filled = [None if y is None else fill(y, 4 if network is models.FDKN else 1) for y in (depth, guide)]
    expected = getattr(oracle, network.__name__.lower())(*filled, params, options)[:, : size[0], : size[1]]
    assert_close(call(module, *[y for y in (depth, guide) if y is not None]), expected, 1e-5)


def fill(x, multiple):
    height, width = x.shape[1:3]
    return np.pad(x, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)))


@pytest.mark.parametrize(
    "network, widths, options, expected",
    [
        (models.DKN, (128, 128), {}, 1_158_070),
        (models.DKN, (128, 128), dict(guide_features=None), 577_467),
        (models.DKN, (256, 128), {}, 1_748_150),
        (models.DKN, (256, 256), {}, 2_345_142),
        (models.DKN, (256, 512), {}, 3_539_126),
        (models.DKN, (256, 1024), {}, 5_927_094),
        (models.FDKN, (128, 128), {}, 703_072),
        (models.FDKN, (128, 128), dict(luminance=True), 693_856),
        (models.FDKN, (128, 128), dict(offsets=False), 703_072 - 2 * 129 * 288),
        (models.FDKN, (128, 128), dict(from_depth=False), 703_072 - 346_928),
        (models.FDKN, (128, 128), dict(guide_features=None), 346_928),
        (models.FDKN, (256, 128), {}, 1_146_208),
        (models.FDKN, (256, 256), {}, 1_846_880),
        (models.FDKN, (256, 512), {}, 3_248_224),
        (models.FDKN, (256, 1024), {}, 6_050_912),
    ],
)
def test_parameter_counts(network, widths, options, expected):
    """As in the docstrings, for the widths of Table 2 of the supplement."""
    assert count(abstract(network, widths=widths, **options)) == expected


@pytest.mark.parametrize("network", [models.DKN, models.FDKN])
def test_without_offsets_the_neighbours_are_averaged(network):
    """Scores that are equal everywhere: the mean of k x k pixels, those outside the image being zero."""
    module = small(network, residual=False, offsets=False, kernel_size=5, window_size=1)
    for stream in (module.depth_stream, module.guide_stream):
        assert stream.offset_head is None
        stream.weight_head.kernel[...] *= 0
        stream.weight_head.bias[...] *= 0
    depth, guide = random(1, 7, 6, 1), random(1, 7, 6, 3)
    padded = np.pad(depth[0, ..., 0], 2)
    expected = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((2, 3))
    assert_close(call(module, depth, guide)[0, ..., 0], expected, 1e-6)


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.first(1)
def test_kernels_from_the_guide_alone(offsets):
    """They do not depend on the depth, so the network is linear in it, and every parameter has a gradient."""
    module = small(from_depth=False, offsets=offsets, deviation=0.3)
    assert module.depth_stream is None
    depths, guide = random(2, 8, 12, 1), random(1, 8, 12, 3)
    first, second, both = (
        np.asarray(call(module, x, guide)) for x in (depths[:1], depths[1:], depths[:1] - 2 * depths[1:])
    )
    assert_close(both, first - 2 * second, 1e-4)
    gradient = nnx.jit(nnx.grad(lambda m, *xs: jnp.sum(m(*xs) ** 2)))(module, depths[:1], guide)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def small(network=models.FDKN, **options):
    module, _ = drawn(network, **(dict(widths=(4, 4), deviation=0.1) | options))
    module.eval()
    return module


@pytest.mark.parametrize("size", [(8, 12), (1, 5)], ids=str)
@pytest.mark.first(1)
def test_low_resolution_depth_is_enlarged(size):
    """To the guide by bicubic interpolation; depth in the guide's size is left alone, whatever the size is."""
    module, x, guide = small(), random(1, 2, 3, 1), random(1, *size, 3)
    enlarged = jax.jit(partial(ops.resize, size=size, method="bicubic"))(x)
    out = call(module, x, guide)
    assert out.shape == (1, *size, 1)
    assert_close(out, call(module, enlarged, guide), 1e-6)


@pytest.mark.parametrize("network", [models.DKN, models.FDKN])
@pytest.mark.first(1)
def test_enlargement(network):
    """By PyTorch's cubic convolution, or Pillow's: official weights have seen that."""
    x, guide = random(1, 3, 4, 1), random(1, 6, 8, 3)
    config = {"kernel_size": 3, "filter_size": 15, "residual": True}
    for coefficient in (-0.75, -0.5):
        module = abstract(network, cubic_coefficient=coefficient)
        up = partial(ops.resize, size=(6, 8), method="bicubic", cubic_coefficient=coefficient)
        enlarged, expected = jax.jit(lambda x, m=module, up=up: (models.dkn._enlarged(x, guide, m), up(x)))(x)
        assert_close(enlarged, expected, 1e-6)
    module, _ = drawn(network, grid="compressed", **({"luminance": True} if network is models.FDKN else {}))
    official = interop.from_torch(network.__name__, interop.to_torch(network.__name__, module, config), config)
    assert official.cubic_coefficient == -0.5


@pytest.mark.thorough
@pytest.mark.parametrize("network", [models.FDKN, pytest.param(models.DKN, marks=pytest.mark.slow)])
def test_reach(network):
    check_reach(small(network, window_size=7), 8)


@pytest.mark.parametrize("residual", [True, False])
def test_constants_are_kept(residual):
    """Weights sum to zero beside the residual, and else to one; offsets are small."""
    depth, guide = jnp.full((1, 8, 12, 1), 3.0), random(1, 8, 12, 3)
    out = np.asarray(call(small(residual=residual, deviation=0.02), depth, guide))[:, 3:-3, 3:-3]
    assert_close(out, np.full_like(out, 3), 1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("residual, bias", [thorough(True, 1e4), (False, -1e4)])
def test_extreme_scores_are_finite(residual, bias):
    """Also where every sigmoid is 0 in float32."""
    module = small(residual=residual)
    module.depth_stream.weight_head.bias[...] = jnp.full(144, bias)
    module.depth_stream.offset_head.bias[...] = bias * jnp.asarray(random(288))
    inputs = jnp.asarray(random(1, 8, 12, 1)), jnp.asarray(random(1, 8, 12, 3))
    gradient = nnx.jit(nnx.value_and_grad(lambda m, *xs: jnp.sum(m(*xs)), argnums=(0, 1, 2)))
    assert_finite(gradient(module, *inputs))


@pytest.mark.parametrize("gradients, bound", [(False, 14), thorough(True, 46)])
def test_scratch_memory(gradients, bound):
    """Above the usual bounds: weights and offsets have 27 values per pixel, inputs and output five."""
    used = scratch(small(widths=(128, 128)), (1, 64, 64, 1), (1, 64, 64, 3), gradients=gradients)
    assert used <= bound


@pytest.mark.thorough
def test_interleaved_phases_do_not_mix():
    """A stream of DKN sees 25 pixels before and 24 after: further away, a change of the guide has no effect."""
    module, depth, guide = small(models.DKN), random(1, 1, 60, 1), random(1, 1, 60, 3)
    changed = guide.copy()
    changed[:, :, 30] += 1
    moved = np.flatnonzero((np.asarray(call(module, depth, guide)) != np.asarray(call(module, depth, changed)))[0, 0])
    assert (moved.min(), moved.max()) == (30 - 24, 30 + 25)


def unfilled(**options):
    return abstract(models.FDKN, widths=(4, 4), **options)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: small(kernel_size=0), "kernel_size: expected an integer >= 1, got 0"),
        (lambda: small(window_size=4), "window_size: expected an odd integer, got 4"),
        (lambda: small(grid="left"), "grid: expected one of 'centred'"),
        (lambda: small(widths=(4,)), "widths: expected an integer or a pair"),
        (lambda: small(guide_features=0), "guide_features: expected an integer >= 1, got 0"),
        (lambda: small(guide_features=4, luminance=True), "guide_features: expected 3 with luminance, got 4"),
        (
            lambda: small(guide_features=None, from_depth=False),
            "guide_features: expected channels of the guide where from_depth is false, got None",
        ),
        (lambda: small(offsets=False, kernel_size=2), "kernel_size: expected an odd integer, got 2"),
        (lambda: unfilled()(random(1, 4, 4, 1)), "guide: expected a guide, as the network was built, got none"),
        (
            lambda: unfilled(guide_features=None)(random(1, 4, 4, 1), random(1, 4, 4, 3)),
            "guide: expected no guide, as the network was built, got one",
        ),
        (lambda: unfilled()(random(1, 4, 4, 2), random(1, 4, 4, 3)), r"x: expected shape \(\*, \*, \*, 1\)"),
        (lambda: unfilled()(random(1, 4, 4, 1), random(1, 4, 4, 1)), r"guide: expected shape \(\*, \*, \*, 3\)"),
        (lambda: unfilled()(random(1, 4, 4, 1), random(2, 4, 4, 3)), r"guide: expected shape \(1, \*, \*, \*\)"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.thorough
def test_round_trip():
    """To the official names, channel orders and layouts, and back."""
    config = {"kernel_size": 3, "filter_size": 15, "residual": True}
    module, params = drawn(models.DKN, grid="compressed")
    state = interop.to_torch("DKN", module, config)
    first = params["guide_stream.convs.0.kernel"]
    np.testing.assert_array_equal(state["ImageKernel.conv1.weight"][5, 0], first[:, :, 2, 5])  # blue comes first
    offsets = params["depth_stream.offset_head.bias"].reshape(3, 3, 2)
    assert state["DepthKernel.conv_offset.bias"].reshape(3, 3, 2)[2, 0, 1] == offsets[0, 2, 0]
    back = interop.to_torch("DKN", interop.from_torch("DKN", state, config), config)
    assert {name: x.tobytes() for name, x in back.items()} == {name: x.tobytes() for name, x in state.items()}


@pytest.mark.thorough
def test_state_dict_of_another_network():
    config = {"kernel_size": 3, "filter_size": 15, "residual": True}
    state = interop.to_torch("FDKN", drawn(models.FDKN, luminance=True)[0], config)
    with pytest.raises(ValueError, match=r"ImageKernel\.conv7\.weight: missing"):
        interop.from_torch("DKN", state, config)
    with pytest.raises(ValueError, match=r"DepthKernel\.conv_offset\.bias: expected shape \(800,\)"):
        interop.from_torch("FDKN", state, config | {"kernel_size": 5})


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, {"residual": False, "luminance": True}, {"from_depth": False}])
@pytest.mark.first(1, 3)
def test_channels_by_themselves(options):
    """The guide's stream runs once, for all of them."""
    network, _ = drawn(models.FDKN, widths=(4, 4), deviation=0.2, **options)
    network.eval()
    x, guide = random(2, 3, 4, 3), random(2, 6, 9, 3)

    @jax.jit
    def run(x, guide):
        each = [network(x[..., c : c + 1], guide) for c in range(3)]
        return network.each_channel(x, guide), jnp.concatenate(each, axis=3)

    assert_close(*run(x, guide), 1e-5)


def test_channels_of_another_batch():
    with pytest.raises(ValueError, match=r"guide: expected shape \(1, \*, \*, \*\)"):
        abstract(models.FDKN).each_channel(random(1, 4, 4, 3), random(3, 4, 4, 3))
