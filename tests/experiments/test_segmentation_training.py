"""Losses, optimizers, networks and presets of the segmentation experiment, without any run."""

import inspect
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.data.segmentation import IGNORED
from experiments.engine.optim import Decayed
from experiments.engine.trained import Trained
from experiments.segmentation import presets
from experiments.segmentation.networks import DEEPLAB, NETWORKS, NetworkConfig, costs
from experiments.segmentation.paper import RESULTS, paper_cells
from experiments.segmentation.training import cross_entropy, loss_of
from jaxup.files import InputError
from jaxup.models.segmentation import class_targets, maskformer_loss


def test_cross_entropy():
    logits = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    labels = np.array([[[0, 3, IGNORED], [2, IGNORED, 1]]])
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = [-log_softmax[0, i, j, labels[0, i, j]] for i, j in ((0, 0), (0, 1), (1, 0), (1, 2))]
    run = jax.jit(jax.value_and_grad(cross_entropy))
    np.testing.assert_allclose(run(logits, labels)[0], np.mean(picked), rtol=1e-6)
    value, gradient = run(logits, np.full((1, 2, 3), IGNORED))
    assert value == 0 and not np.any(gradient)


class Fixed:
    """A network that has found its outputs."""

    def __init__(self, outputs):
        self.outputs = lambda x: outputs


@pytest.mark.thorough
def test_auxiliary_heads_have_losses():
    """They count 0.4 times."""
    labels = jnp.array([[[0, 1], [1, IGNORED]]], jnp.uint8)
    batch = {"image": jnp.zeros((1, 2, 2, 3), jnp.uint8), "labels": labels}
    main_logits, other = (jnp.asarray(np.random.default_rng(i).normal(size=(1, 2, 2, 2)), jnp.float32) for i in (0, 1))

    value, metrics = loss_of(2)(Fixed({"logits": main_logits, "auxiliary": other}), batch)
    ours = labels.astype(jnp.int32)
    np.testing.assert_allclose(value, cross_entropy(main_logits, ours) + 0.4 * cross_entropy(other, ours), rtol=1e-6)
    assert 0 <= metrics["accuracy"] <= 1


def test_scales_have_losses():
    """Each as much as the logits, at the size of the labels."""
    labels = jnp.array([[[0, 1], [1, IGNORED]]], jnp.uint8)
    batch = {"image": jnp.zeros((1, 2, 2, 3), jnp.uint8), "labels": labels}
    normal = np.random.default_rng(0).normal
    logits, fine, coarse = (jnp.asarray(normal(size=(1, n, n, 2)), jnp.float32) for n in (2, 2, 1))
    ours = labels.astype(jnp.int32)
    wanted = sum(cross_entropy(y, ours) for y in (logits, fine, jnp.broadcast_to(coarse, (1, 2, 2, 2))))
    value, _ = loss_of(2)(Fixed({"logits": logits, "scales": (fine, coarse)}), batch)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)


@pytest.mark.thorough
def test_masks_after_each_layer_have_losses():
    """The sum over the layers of a decoder, which has the last one beside the earlier ones."""
    labels = jnp.array([[[0, 1], [1, IGNORED]]], jnp.uint8)
    batch = {"image": jnp.zeros((1, 2, 2, 3), jnp.uint8), "labels": labels}
    normal = np.random.default_rng(0).normal
    shapes = {"class_logits": (1, 3, 3), "mask_logits": (1, 2, 2, 3)}
    layers = [{key: jnp.asarray(normal(size=shape), jnp.float32) for key, shape in shapes.items()} for _ in range(3)]
    outputs = {**layers[0], "logits": jnp.zeros((1, 2, 2, 2)), "layers": layers[1:]}
    classes, masks = class_targets(labels, num_classes=2)
    wanted = sum(maskformer_loss(**layer, classes=classes, masks=masks)["loss"] for layer in layers)
    np.testing.assert_allclose(loss_of(2)(Fixed(outputs), batch)[0], wanted, rtol=1e-6)
    # Of the two classes, which have two pixels and one, one place takes the larger.
    classes, masks = class_targets(labels, num_classes=2, targets=1)
    larger = sum(maskformer_loss(**layer, classes=classes, masks=masks)["loss"] for layer in layers)
    np.testing.assert_allclose(loss_of(2, targets=1)(Fixed(outputs), batch)[0], larger, rtol=1e-6)
    assert classes.tolist() == [[1]] and abs(wanted - larger) > 1e-3


@pytest.mark.thorough
def test_dropout_is_drawn_anew_and_only_in_training():
    network = Trained(presets.smoke().network.build(3, 0), 1)
    network.train()
    x = jnp.ones((1, 32, 32, 3))
    run = nnx.jit(lambda network, x: network.outputs(x)["logits"])
    assert (run(network, x) != run(network, x)).any()
    network.eval()
    still = nnx.jit(lambda network, x: network(x))
    np.testing.assert_array_equal(still(network, x), still(network, x))


def test_networks_take_what_they_are_given():
    for name, network in NETWORKS.items():
        options = inspect.signature(network.__init__).parameters
        assert "upsampler" in options and ("backbone" in options) == (name not in ("segnet", "transunet"))
    with pytest.raises(InputError, match=r"backbone: has no effect on transunet"):
        NetworkConfig("transunet", "resnet18").build(5, 0)
    with pytest.raises(InputError, match=r"fusion_upsampler: has no effect on pspnet"):
        NetworkConfig("pspnet", fusion_upsampler="carafe").build(5, 0)
    with pytest.raises(InputError, match=r"upsampler: has no effect on deeplabv2, there are deeplabv2, deeplabv2-crf"):
        NetworkConfig("deeplabv2", upsampler="fdkn").build(5, 0)
    with pytest.raises(ValueError, match="model: expected one of"):
        NetworkConfig("segfromer").build(5, 0)


