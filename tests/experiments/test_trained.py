from dataclasses import replace
from pathlib import Path

import pytest
from flax import nnx

from experiments.engine.config import RunConfig
from experiments.engine.trained import Trained
from experiments.segmentation.networks import NetworkConfig
from experiments.segmentation.training import TrainConfig
from jaxup.files import InputError
from jaxup.models.segmentation import SegNet


def modes(module):
    return {part.use_running_average for _, part in nnx.iter_modules(module) if isinstance(part, nnx.BatchNorm)}


@pytest.mark.thorough
def test_fixed_norms():
    """Those of the encoder stay as they are in training, the decoder's are trained."""
    for fixed, expected in (((), {False}), (("encoder",), {True})):
        model = nnx.eval_shape(lambda fixed=fixed: Trained(SegNet(3, features=8, rngs=nnx.Rngs(0)), 1, fixed))
        model.train()
        assert modes(model.network.encoder) == expected
        assert False in modes(model.network)
        model.eval()
        assert modes(model.network) == {True}


def test_fixed_norms_need_weights():
    config = TrainConfig(RunConfig(Path("a")), NetworkConfig("segnet"), fixed_norms=True)
    with pytest.raises(InputError, match="fixed_norms: expected backbone_weights"):
        config.check()
    with pytest.raises(InputError, match="fixed_norms: has no effect on segformer"):
        replace(config, network=NetworkConfig("segformer")).check()
