"""Networks, losses, presets and numbers of the depth upsampling experiment, without any run."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import joint_upsampling
from experiments.engine.config import RunConfig
from experiments.joint_upsampling import ablation, paper, variants
from experiments.joint_upsampling.networks import NetworkConfig
from experiments.joint_upsampling.training import DataConfig, TrainConfig, masked_loss
from jaxup.files import InputError


def test_streams_of_section_4_3():
    """Receptive fields and parameters are those of the paper; the rows are of DKN alone, with their numbers."""
    fields = {name: variants.receptive_field(layers) for name, layers in variants.STREAMS.items()}
    assert fields == {"DKN-23": 23, "DKN-plain": 51, "DKN-dilated": 51}
    network = nnx.eval_shape(lambda: NetworkConfig("DKN-plain").build(0))
    count = sum(np.prod(leaf.shape) for _, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param)))
    assert 1.6e6 < count < 1.7e6
    training = TrainConfig(RunConfig(Path("runs/none")), NetworkConfig("DKN"))
    config = ablation.AblationConfig(training, (3, 5), tuple(ablation.FIELDS))
    ablation._check(config)
    assert ablation._paper(config) == {"3 x 3": paper.STREAMS, "5 x 5": {}}
    chosen = [ablation._network(training, row, 3).network for row in ablation.FIELDS]
    assert [network.model for network in chosen] == list(variants.STREAMS)
    with pytest.raises(ValueError, match="rows: expected one of"):
        ablation._check(replace(config, training=replace(training, network=NetworkConfig("FDKN"))))


@pytest.mark.thorough
@pytest.mark.parametrize("name", variants.STREAMS)
def test_streams_see_what_they_should(name):
    """A kernel depends on pixels up to the edge of the receptive field, and on none beyond."""
    layers = variants.STREAMS[name]
    reach = variants.receptive_field(layers) // 2
    stream = variants._Stream(1, layers, 1, rngs=nnx.Rngs(0))
    stream.eval()
    for conv in stream.convs:
        conv.kernel[...] = np.abs(conv.kernel[...])
    image = np.full((1, 1, 2 * reach + 7, 1), 0.5, np.float32)
    run = jax.jit(lambda x: stream.scores(x)[0][0, 0, reach + 3, 0])
    seen = np.flatnonzero(np.asarray(jax.grad(run)(image))[0, 0, :, 0])
    assert (seen[0], seen[-1]) == (3, 2 * reach + 3)


def test_dmsg_has_one_scale():
    config = NetworkConfig("DMSG", scale=4)
    config.check([4])
    assert nnx.eval_shape(lambda: config.build(0)).scale == 4 and config.label == config.published == "DMSG"
    with pytest.raises(InputError, match="scales: expected 4, the scale of this DMSG, got 8"):
        config.check([4, 8])
    with pytest.raises(InputError, match="widths: has no effect on DMSG"):
        replace(config, widths=(4, 4)).check()
    with pytest.raises(InputError, match="scale: has no effect on FDKN, only on DMSG"):
        NetworkConfig("FDKN", scale=4).check()
    for name in ("dmsg", "dmsg-short"):
        preset = joint_upsampling.PRESETS["train"][name]()
        preset.network.check(preset.data.scales)


def test_training_on_the_first_pairs():
    every, some = DataConfig(scenes=5, scene_size=16), DataConfig(scenes=5, scene_size=16, pairs=2)
    source = some.open("train")
    assert [source[i].name for i in range(len(source))] == [every.open("train")[i].name for i in range(2)]
    assert source.unit == "px" and len(some.open("test")) == 5
    with pytest.raises(IndexError):
        source[2]


@pytest.mark.parametrize("kind, expected", [("l1", 2), ("l2", 4)])
def test_masked_loss_ignores_invalid_pixels(kind, expected):
    batch = {
        "target": np.zeros((1, 2, 2, 1), np.float32),
        "guide": np.zeros((1, 4, 4, 3), np.float32),
        "depth": np.full((1, 4, 4, 1), 2, np.float32),
        "valid": np.ones((1, 4, 4, 1), np.float32),
    }
    batch["depth"][0, 0] = 1e6
    batch["valid"][0, 0] = 0
    loss, metrics = masked_loss(kind, lambda target, guide: np.zeros((1, 4, 4, 1), np.float32), batch)
    assert loss == pytest.approx(expected) and metrics["rmse"] == pytest.approx(2)
    batch["valid"][:] = 0
    assert masked_loss(kind, lambda target, guide: guide[..., :1], batch)[0] == 0


@pytest.mark.parametrize("model", ["DKN", "FDKN"])
def test_options_of_the_deformable_networks(model):
    options = {"kernel_size": 5, "window_size": 9, "residual": False, "guided": False, "widths": (8, 6)}
    config = NetworkConfig(model, **options)
    network = nnx.eval_shape(lambda: config.build(0))
    assert (network.kernel_size, network.window_size, network.residual, network.guide_stream) == (5, 9, False, None)
    assert network.depth_stream.convs[-1].out_features == 6
    assert config.label == f"{model} w/o guide w/o residual"
    paper = nnx.eval_shape(lambda: NetworkConfig(model).build(0))
    assert (paper.kernel_size, paper.window_size, paper.residual) == (3, 15, True) and paper.guide_stream is not None
    for name in ("guided", "from_depth", "offsets"):
        with pytest.raises(InputError, match=f"{name}: DJF cannot do without, only DKN and FDKN can"):
            NetworkConfig("DJF", **{name: False}).build(0)


def test_presets_are_the_papers():
    nyu = joint_upsampling.presets.nyu()
    assert (nyu.batch_size, nyu.crop, nyu.optimizer.learning_rate) == (10, 256, 1e-3)
    assert (nyu.run.steps, nyu.optimizer.drops) == (2000 * 100, (1200 * 100, 1600 * 100))
    assert isinstance(nyu, TrainConfig) and nyu.network == NetworkConfig("SA_M2_F32")
    for name in ("dkn", "fdkn"):
        kim = joint_upsampling.PRESETS["train"][name]()
        assert (kim.network, kim.data.source, kim.data.protocol) == (
            NetworkConfig(name.upper(), cubic_coefficient=-0.5),
            "nyu",
            "bicubic",
        )
        assert (kim.batch_size, kim.crop, kim.optimizer.learning_rate, kim.loss) == (1, None, 1e-3, "l1")
        assert (kim.run.steps, kim.optimizer.drops, kim.optimizer.drop_factor) == (40_000, (10_000, 20_000, 30_000), 5)


def test_every_published_number_is_in_a_table():
    assert paper.DEPTH["djf"]["middlebury"]["bicubic"] == (4.44, 7.58, 11.87)
    assert paper.DEPTH["djf"]["sintel"]["DJFR"] == (5.50, 7.43, 10.48)
    assert paper.DEPTH["bicubic"]["lu"]["FDKN w/o guide"] == (0.85, 1.90, 5.33)
    assert paper.DEPTH["bicubic"]["nyu"]["DKN"] == (1.62, 3.26, 6.51)
    for tables in paper.DEPTH.values():
        assert all(len(values) == 3 for table in tables.values() for values in table.values())
    assert paper.ABLATION["FDKN"]["25 x 25"] == {
        "weights from RGB": "5.99",
        "weights from depth": "4.21",
        "weights from both": "3.72",
    }
    assert set(paper.ABLATION["DKN"]["3 x 3"]) == set(ablation.ROWS)
