"""Mask R-CNN against torchvision's, with random weights: losses, their gradients, and detections."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import from_torch, to_torch
from tests.compare import assert_close

pytestmark = [pytest.mark.torch, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
NAME, SIZE = "maskrcnn_resnet50_fpn", (64, 96)
CONFIG = {
    "num_classes": 4,
    "depth": (1, 1, 1, 1),
    "bottleneck": False,
    "out_channels": 16,
    "representation_size": 32,
    "mask_layers": (16, 16),
    "mask_dim_reduced": 12,
}


@pytest.fixture(scope="module")
def torchvision():
    """The package; beside a PyTorch without CUDA its compiled operators do not load, and suppression needs a stand-in:
    RoIAlign has one in Python."""
    torch = pytest.importorskip("torch")
    try:
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:  # operator torchvision::nms does not exist
        signature = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library = torch.library.Library("torchvision", "DEF")
        library.define(signature)
        library.define(signature.replace("nms", "qnms"))
        library.impl("nms", _nms, "CPU")
        import torchvision
        from torchvision.ops import boxes

        boxes._assert_has_ops = lambda: None
        slow = sys.modules["torchvision.ops.roi_align"]
        slow._roi_align = slow._roi_align.__wrapped__  # compiled, it would take minutes
        slow._bilinear_interpolate = partial(_zero_outside, slow._bilinear_interpolate)
        torchvision.library = library  # it lives as long as this
    torch.set_num_threads(1)
    return torchvision


def _zero_outside(read, x, images, rows, cols, *masks):
    """The compiled operator reads zeros where the stand-in reads the border."""
    inside = [(at >= -1) & (at <= n) for at, n in zip((rows, cols), x.shape[2:], strict=True)]
    found = read(x, images, rows, cols, *masks) * inside[0][:, None, :, None, :, None]
    return found * inside[1][:, None, None, :, None, :]


def _nms(boxes, scores, threshold):
    import torch

    order, kept = scores.argsort(descending=True, stable=True), []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        sides = torch.minimum(boxes[best, 2:], boxes[order, 2:]) - torch.maximum(boxes[best, :2], boxes[order, :2])
        common = sides.clamp(min=0).prod(1)
        order = order[common / (area[best] + area[order] - common) <= threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def official(torchvision):
    import torch
    from torchvision.models.detection import MaskRCNN, faster_rcnn, mask_rcnn, rpn
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.ops.misc import FrozenBatchNorm2d

    torch.manual_seed(0)
    body = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=FrozenBatchNorm2d)
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    model = MaskRCNN(
        BackboneWithFPN(body, layers, [64, 128, 256, 512], 16),
        rpn_anchor_generator=rpn.AnchorGenerator(tuple((2**i,) for i in range(5, 10)), ((0.5, 1.0, 2.0),) * 5),
        rpn_head=rpn.RPNHead(16, 3),
        box_head=faster_rcnn.TwoMLPHead(16 * 49, 32),
        box_predictor=faster_rcnn.FastRCNNPredictor(32, 4),
        mask_head=mask_rcnn.MaskRCNNHeads(16, (16, 16), 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(16, 12, 4),
        rpn_batch_size_per_image=10**6,
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n_test=60,
        box_detections_per_img=30,
    )
    with torch.no_grad():
        for name, x in model.named_parameters():
            if name.startswith(("rpn", "roi")):
                size = 0.3 if "box_predictor" in name else 1.5  # scores that are all 1 would have no order
                x.copy_(torch.randn(x.shape) * (size / max(1, x[0].numel()) ** 0.5 if x.ndim > 1 else 0.1))
    return model


@pytest.fixture(scope="module")
def ours(official):
    module = from_torch(NAME, official.state_dict(), CONFIG)
    module.proposals, module.detections = 60, 30
    module.eval()
    return module


def images():
    return np.random.default_rng(0).standard_normal((2, *SIZE, 3)).astype(np.float32)


def objects():
    """Of the first image one of a single pixel; the second has none."""
    boxes = np.array([[10, 2, 50, 60], [40, 20, 92, 63], [33, 40, 34, 41]], np.float32)
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside = [(cols > a) & (cols < c) & (rows > b) & (rows < d) & ((rows + cols) % 7 > 2) for a, b, c, d in boxes]
    return boxes, np.array([1, 3, 2]), np.stack(inside)


def proposals():
    draw = np.random.default_rng(1)
    low = draw.uniform(0, 50, (2, 12, 2))
    return np.concatenate([low, low + draw.uniform(3, 50, (2, 12, 2))], axis=2).clip(0, [96, 64] * 2).astype(np.float32)


def test_losses_and_gradients(official, ours):
    import torch
    from torchvision.models.detection.image_list import ImageList

    boxes, labels, masks = objects()
    some = {"boxes": boxes, "labels": labels, "masks": masks.astype(np.uint8)}
    none = {"boxes": boxes[:0], "labels": labels[:0], "masks": some["masks"][:0]}
    theirs = [{name: torch.from_numpy(x) for name, x in image.items()} for image in (some, none)]
    official.train()
    x, sizes = torch.from_numpy(images().transpose(0, 3, 1, 2).copy()), [SIZE] * 2
    features = official.backbone(x)
    _, first = official.rpn(ImageList(x, sizes), features, theirs)
    # Some overlap true boxes.
    given = np.concatenate([proposals(), np.tile(0.95 * boxes[None, :2] + 1, (2, 1, 1))], axis=1)
    _, second = official.roi_heads(features, list(torch.from_numpy(given)), sizes, theirs)
    sum([*first.values(), *second.values()]).backward()

    targets = {
        "boxes": np.stack([boxes, 0 * boxes]),
        "labels": np.stack([labels - 1, 0 * labels - 1]).astype(np.int32),
        "masks": np.stack([masks, 0 * masks]).astype(bool),
    }
    graph, params, rest = nnx.split(ours, nnx.Param, ...)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        module = nnx.merge(graph, params, rest, copy=True)
        options = dict(proposals=jnp.asarray(given), anchors_drawn=10**6)
        losses = module.losses(images(), targets, jax.random.key(0), **options)
        return sum(losses.values()), losses

    (_, losses), gradients = loss(params)
    gradients = to_torch(NAME, gradients, CONFIG)
    learned = {name: x.grad.numpy() for name, x in official.named_parameters()}
    assert learned.keys() <= gradients.keys()
    assert_close({name: gradients[name] for name in learned}, learned, 1e-3, 1e-5)

    names = {"objectness": "loss_objectness", "rpn_box": "loss_rpn_box_reg", "class": "loss_classifier"}
    names |= {"box": "loss_box_reg", "mask": "loss_mask"}
    for name, theirs in names.items():
        assert losses[name] == pytest.approx((first | second)[theirs].item(), rel=1e-4), name


def test_detections(official, ours):
    import torch
    from torchvision.models.detection.image_list import ImageList

    official.eval()
    x, sizes = torch.from_numpy(images().transpose(0, 3, 1, 2).copy()), [SIZE, (50, 80)]
    with torch.no_grad():
        features = official.backbone(x)
        boxes, _ = official.rpn(ImageList(x, sizes), features)
        wanted, _ = official.roi_heads(features, boxes, sizes)
    found = jax.jit(lambda module, x, limits: module(x, limits))(ours, images(), jnp.array(sizes, jnp.float32))
    for i, image in enumerate(wanted):
        count = len(image["boxes"])
        assert count > 5 and np.array_equal(found["labels"][i] >= 0, np.arange(30) < count)
        assert np.array_equal(found["labels"][i, :count] + 1, image["labels"].numpy())
        assert_close(found["boxes"][i, :count], image["boxes"].numpy(), 1e-4)
        assert_close(found["scores"][i, :count], image["scores"].numpy(), 1e-4)
        assert_close(found["masks"][i, :count], image["masks"][:, 0].numpy(), 1e-4)


@pytest.mark.slow
def test_names(torchvision):
    """Those of the published network, both ways."""
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    tensors = {k: x.numpy() for k, x in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    module = from_torch(NAME, tensors, {"num_classes": 91})
    back = to_torch(NAME, module, {"num_classes": 91})
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], x) for name, x in tensors.items())