def test_the_paper():
    assert len(RESULTS) == 2 * (9 + 9 + 10 + 8)
    assert paper_cells(NetworkConfig("segformer", "mit_b1", "resfu"))["paper bIoU"] == "28.06"
    assert paper_cells(NetworkConfig("segmenter", "vit_s", "carafe"))["paper GFLOPs"] == "32.96"
    assert set(paper_cells(NetworkConfig()).values()) == {""}
    assert paper_cells(NetworkConfig("upernet", "mobilenet_v2", "carafe"))["paper mIoU"] == "38.31"
    assert paper_cells(NetworkConfig("upernet", "mobilenet_v2", None, "carafe"))["paper aAcc"] == "78.51"
    printed = [paper_cells(NetworkConfig(name))["paper mIoU"] for name in DEEPLAB]
    assert printed == ["70.69", "71.98", "72.96", "73.60"]
    assert paper_cells(NetworkConfig("deeplabv2", "resnet50"))["paper mIoU"] == ""


@pytest.mark.thorough
def test_costs():
    """Of a tiny network, against the sum over its products: parameters are exact, operations near."""
    found = costs(NetworkConfig("segformer", "tiny"), 3, (64, 64))
    network = nnx.eval_shape(lambda: NetworkConfig("segformer", "tiny").build(3, 0))
    assert found["params (M)"] == sum(p.size for p in jax.tree.leaves(nnx.state(network, nnx.Param))) / 1e6
    assert 0.5 * 16**2 * 3 * 16 * 4 / 1e9 < found["GMACs"] < 0.1


def test_presets_are_valid():
    for preset in (
        presets.camvid,
        presets.segformer,
        presets.segmenter,
        presets.pspnet,
        presets.maskformer,
        presets.upernet,
        presets.segnet,
        presets.deeplabv2,
    ):
        config = preset()
        config.network.check()
        config.optimizer.build(config.run.steps)
    for table in (presets.deeplabv2_table(), presets.deeplabv2_camvid_table()):
        assert table.models == ("deeplabv2", "deeplabv2-crf", "deeplabv2-dgf", "deeplabv2-fdkn")
    assert replace(presets.camvid_table(), pictures=False).training.run.run_dir == Path("runs/segmentation-table")


def schedule(config, steps):
    """The learning rate at each step, as the size of SGD's and AdamW's first parts shows it."""
    optimizer = config.build(steps)
    params = {"kernel": jnp.ones((2, 2))}
    sizes = []
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for _ in range(steps):
            updates, state = optimizer.update({"kernel": jnp.ones((2, 2))}, state, params)
            sizes.append(-float(updates["kernel"][0, 0]))
    return np.array(sizes)


@pytest.mark.thorough
def test_rates_rise_and_fall():
    got = schedule(Decayed("sgd", 0.5, warmup=4, power=0.9, momentum=0.0, weight_decay=0.0), 40)
    step = np.arange(40)
    np.testing.assert_allclose(
        got, np.where(step < 4, 0.5 * (step + 1) / 4, 0.5 * (1 - (step - 4) / 36) ** 0.9), rtol=1e-5
    )
    stepped = Decayed("sgd", 0.5, warmup=2, drops=(10, 15), drop_factor=5.0, momentum=0.0, weight_decay=0.0)
    wanted = [0.25, 0.5, *[0.5] * 8, *[0.1] * 5, *[0.02] * 5]
    np.testing.assert_allclose(schedule(stepped, 20), wanted, rtol=1e-5)
    with pytest.raises(InputError, match="drops: expected ascending steps"):
        Decayed(drops=(3, 2))
    got = schedule(Decayed("adamw", 0.5, warmup=2, power=1.0, weight_decay=0.0), 20)
    np.testing.assert_allclose(got[2:], 0.5 * (1 - np.arange(18) / 18), rtol=1e-3)


@pytest.mark.thorough
def test_multipliers_and_decay_by_part():
    config = Decayed("sgd", 1.0, warmup=0, momentum=0.0, weight_decay=0.1, multipliers=(("inner", 3.0), ("a", 2.0)))
    params = {
        "a": {"inner": {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}, "kernel": jnp.ones((1, 1))},
        "b": jnp.ones(1),
    }
    optimizer = config.build(1000)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
        ones, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert float(updates["a"]["inner"]["bias"][0]) == 0 and float(updates["a"]["kernel"][0, 0]) == pytest.approx(-0.2)
    assert float(updates["a"]["inner"]["kernel"][0, 0]) == pytest.approx(-0.3)
    assert [float(x[0]) for x in (ones["a"]["inner"]["bias"], ones["b"])] == [-3, -1]
    network = nnx.eval_shape(lambda: NetworkConfig("segformer", "tiny").build(3, 0))
    state = jax.tree.map(lambda p: np.ones(p.shape, np.float32), nnx.state(network, nnx.Param))
    scaled = Decayed(multipliers=(("classifier", 10.0),))._scaled(state, state)
    found = {str(path[0]): float(leaf[...].ravel()[0]) for path, leaf in nnx.to_flat_state(scaled)}
    assert found["classifier"] == 10 and found["backbone"] == found["fuse"] == 1
