"""Operators and heads of detection."""

from functools import partial

import jax.numpy as jnp

from jaxup import ops
from jaxup.interop.backbones import Shapes
from jaxup.interop.keys import prefixed, read, unfilled
from jaxup.interop.mask_rcnn import box_keys, mask_keys, rpn_keys, semantic_keys
from jaxup.models.segmentation.detection_heads import BoxHead, MaskHead, RPNHead
from jaxup.models.segmentation.panoptic_fpn import SemanticHead
from tests.golden_cases.converted import Function


def roi_align(inputs, params, config):
    """A list of boxes with the numbers of their images: all boxes of all images, and of these each one's."""
    rois, x = inputs["rois"], inputs["x"]
    images = rois[:, 0].astype(jnp.int32)
    boxes = jnp.broadcast_to(rois[None, :, 1:], (len(x), len(rois), 4))
    options = {name: config[name] for name in ("sampling_ratio", "aligned")}
    y = ops.roi_align(x, boxes, size=tuple(config["output_size"]), stride=1 / config["spatial_scale"], **options)
    return y[images, jnp.arange(len(rois))]


def multiscale(inputs, params, config):
    """torchvision numbers levels by the logarithm of their strides."""
    maps = [inputs[name] for name in sorted(inputs) if name != "boxes"]
    strides = tuple(config["image_size"][0] / x.shape[1] for x in maps)
    found = ops.multilevel_roi_align(
        inputs["boxes"][None],
        *maps,
        size=config["output_size"],
        strides=strides,
        sampling_ratio=config["sampling_ratio"],
        aligned=False,
        canonical=(config["canonical_scale"], config["canonical_level"] - 2),
    )
    return found[0]


