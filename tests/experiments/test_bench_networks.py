"""What the benchmark of the networks compares computes the same."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.__main__ import main
from experiments.bench.networks import literal_dkn
from experiments.bench.torch_dense import dense_twin
from experiments.bench.torch_twin import dkn_twin
from jaxup.models import DKN, FDKN
from jaxup.models.backbones import MiT
from jaxup.models.matting import A2UMatting, MattingNetwork
from jaxup.models.monocular_depth import FastDepth, HuDepthNetwork
from jaxup.models.segmentation import SegFormer, SemanticFPN, UperNet
from tests.compare import assert_close
from tests.modules import random, randomised

MIT = dict(widths=(4, 6, 8, 8), depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 2), epsilon=1e-6, embed_epsilon=1e-6)
DEPTH, GUIDE = random(1, 2, 3, 1), random(1, 8, 12, 3)


@pytest.mark.slow
def test_the_passes_are_dkn():
    network = DKN(widths=(4, 4), rngs=nnx.Rngs(0))
    randomised(network, 0.03)
    network.eval()
    assert_close(jax.jit(literal_dkn)(network, DEPTH, GUIDE), network(DEPTH, GUIDE), 1e-5)


@pytest.mark.thorough
@pytest.mark.torch
@pytest.mark.parametrize("network", [FDKN, DKN])
def test_the_twins_are_the_networks(network):
    network = network(widths=(8, 4), rngs=nnx.Rngs(0))
    randomised(network, 0.03)
    network.eval()
    twin = dkn_twin(network, np.asarray(DEPTH), np.asarray(GUIDE))()
    assert_close(twin, network(DEPTH, GUIDE), 1e-5)
    gradient = dkn_twin(network, np.asarray(DEPTH), np.asarray(GUIDE), gradients=True)()
    assert_close(gradient, jax.grad(lambda guide: network(DEPTH, guide).sum())(GUIDE), 1e-4)


@pytest.mark.thorough
@pytest.mark.torch
@pytest.mark.parametrize(
    ("build", "side", "channels"),
    [
        (partial(SemanticFPN, 5, backbone="resnet18", features=8, head_features=4), 64, 3),
        (partial(UperNet, 5, backbone="resnet18", features=8), 64, 3),
        (lambda rngs: SegFormer(5, backbone=MiT(**MIT, rngs=rngs), features=8, rngs=rngs), 64, 3),
        (partial(FastDepth, features=32), 32, 3),
        (partial(HuDepthNetwork, backbone="resnet18"), 64, 3),
        (partial(MattingNetwork, multiplier=0.25), 32, 4),
        (partial(MattingNetwork, multiplier=0.25, upsampler="m2o", nonlinear=True, context=True), 32, 4),
        (partial(A2UMatting, features=32), 32, 4),
    ],
)
def test_the_twins_of_dense_prediction_are_the_networks(build, side, channels):
    network = build(rngs=nnx.Rngs(0))
    randomised(network, 0.1)
    network.eval()
    image = np.asarray(random(2, side, side, channels))
    assert_close(dense_twin(network, image)(), nnx.jit(network)(image), 1e-4)
    gradient = jax.jit(jax.grad(lambda x: network(x).sum()))(image)
    assert_close(dense_twin(network, image, gradients=True)(), gradient, 1e-3)


@pytest.mark.thorough
@pytest.mark.torch
def test_networks_of_dense_prediction_are_measured(capsys):
    options = ["--only", "fastdepth", "--side", "32", "--repeats", "1"]
    assert main(["bench", "networks", *options]) == 0
    assert "FastDepth, 32 x 32, gradients" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_training_step_is_measured(capsys):
    assert main(["bench", "networks", "--only", "super-resolution", "--repeats", "1"]) == 0
    assert "a training step, attention, K 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--width", "30"], "networks: expected multiples"),
        (["--passes", "backward"], "passes: expected some of forward, gradients"),
        (["--side", "30"], "side: expected 0, or a multiple of 32, got 30"),
        (["--repeats", "0"], "repeats: expected a number above 0"),
    ],
)
def test_bad_options(options, expected, capsys):
    assert main(["bench", "networks", *options]) == 2
    assert expected in capsys.readouterr().err
