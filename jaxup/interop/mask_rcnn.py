"""Mask R-CNN of torchvision and of mmdetection, and Panoptic FPN of mmdetection.

    "maskrcnn_resnet50_fpn"    {"num_classes": 91}, which counts the background; the norms of its COCO weights have an
                               epsilon of 0: "norm_epsilon": 0.0. The names of its older files are known, too.
    "mmdet.MaskRCNN"           the `model` of an official config: {"backbone": {"type": "ResNet", "depth": 50},
                               "roi_head": {"bbox_head": {"num_classes": 80}}}
    "mmdet.PanopticFPN"        the same with "semantic_head": {"num_stuff_classes": 53}

Beside the official arguments every config may have `dtype`, the type in which the layers compute.
"""

from typing import Any

import numpy as np
from flax import nnx

from jaxup.interop.backbones import options, resnet_keys
from jaxup.interop.fpn import fpn_keys
from jaxup.interop.keys import Key, Operators, Table, conv, linear, norm, permuted, prefixed
from jaxup.interop.mmseg import backbone_of
from jaxup.models.backbones import ResNet
from jaxup.models.segmentation import MaskRCNN, PanopticFPN
from jaxup.models.segmentation.detection_heads import BOX_SIZE, BoxHead, MaskHead
from jaxup.models.segmentation.panoptic_fpn import SemanticHead


def rpn_keys(first: str, objectness: str, deltas: str) -> Table:
    """The three layers of the first stage."""
    return conv(first, "conv") | conv(objectness, "objectness") | conv(deltas, "deltas")


def box_keys(module: BoxHead, first: str, second: str, classes: str, deltas: str) -> Table:
    """The four layers of the box head, whose input PyTorch lays out channel by channel."""
    cells = BOX_SIZE**2
    features = module.first.in_features // cells
    order = np.arange(cells * features).reshape(features, cells).T.reshape(-1)
    table: Table = {
        f"{first}.weight": Key("first.kernel", permuted("linear", 0, order)),
        f"{first}.bias": Key("first.bias"),
    }
    return table | linear(second, "second") | linear(classes, "classes") | linear(deltas, "deltas")


def mask_keys(module: MaskHead, layer: str, double: str, masks: str, *, start: int = 0) -> Table:
    """The convolutions, whose names count from `start`, the doubling and the logits."""
    table = conv(double, "double", layout="conv_transpose") | conv(masks, "masks")
    for i in range(len(module.layers)):
        table |= conv(layer.format(i + start), f"layers.{i}")
    return table


def semantic_keys(module: SemanticHead) -> Table:
    """Names of mmdetection's `PanopticFPNHead`."""
    table = conv("conv_logits", "classifier")
    for i, layers in enumerate(module.levels):
        for k in range(len(layers)):
            torch, ours = f"conv_upsample_layers.{i}.conv.{k}", f"levels.{i}.{k}"
            table |= conv(f"{torch}.conv", f"{ours}.conv", bias=False) | norm(f"{torch}.gn", f"{ours}.norm")
    return table


# Names of layers: of files today, and before torchvision 0.14.
_TORCHVISION = dict(rpn="conv.0.0", neck="{}.{}.0", layer="mask_head.{}.0", start=0)
_OLDER = dict(rpn="conv", neck="{}.{}", layer="mask_head.mask_fcn{}", start=1)
_BOX = ("box_head.fc6", "box_head.fc7", "box_predictor.cls_score", "box_predictor.bbox_pred")
_MASK = ("mask_predictor.conv5_mask", "mask_predictor.mask_fcn_logits")