def helpers(inputs, params, config):
    anchors, boxes = inputs["proposals"], inputs["reference"]
    found = {}
    for name, weights in (("w1", (1.0,) * 4), ("w10", (10.0, 10.0, 5.0, 5.0))):
        found[f"deltas_{name}"] = ops.encode_boxes(boxes, anchors, weights=weights)
        deltas = inputs[f"code_{name}"].reshape(len(anchors), -1, 4)
        decoded = ops.decode_boxes(deltas, anchors[:, None], weights=weights, limit=config["bbox_xform_clip"])
        found[f"decoded_{name}"] = decoded.reshape(len(anchors), -1)
    found["iou"] = ops.box_iou(anchors, boxes)
    found["giou"] = ops.box_iou(anchors, boxes, generalised=True)
    of_nms = [inputs[f"nms_{name}"] for name in ("boxes", "scores", "labels")]
    for threshold in (0.3, 0.5, 0.7):
        options = dict(threshold=threshold, count=len(of_nms[0]))
        for name, given in (("nms", of_nms[:2]), ("batched_nms", of_nms)):
            kept = ops.nms(*given, **options)
            found[f"{name}_{threshold}"] = kept[kept >= 0]
    matcher = config["matcher"]
    options = dict(high=matcher["high"], low=matcher["low"], low_quality=matcher["allow_low_quality"])
    found["matcher"] = ops.match_boxes(found["iou"], **options)
    cells = []
    for i, (sizes, shape) in enumerate(zip(config["anchor_sizes"], config["feature_sizes"], strict=True)):
        strides = tuple(float(n // m) for n, m in zip(config["image_size"], shape, strict=True))
        cells.append(_anchors(tuple(shape), strides, sizes, config["aspect_ratios"], True))
        found[f"cell_anchors{i}"] = cells[-1][:3]
    found["anchors"] = jnp.concatenate(cells)
    found["pasted"] = ops.paste_masks(inputs["paste_masks"], inputs["paste_boxes"], size=tuple(config["paste_image"]))
    return found


def mmdet_helpers(inputs, params, config):
    found, cells = {}, []
    for i, (stride, shape) in enumerate(zip(config["strides"], config["feature_sizes"], strict=True)):
        sizes = [stride * scale for scale in config["scales"]]
        cells.append(_anchors(tuple(shape), float(stride), sizes, config["ratios"], False))
        found[f"base_anchors{i}"] = cells[-1][:3]
    found["anchors"] = jnp.concatenate(cells)[::7]
    for name, weights in (("rpn", (1.0,) * 4), ("roi", (10.0, 10.0, 5.0, 5.0))):
        found[f"encode_{name}"] = ops.encode_boxes(inputs["gt"], inputs["rois"], weights=weights)
        decoded = ops.decode_boxes(inputs[f"delta_{name}"], inputs["rois"], weights=weights, both_sides=True)
        found[f"decode_{name}"] = ops.clip_boxes(decoded, jnp.asarray(config["max_shape"], decoded.dtype))
    return found


def _anchors(shape, stride, sizes, ratios, rounded):
    return ops.grid_anchors(shape=shape, stride=stride, sizes=sizes, ratios=ratios, rounded=rounded)


def _head(build, table_of, params, config):
    """A head with its part of the case's parameters."""
    module = unfilled(lambda: build(dtype=config.get("dtype", jnp.float32), rngs=Shapes()))
    table = table_of(module)
    return read(table, {name: params[name] for name in table}, module)


def torchvision_heads(inputs, params, config):
    names = [f"rpn_head.{name}" for name in ("conv.0.0", "cls_logits", "bbox_pred")]
    box = ("box_head.fc6", "box_head.fc7", "box_predictor.cls_score", "box_predictor.bbox_pred")
    mask = ("mask_head.{}.0", "mask_predictor.conv5_mask", "mask_predictor.mask_fcn_logits")
    width, classes, layers = config["channels"], config["num_classes"], config["mask_layers"]
    widths = config["representation"], classes, classes, layers, config["mask_dim_reduced"]
    y = _heads(inputs, params, config, (names, box, mask), width, *widths)
    return dict(zip(("objectness", "rpn_deltas", "class_logits", "box_regression", "mask_logits"), y, strict=True))


def mmdet_heads(inputs, params, config):
    names = [f"rpn_head.rpn_{name}" for name in ("conv", "cls", "reg")]
    box = [f"roi_head.bbox_head.{name}" for name in ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")]
    mask = [f"roi_head.mask_head.{name}" for name in ("convs.{}.conv", "upsample", "conv_logits")]
    width, classes, layers = config["channels"], config["num_classes"], [config["channels"]] * config["mask_convs"]
    widths = config["fc_out"], classes + 1, classes, layers, width
    y = _heads(inputs, params, config, (names, box, mask), width, *widths)
    build = partial(SemanticHead, width, config["stuff_classes"] + 1, hidden=config["semantic_inner"])
    semantic = _head(build, lambda module: prefixed(semantic_keys(module), "semantic_head.", ""), params, config)
    names = ("rpn_cls", "rpn_reg", "cls_score", "bbox_pred", "mask_logits", "seg_preds")
    return dict(zip(names, (*y, semantic([inputs[f"p{i}"] for i in range(4)])), strict=True))


def _heads(inputs, params, config, names, width, hidden, classes, boxes, layers, doubled):
    rpn = _head(partial(RPNHead, width, config["anchors"]), lambda _: rpn_keys(*names[0]), params, config)
    build = partial(BoxHead, width, hidden, classes, boxes)
    box = _head(build, lambda module: box_keys(module, *names[1]), params, config)
    build = partial(MaskHead, width, layers, doubled, boxes)
    mask = _head(build, lambda module: mask_keys(module, *names[2]), params, config)
    logits, deltas = box(inputs["box_rois"])
    return *rpn(inputs["feat"]), logits, deltas.reshape(len(deltas), -1), mask(inputs["mask_rois"])


OPERATORS: dict[str, Function] = {
    "Mask R-CNN heads (torchvision names)": torchvision_heads,
    "Mask R-CNN and Panoptic FPN heads (mmdet names)": mmdet_heads,
    "roi_align": roi_align,
    "MultiScaleRoIAlign": multiscale,
    "detection helpers": helpers,
    "mmdet helpers": mmdet_helpers,
}
# Lists of results have as many entries as there are.
ON_HOST = {"detection helpers", "mmdet helpers"}
