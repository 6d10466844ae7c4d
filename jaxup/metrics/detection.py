"""Average precision of detected boxes and masks, by pycocotools, as everyone measures it."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxup._checks import fail
from jaxup.files import require

_SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
Objects = Mapping[str, Any]


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Masks as run lengths of pycocotools, in which those of a whole data set fit into memory.

    Args:
        masks: booleans [N, H, W].

    Returns:
        A dictionary "size", [H, W], and "counts", a string, for each: JSON can hold them.

    Raises:
        ValueError: no such masks, or (InputError) pycocotools is not installed: it comes with `jaxup[detection]`.

    Example:
        >>> encode_masks(np.array([[[True, False], [True, False]]]))  # doctest: +SKIP
        [{'size': [2, 2], 'counts': '022'}]

    Reference:
        Lin et al., Microsoft COCO, ECCV 2014; pycocotools (BSD-2-Clause).
    """
    if masks.ndim != 3 or masks.dtype != bool:
        fail("masks", "booleans [N, H, W]", f"{masks.dtype} {list(masks.shape)}")
    coder = require("pycocotools.mask")
    codes = coder.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [{**code, "counts": code["counts"].decode()} for code in codes]


def average_precision(*, found: Sequence[Objects], truth: Sequence[Objects], masks: bool = False) -> dict[str, float]:
    """COCO's average precision of detections in a set of images, of boxes or of masks.

    AP is the mean over classes and over the IoU from 0.5 to 0.95 in steps of 0.05, of at most 100 detections of an
    image; AP50 and AP75 are those at one IoU, APs, APm and APl those of objects of less than 32 x 32 pixels, of up to
    96 x 96, and of more. What lies in a crowd of its class is neither right nor wrong.

    Args:
        found: for each image "boxes" [N, 4], (x1, y1, x2, y2) in pixels, "scores" [N], "labels", integers [N], and
            "masks", booleans [N, H, W] or what `encode_masks` made of them. Entries with a label below 0 are none.
        truth: likewise; with "crowd", booleans [N], where there are crowds, and no "scores". "areas" [N] decide on the
            size of objects; else those of the masks do, or of the boxes where there are no masks.
        masks: by masks; else by boxes.

    Returns:
        "AP", "AP50", "AP75", "APs", "APm" and "APl", from 0 to 1; NaN where there is no object of that kind.

    Raises:
        ValueError: lengths that do not fit, or (InputError) pycocotools is not installed: it comes with
            `jaxup[detection]`.

    Example:
        >>> truth = {"boxes": np.array([[0, 0, 10, 10]]), "labels": np.array([0])}
        >>> found = {"boxes": np.array([[0, 0, 10, 8]]), "labels": np.array([0]), "scores": np.array([0.9])}
        >>> round(average_precision(found=[found], truth=[truth])["AP75"], 3)  # doctest: +SKIP
        1.0

    Reference:
        Lin et al., Microsoft COCO, ECCV 2014; pycocotools (BSD-2-Clause).
    """
    if len(found) != len(truth):
        fail("found", f"as many images as truth, {len(truth)}", len(found))
    index, evaluation = require("pycocotools.coco").COCO, require("pycocotools.cocoeval").COCOeval
    categories = {int(k) for image in truth for k in np.asarray(image["labels"]).ravel() if k >= 0}
    sets = []
    with contextlib.redirect_stdout(io.StringIO()):
        for name, images in (("truth", truth), ("found", found)):
            rows = [row for n, image in enumerate(images) for row in _rows(name, n, image, masks)]
            numbered = [{"id": number, **row} for number, row in enumerate(rows, 1)]  # 0 means no match there
            sets.append(index())
            sets[-1].dataset = {
                "images": [{"id": n, "height": 0, "width": 0} for n in range(len(images))],
                "categories": [{"id": k} for k in sorted(categories)],
                "annotations": [row for row in numbered if row["category_id"] in categories],
            }
            sets[-1].createIndex()
        measured = evaluation(*sets, "segm" if masks else "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(_SCORES, measured.stats[:6].tolist(), strict=True)
    }


def _rows(name: str, number: int, image: Objects, masks: bool) -> list[dict[str, Any]]:
    """The objects of an image as pycocotools has them."""
    labels, boxes = np.asarray(image["labels"]), np.asarray(image["boxes"], np.float64)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes  # an empty list is none, too
    if labels.ndim != 1 or boxes.shape != (*labels.shape, 4):
        fail(name, f"labels [N] and boxes [N, 4] of image {number}", f"shapes {labels.shape} and {boxes.shape}")
    sides = boxes[:, 2:] - boxes[:, :2]
    columns = {"bbox": np.concatenate([boxes[:, :2], sides], axis=1).tolist(), "area": sides.prod(axis=1).tolist()}
    if masks or (name == "truth" and "masks" in image and "areas" not in image):
        given = image["masks"]
        codes = encode_masks(given) if isinstance(given, np.ndarray) else list(given)
        columns |= {"segmentation": codes, "area": require("pycocotools.mask").area(codes).tolist() if codes else []}
    if name == "truth":
        columns["iscrowd"] = np.asarray(image.get("crowd", np.zeros(len(labels)))).astype(int).tolist()
        columns |= {"area": np.asarray(image["areas"]).tolist()} if "areas" in image else {}
    else:
        columns["score"] = np.asarray(image["scores"]).tolist()
    for column, values in columns.items():
        if len(values) != len(labels):
            fail(name, f"{len(labels)} of each kind in image {number}", f"{len(values)} of {column}")
    return [
        {"image_id": number, "category_id": int(label), **{column: values[n] for column, values in columns.items()}}
        for n, label in enumerate(labels)
        if label >= 0
    ]
