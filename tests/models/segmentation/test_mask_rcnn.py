"""Mask R-CNN and Panoptic FPN: shapes, draws, images without objects, crowds, names of weights, merging."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.models.segmentation import FPN, MaskRCNN, PanopticFPN, instance_masks, merge_panoptic
from jaxup.models.segmentation import detection_loss as loss
from jaxup.ops import multilevel_roi_align, resize
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import filled, image
from tests.models.segmentation.networks import small_resnet
from tests.modules import abstract, call, count, random
from tests.registry.examples import thorough

SMALL = dict(backbone=small_resnet(), features=8, hidden=6, mask_layers=(6,), mask_features=5, detections=7)
SIZE = (64, 96)


@cache
def network(upsampler="nearest"):
    options = SMALL | dict(proposals=30, upsampler=upsampler, semantic_features=8, convention="torchvision")
    module = filled(lambda rngs: PanopticFPN(3, stuff_classes=2, **options, rngs=rngs))
    # Filled with positive numbers, the sums of the heads would be alike for all boxes.
    params = nnx.state(module, nnx.Param)
    draw = np.random.default_rng(0).standard_normal
    fans = lambda x: max(1, np.prod(x.shape[:-1])) ** 0.5  # noqa: E731
    nnx.update(module, jax.tree.map(lambda x: jnp.asarray(draw(x.shape) / fans(x), x.dtype), params))
    module.eval()
    return module


def targets(*objects, crowd=(), batch=2, slots=4):
    """Rectangles (x1, y1, x2, y2, class), the same in all images; classes below 0 fill up."""
    found = {"boxes": np.zeros((batch, slots, 4), np.float32), "labels": np.full((batch, slots), -1, np.int32)}
    found |= {"masks": np.zeros((batch, slots, *SIZE), bool), "crowd": np.zeros((batch, slots), bool)}
    for n, (x1, y1, x2, y2, label) in enumerate(objects):
        found["boxes"][:, n], found["labels"][:, n] = (x1, y1, x2, y2), label
        found["masks"][:, n, y1:y2, x1:x2], found["crowd"][:, n] = True, n in crowd
    return found | {"semantic": np.full((batch, *SIZE), 2, np.int32)}


TRACED = []


@nnx.jit
def with_gradients(module, x, truth, key):
    TRACED.append(x.shape)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def total(params):
        losses = nnx.merge(graph, params, rest, copy=True).losses(x, truth, key, anchors_drawn=64, boxes_drawn=32)
        return sum(losses.values()), losses

    gradients, losses = jax.grad(total, has_aux=True)(params)
    return losses, gradients


PAIR = np.concatenate([image(*SIZE), 1 - image(*SIZE)])


@pytest.mark.thorough
def test_training_steps():
    """One program for images with objects, without any, with one of a pixel, and with crowds; all draws by the key."""
    module = network()
    run = lambda truth, seed=0: with_gradients(module, PAIR, truth, jax.random.key(seed))  # noqa: E731
    some, gradients = run(targets((10, 12, 60, 60, 0), (50, 30, 90, 50, 2), (33, 40, 34, 41, 1)))
    traced = len(TRACED)
    assert_finite((some, gradients))
    assert all(value > 0 for value in some.values())
    assert [path for path, g in nnx.to_flat_state(gradients) if not np.any(g[...])] == []
    again, _ = run(targets((10, 12, 60, 60, 0), (50, 30, 90, 50, 2), (33, 40, 34, 41, 1)))
    assert_close(some, again, 0.0)
    other, _ = run(targets((10, 12, 60, 60, 0), (50, 30, 90, 50, 2), (33, 40, 34, 41, 1)), 1)
    assert other["objectness"] != some["objectness"]
    none, gradients = run(targets())
    assert_finite((none, gradients))
    assert none["mask"] == none["box"] == none["rpn_box"] == 0 and none["class"] > 0 and none["objectness"] > 0
    crowds, gradients = run(targets((0, 0, 96, 64, 1), crowd=(0,)))
    assert_finite((crowds, gradients))  # nothing is left that is not in it, but anchors that stick out
    assert crowds["mask"] == crowds["box"] == 0
    assert len(TRACED) == traced


@pytest.mark.thorough
def test_detections():
    """Best first, inside of the images, without overlaps in a class; -1 and zeros behind the last."""
    module, limits = network(), jnp.array([[64.0, 96.0], [40.0, 50.0]])
    found = jax.tree.map(np.asarray, call(module, PAIR, limits))
    assert_finite(found)
    boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
    assert boxes.shape == (2, 7, 4) and found["masks"].shape == (2, 7, 28, 28)
    assert np.all(np.diff(scores) <= 0) and np.all(labels < 3) and np.all(labels[:, 0] >= 0)
    assert np.all(boxes >= 0) and np.all(boxes[1] <= [50, 40, 50, 40])
    assert not np.any(boxes[labels < 0]) and not np.any(scores[labels < 0])
    assert found["semantic"].shape == (2, 16, 24, 3)
    masks = instance_masks(found["masks"], boxes, size=SIZE)
    assert masks.shape == (2, 7, *SIZE)


@pytest.mark.thorough
def test_bins_have_no_more_samples_than_their_map():
    """Of boxes inside of the image, up to all of it, nothing is left out where the number of samples is adaptive."""
    module = abstract(MaskRCNN, 3, **SMALL | {"convention": "mmdet"})
    maps = [random(2, 16 >> i, 24 >> i, 8) for i in range(4)]
    boxes = np.array([[0, 0, 96, 64], [0, 30, 96, 33], [5, 5, 90, 60], [7, 7, 8, 8]], np.float32)
    boxes = np.tile(boxes, (2, 1, 1))
    options = dict(size=7, strides=module.strides, sampling_ratio=0, max_samples=24)
    wanted = jax.jit(lambda *maps: multilevel_roi_align(boxes, *maps, **options))(*maps)
    found = jax.jit(lambda *maps: module._on_boxes(lambda y: y, (*maps, maps[-1]), boxes, 7))(*maps)
    assert_close(found, wanted, 1e-6)


@pytest.mark.slow
def test_nothing_is_detected():
    module = network()
    strict = nnx.merge(*nnx.split(module))
    strict.instances.least_score = 2.0
    found = call(strict, PAIR)
    assert np.all(found["labels"] == -1) and not np.any(found["masks"])


@pytest.mark.thorough
def test_draws():
    """So many of each kind, each once, other ones for other keys and images."""
    kinds = np.tile(np.repeat([0, -1, -2], [10, 30, 60]), (2, 1)).astype(np.int32)
    drawn = np.asarray(loss.draw(jax.random.key(0), kinds, count=16, share=0.25))
    for image_ in drawn:
        assert len(set(image_)) == 16 and set(image_[:4]) <= set(range(10)) and set(image_[4:]) <= set(range(10, 40))
    assert set(drawn[0]) != set(drawn[1])
    assert not np.array_equal(drawn, loss.draw(jax.random.key(1), kinds, count=16, share=0.25))
    assert np.array_equal(drawn, loss.draw(jax.random.key(0), kinds, count=16, share=0.25))
    few = np.asarray(loss.draw(jax.random.key(0), kinds[:, :12], count=64, share=0.5))  # fewer than there could be
    assert [sorted(row[row >= 0].tolist()) for row in few] == [list(range(12))] * 2
    alike = np.zeros((1, 40000), np.int32)
    chosen = np.concatenate([loss.draw(jax.random.key(i), alike, count=400, share=1.0) for i in range(2)])
    assert abs(chosen.mean() - 20000) < 2000  # from everywhere


@pytest.mark.thorough
def test_crowds_are_no_background():
    boxes = np.array([[[0, 0, 10, 10], [8, 0, 18, 10], [20, 20, 30, 30], [0, 0, 4, 4]]], np.float32)
    truth = np.array([[[0, 0, 13, 10], [0, 0, 4, 4]]], np.float32)
    options = dict(high=0.7, low=0.3, low_quality=False)
    found = loss.match(boxes, truth, np.array([[False, True]]), np.array([[True, False]]), **options)
    assert found.tolist() == [[-2, -1, -1, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("upsampler", ["resfu", thorough("carafe"), thorough("dysample")])
def test_upsamplers(upsampler):
    """ReSFU sees the finest map in every step."""
    options = SMALL | {"upsampler": upsampler}
    build = partial(MaskRCNN, 3, **options)
    shapes = nnx.eval_shape(lambda x: build(rngs=nnx.Rngs(0))(x), jnp.ones((1, *SIZE, 3)))
    assert shapes["boxes"].shape == (1, 7, 4)
    if upsampler == "resfu":
        assert abstract(build).neck.guide == "finest"


@pytest.mark.thorough
def test_guide_of_all_steps():
    """Of a pyramid by hand: the first lateral map, averaged to the size of each step."""
    neck = filled(lambda rngs: FPN((4, 6, 8), features=5, upsampler="sapa", guide="finest", rngs=rngs))
    maps = [random(1, 13, 10, 4), random(1, 7, 5, 6), random(1, 4, 3, 8)]

    @jax.jit
    def by_hand(maps):
        fine, middle, coarse = [layer(y) for layer, y in zip(neck.laterals, maps, strict=True)]
        guide = resize(fine, size=(7, 5), method="area")
        middle = middle + neck.upsamplers[1](coarse, [guide])
        return neck.smooth[0](fine + neck.upsamplers[0](middle, [fine]))

    assert_close(call(neck, maps)[0], by_hand(maps), 1e-6)


@pytest.mark.thorough
def test_sizes():
    for network_, wanted in (
        (partial(MaskRCNN, 80), MaskRCNN),
        (partial(PanopticFPN, 80, stuff_classes=53), PanopticFPN),
    ):
        assert f"{count(abstract(network_)):,}" in wanted.__doc__


HEADS = {"bbox_head": {"num_classes": 4, "fc_out_channels": 6}, "mask_head": {"num_convs": 1, "conv_out_channels": 6}}
MMDET = {"backbone": {"type": "ResNet", "depth": 18}, "neck": {"out_channels": 8}, "roi_head": HEADS}
PANOPTIC = MMDET | {"semantic_head": {"num_stuff_classes": 3, "inner_channels": 8}}
OLD = {"depth": 18, "num_classes": 5, "out_channels": 8, "representation_size": 6, "mask_layers": (6, 5)}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("operator", "config", "names"),
    [
        ("maskrcnn_resnet50_fpn", OLD, {"roi_heads.box_predictor.bbox_pred.weight": (20, 6)}),
        ("mmdet.MaskRCNN", MMDET, {"roi_head.bbox_head.fc_cls.weight": (5, 6), "rpn_head.rpn_reg.bias": (12,)}),
        ("mmdet.PanopticFPN", PANOPTIC, {"semantic_head.conv_upsample_layers.3.conv.2.gn.weight": (8,)}),
    ],
)
@pytest.mark.first(1, 3)
def test_names_both_ways(operator, config, names):
    module = nnx.eval_shape(lambda: OPERATORS[operator](config)[0])
    draw = np.random.default_rng(0)
    nnx.update(module, jax.tree.map(lambda x: draw.standard_normal(x.shape, np.float32), nnx.state(module)))
    tensors = to_torch(operator, module, config)
    assert {name: tensors[name].shape for name in names} == names
    back = from_torch(operator, tensors, config)
    for (path, a), (_, b) in zip(nnx.to_flat_state(nnx.state(module)), nnx.to_flat_state(nnx.state(back)), strict=True):
        np.testing.assert_array_equal(a[...], b[...], err_msg=str(path))
    if operator == "maskrcnn_resnet50_fpn":
        older = {_older(name): x for name, x in tensors.items()}
        assert set(older) != set(tensors)
        again = to_torch(operator, from_torch(operator, older, config), config)
        assert all(np.array_equal(again[name], x) for name, x in tensors.items())


def _older(name):
    """Before torchvision 0.14."""
    name = name.replace("rpn.head.conv.0.0", "rpn.head.conv")
    for i in (0, 1):
        name = name.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
    parts = name.split(".")
    return ".".join(parts[:4] + parts[5:]) if parts[1] == "fpn" else name


def test_epsilon_of_norms():
    module = nnx.eval_shape(lambda: OPERATORS["maskrcnn_resnet50_fpn"](OLD | {"norm_epsilon": 0.0})[0])
    assert {node.epsilon for _, node in nnx.iter_graph(module) if isinstance(node, nnx.BatchNorm)} == {0.0}


@pytest.mark.thorough
def test_merging():
    """By hand: a mask half covered by a better one stays, one more than that does not; stuff gets the rest."""
    masks = np.zeros((1, 5, 2, 10), bool)
    for n, (start, end) in enumerate([(0, 4), (2, 6), (3, 6), (0, 10), (6, 8)]):
        masks[0, n, :, start:end] = True
    scores, labels = np.array([[0.9, 0.8, 0.7, 0.65, 0.5]], np.float32), np.array([[2, 0, 1, -1, 0]], np.int32)
    semantic = np.zeros((1, 2, 10, 3), np.float32)
    semantic[0, :, :7, 0], semantic[0, :, 7:, 1], semantic[0, 1, 9, 2] = 1, 1, 2  # the last pixel is of things
    segments, categories = merge_panoptic(masks, scores, labels, semantic, num_classes=3, least_area=3)
    assert np.asarray(segments)[0].tolist() == [
        [1] * 4 + [2] * 2 + [0] + [7] * 3,
        [1] * 4 + [2] * 2 + [0] + [7] * 2 + [0],
    ]
    assert categories.tolist() == [[2, 0, -1, -1, -1, -1, 4]]


@pytest.mark.thorough
def test_errors():
    build = lambda **options: abstract(MaskRCNN, 3, **SMALL | options)  # noqa: E731
    with pytest.raises(ValueError, match="convention: expected one of 'torchvision', 'mmdet', got 'detectron'"):
        build(convention="detectron")
    with pytest.raises(ValueError, match="proposals: expected an integer >= 1, got 0"):
        build(proposals=0)
    run = lambda truth: nnx.eval_shape(lambda: network().losses(PAIR, truth, jax.random.key(0)))  # noqa: E731
    some = targets((0, 0, 9, 9, 0))
    with pytest.raises(ValueError, match="targets: expected boxes, labels and masks"):
        run({"boxes": some["boxes"]})
    with pytest.raises(ValueError, match="targets masks: expected shape"):
        run(some | {"masks": some["masks"][..., 1:]})
    with pytest.raises(ValueError, match="targets: expected semantic, too"):
        run({name: x for name, x in some.items() if name != "semantic"})
    with pytest.raises(ValueError, match="guide: expected one of 'adjacent', 'finest'"):
        abstract(FPN, (4, 6), guide="image")