def _torchvision_keys(module: MaskRCNN, names: dict[str, Any]) -> Table:
    table = prefixed(resnet_keys(module.backbone), "backbone.body.", "backbone.")
    for i in range(len(module.neck.laterals)):
        for torch, ours in (("inner_blocks", "laterals"), ("layer_blocks", "smooth")):
            table |= conv(f"backbone.fpn.{names['neck'].format(torch, i)}", f"neck.{ours}.{i}")
    table |= prefixed(rpn_keys(names["rpn"], "cls_logits", "bbox_pred"), "rpn.head.", "rpn.")
    table |= prefixed(box_keys(module.box, *_BOX), "roi_heads.", "box.")
    masks = mask_keys(module.mask, names["layer"], *_MASK, start=names["start"])
    return table | prefixed(masks, "roi_heads.", "mask.")


def _torchvision(config: dict[str, Any]) -> tuple[nnx.Module, *tuple[Table, ...]]:
    """Beside `num_classes`: depth of the ResNet, and widths, as their constructors have them."""
    depth = config.get("depth", 50)
    backbone = ResNet(depth=depth, bottleneck=config.get("bottleneck"), **options(config))
    for _, node in nnx.iter_graph(backbone):
        if isinstance(node, nnx.BatchNorm):
            node.epsilon = config.get("norm_epsilon", 1e-5)
    module = MaskRCNN(
        config["num_classes"] - 1,
        backbone=backbone,
        features=config.get("out_channels", 256),
        hidden=config.get("representation_size", 1024),
        mask_layers=config.get("mask_layers", (256,) * 4),
        mask_features=config.get("mask_dim_reduced", 256),
        **options(config),
    )
    return module, _torchvision_keys(module, _TORCHVISION), _torchvision_keys(module, _OLDER)


def _of_heads(config: dict[str, Any]) -> dict[str, Any]:
    heads = config["roi_head"]
    box, mask = heads["bbox_head"], heads.get("mask_head", {})
    width = mask.get("conv_out_channels", 256)
    return dict(
        features=(config.get("neck") or {}).get("out_channels", 256),
        hidden=box.get("fc_out_channels", 1024),
        mask_layers=(width,) * mask.get("num_convs", 4),
        mask_features=width,
        convention="mmdet",
    )


def mmdet_keys(module: MaskRCNN, ours: str = "") -> Table:
    """Names of mmdetection: `neck.`, `rpn_head.`, `roi_head.bbox_head.`, `roi_head.mask_head.`."""
    table = prefixed(fpn_keys(module.neck, norm=False), "neck.", "neck.")
    table |= prefixed(rpn_keys("rpn_conv", "rpn_cls", "rpn_reg"), "rpn_head.", "rpn.")
    boxes = box_keys(module.box, "shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")
    table |= prefixed(boxes, "roi_head.bbox_head.", "box.")
    masks = mask_keys(module.mask, "convs.{}.conv", "upsample", "conv_logits")
    return prefixed(table | prefixed(masks, "roi_head.mask_head.", "mask."), "", ours)


def _mmdet(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    backbone, table = backbone_of(config)
    classes = config["roi_head"]["bbox_head"]["num_classes"]
    module = MaskRCNN(classes, backbone=backbone, **_of_heads(config), **options(config))
    return module, table | mmdet_keys(module)


def _panoptic(config: dict[str, Any]) -> tuple[nnx.Module, Table]:
    backbone, table = backbone_of(config)
    head, classes = config["semantic_head"], config["roi_head"]["bbox_head"]["num_classes"]
    module = PanopticFPN(
        classes,
        stuff_classes=head["num_stuff_classes"],
        semantic_features=head.get("inner_channels", 128),
        semantic_weight=(head.get("loss_seg") or {}).get("loss_weight", 0.5),
        backbone=backbone,
        **_of_heads(config),
        **options(config),
    )
    table = prefixed(table, "", "instances.") | mmdet_keys(module.instances, "instances.")
    return module, table | prefixed(semantic_keys(module.semantic), "semantic_head.", "semantic.")


OPERATORS: Operators = {
    "maskrcnn_resnet50_fpn": _torchvision,
    "mmdet.MaskRCNN": _mmdet,
    "mmdet.PanopticFPN": _panoptic,
}
