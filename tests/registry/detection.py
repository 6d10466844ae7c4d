"""Operators of detection. Boxes are drawn as a corner and sides, which are positive."""

import jax.numpy as jnp

from jaxup import ops
from jaxup.ops.boxes import check_boxes
from tests.registry.examples import Example, Inputs, ModuleExample


def _boxes(drawn, side):
    """Of numbers from -1 to 1: corners within the image, sides up to half of it."""
    check_boxes("drawn", drawn)
    low, sides = (drawn[..., :2] + 1) / 2, (drawn[..., 2:] + 1.2) / 4
    return jnp.concatenate([low, low + sides], axis=-1) * side


def _roi_align(x, drawn):
    return ops.roi_align(x, _boxes(drawn, 8), size=2, stride=2)


def _levels(fine, coarse, drawn):
    return ops.multilevel_roi_align(_boxes(drawn, 12), fine, coarse, size=2, strides=(2, 4), canonical=(4, 1))


def _coding(a, b):
    a, b = _boxes(a, 1), _boxes(b, 1)
    return ops.box_iou(a, b, generalised=True), ops.encode_boxes(a, b), ops.decode_boxes(a - b, b, both_sides=True)


def _paste(masks, drawn):
    return ops.paste_masks(masks, _boxes(drawn, 6), size=(5, 7), whole_pixels=False)


EXAMPLES = [
    Example("roi_align", _roi_align, Inputs(lambda h, w: [(h, w, 4), (5, 4)]), scratch=(2, 10)),
    Example(
        "multilevel_roi_align",
        _levels,
        Inputs(lambda h, w: [(2 * h, 2 * w, 4), (h, w, 4), (5, 4)]),
        scratch=(4, 12),
        nightly=True,
    ),
    Example("box_coding", _coding, Inputs(lambda h, w: [(h * w, 4), (h * w, 4)]), scratch=(8, 16), nightly=True),
    Example("paste_masks", _paste, Inputs(lambda h, w: [(5, h + 1, h + 1), (5, 4)]), scratch=(8, 16), nightly=True),
]
MODULES: list[ModuleExample] = []
