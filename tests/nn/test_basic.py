import numpy as np
import pytest
from flax import nnx

from jaxup import nn, ops
from tests import goldens
from tests.compare import assert_close
from tests.modules import abstract, call, count, drawn, random
from tests.oracles.resize import zero_upsample


def convolve(x, kernel, groups):
    """Eq. 5 by loops: cross-correlation of [H, W, Cin] with [K, K, Cin / groups, Cout], zeros outside."""
    size, _, per_group, cout = kernel.shape
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)])
    out = np.zeros((*x.shape[:2], cout))
    for i, j, o in np.ndindex(out.shape):
        first = o * groups // cout * per_group
        out[i, j, o] = (padded[i : i + size, j : j + size, first : first + per_group] * kernel[..., o]).sum()
    return out


@pytest.mark.parametrize(
    "grid, scale, kernel_size, groups",
    [
        ((3, 4), (2, 2), 3, 1),
        ((1, 1), (3, 3), 5, 2),
        ((2, 3), (2, 3), 7, 1),
        ((3, 2), (4, 4), 3, 2),
        ((2, 2), (1, 1), 3, 1),
    ],
)
def test_deconvolution_equals_zero_upsampling_and_convolution(grid, scale, kernel_size, groups):
    options = dict(scale=scale, kernel_size=kernel_size, groups=groups, use_bias=True)
    module, params = drawn(nn.Deconvolution, 4, 6, **options)
    x = random(2, *grid, 4)
    expected = np.stack([convolve(one, params["kernel"], groups) for one in zero_upsample(x, *scale)])
    assert_close(call(module, x), expected + params["bias"], 1e-6)


@pytest.mark.parametrize("case", goldens.cases("conv_transpose/k*"))
def test_golden(case):
    goldens.check(goldens.load(case))


def test_pixel_shuffle_is_a_convolution_and_a_shuffle():
    (module, _), x = drawn(nn.PixelShuffle, 4, 3, scale=(2, 3)), random(1, 3, 2, 4)
    out, shuffled = nnx.jit(lambda m, x: (m(x), ops.pixel_shuffle(m.conv(x), scale=(2, 3))))(module, x)
    assert_close(out, shuffled, 1e-6)
    assert out.shape == (1, 6, 6, 3)


def test_parameter_counts():
    assert count(abstract(nn.Deconvolution, 6, 4, scale=2, kernel_size=5)) == 25 * 6 * 4
    assert count(abstract(nn.Deconvolution, 6, 4, scale=2, groups=2, use_bias=True)) == 9 * 3 * 4 + 4
    assert count(abstract(nn.PixelShuffle, 6, 4, scale=2)) == 9 * 6 * 16 + 16
    assert count(nn.Resize(scale=2)) == 0


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_resize_is_the_function(method):
    x = random(1, 3, 4, 2)
    np.testing.assert_array_equal(nn.Resize(scale=3, method=method)(x), ops.resize(x, scale=3, method=method))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.Deconvolution(4, 4, scale=0, rngs=nnx.Rngs(0)), "scale: expected an integer >= 1, got 0"),
        (lambda: nn.Deconvolution(4, 4, scale=2, kernel_size=4, rngs=nnx.Rngs(0)), "kernel_size: expected an odd"),
        (lambda: nn.Deconvolution(4, 6, scale=2, groups=4, rngs=nnx.Rngs(0)), "groups: expected a divisor"),
        (lambda: nn.PixelShuffle(0, 4, scale=2, rngs=nnx.Rngs(0)), "in_features: expected an integer >= 1"),
        (lambda: nn.Resize(scale=2, method="cubic")(random(1, 2, 2, 1)), "method: expected one of"),
        (
            lambda: abstract(nn.PixelShuffle, 4, 4, scale=2)(random(1, 2, 2, 3)),
            r"x: expected shape \(\*, \*, \*, 4\)",
        ),
        (lambda: abstract(nn.Deconvolution, 4, 4, scale=2)(random(2, 2, 4)), "x: expected 4 axes"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
