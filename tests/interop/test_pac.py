"""Official joint upsampling networks whose branches have widths of their own."""

from itertools import pairwise

import numpy as np
import pytest

from jaxup import interop
from tests import goldens
from tests.compare import assert_close

WIDTHS = {  # of the official small network at factor 8, n_t_filters, n_g_filters and n_f_filters
    "branch_t": [1, 12, 16, 16],
    "branch_g": [3, 12, 16, 3 * 12],
    "up_convts": [16, 12, 16, 16],
    "branch_f": [16, 20, 1],
}


def shapes():
    for branch, widths in WIDTHS.items():
        for n, (before, after) in enumerate(pairwise(widths)):
            name = f"{branch}.{n}" if branch == "up_convts" else f"{branch}.conv{n + 1}"
            yield f"{name}.weight", (before, after, 5, 5) if branch == "up_convts" else (after, before, 5, 5)
            yield f"{name}.bias", (after,)


def tensors():
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes()}


@pytest.mark.parametrize(
    "operator, config",
    [
        ("PacJointUpsampleLite", {"factor": 8}),
        (
            "PacJointUpsample",
            {
                "factor": 8,
                "n_t_filters": (12, 16, 16),
                "n_g_filters": (12, 16),
                "n_f_filters": (12, 16, 16, 20),
                "k_ch": 12,
            },
        ),
    ],
)
def test_small_network(operator, config):
    state = tensors()
    back = interop.to_torch(operator, interop.from_torch(operator, state, config), config)
    assert back.keys() == state.keys()
    for name, x in state.items():
        np.testing.assert_array_equal(back[name], 0 * x if name == "branch_g.conv3.bias" else x)


@pytest.mark.parametrize(
    "change",
    [dict(n_g_filters=6), dict(n_t_filters=6), dict(n_f_filters=(4, 5, 7)), dict(n_t_filters=(6, 4, 5))],
    ids=str,
)
@pytest.mark.first(1)
def test_channels_of_no_effect_have_none(change):
    """The golden network with more channels, from which nothing goes on, computes what it did."""
    golden = goldens.load("pac/joint_4x_small")
    config, state, random = golden.config | change, dict(golden.params), np.random.default_rng(0)
    with pytest.raises(ValueError) as refused:
        interop.from_torch("PacJointUpsample", state, config)
    for line in str(refused.value).splitlines()[1:]:
        name, _, rest = line.strip().partition(": expected shape ")
        wanted = tuple(int(n) for n in rest.partition(")")[0].strip("(").split(",") if n.strip())
        x = state[name]
        larger = random.standard_normal(wanted).astype(np.float32)
        outputs = 1 if name.startswith("up_convts") and x.ndim == 4 else 0
        inputs = 1 - outputs
        if x.ndim == 4:  # nothing comes from the added inputs
            larger[(slice(None),) * inputs + (slice(x.shape[inputs], None),)] = 0
        larger[tuple(slice(n) for n in x.shape)] = x
        state[name] = larger
    module = interop.from_torch("PacJointUpsample", state, config)
    assert_close(module(golden.inputs["target_low"], golden.inputs["guide"]), golden.outputs["y"], 1e-5)


@pytest.mark.parametrize(
    "operator, config, message",
    [
        ("PacJointUpsample", dict(factor=4, n_g_filters=(8, 8, 8)), "n_g_filters with 2 numbers"),
        ("PacJointUpsample", dict(factor=4, u_bn=True), "u_bn = False, got True"),
        ("PacJointUpsample", dict(factor=4.0), "factor: expected an integer >= 2, got 4.0"),
        ("PacJointUpsampleLite", dict(factor=2), "factor one of 4, 8, 16, got 2"),
    ],
)
def test_bad_config(operator, config, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(operator, {}, config)
