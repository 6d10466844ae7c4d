"""What the benchmark of the networks compares computes the same."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.__main__ import main
from experiments.bench.networks import literal_dkn
from experiments.bench.torch_twin import dkn_twin
from jaxup.models import DKN, FDKN
from tests.compare import assert_close
from tests.modules import random, randomised

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


def test_bad_options(capsys):
    assert main(["bench", "networks", "--width", "30"]) == 2
    assert "networks: expected multiples" in capsys.readouterr().err
