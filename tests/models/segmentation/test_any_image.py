"""Every network of the folder: an image of any size by values, in float32 and in bfloat16; no network is left out."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.models import segmentation
from tests.compare import assert_close
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.models.segmentation import (
    test_deeplabv2,
    test_fpn,
    test_maskformer,
    test_pspnet,
    test_segformer,
    test_segmenter,
    test_segnet,
    test_transunet,
    test_upernet,
)

SMALL = {
    "DeepLabV2": test_deeplabv2.NETWORK,
    "MaskFormer": test_maskformer.small,
    "PSPNet": partial(segmentation.PSPNet, 5, **test_pspnet.SMALL),
    "SegFormer": test_segformer.small,
    "SegNet": partial(segmentation.SegNet, 5, **test_segnet.SMALL),
    "Segmenter": test_segmenter.small,
    "SemanticFPN": partial(segmentation.SemanticFPN, 5, **test_fpn.SMALL),
    "TransUNet": test_transunet.small,
    "UperNet": partial(segmentation.UperNet, 5, **test_upernet.SMALL),
}


def test_all_are_here():
    """A network is what has classes and the outputs of its parts."""
    found = {name: getattr(segmentation, name) for name in segmentation.__all__}
    classes = {name: x for name, x in found.items() if hasattr(x, "outputs") and not name.endswith("Head")}
    assert classes.keys() == SMALL.keys() | {"MaskRCNN", "PanopticFPN"}  # whose outputs are no logits of an image
    for name in SMALL:
        network = classes[name]
        first, *options, last = inspect.signature(network.__init__).parameters.values()
        assert [p.name for p in (first, options[0], last)] == ["self", "num_classes", "rngs"], name
        assert {"upsampler", "dtype"} <= {p.name for p in options}, name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"SegNet"}))
def test_both_types_are_near(name):
    """Logits of a batch of 1 whose sides are no multiples of the strides; parameters stay float32.

    In SegNet rounding moves the places of largest values, and what is unpooled there, by a pixel.
    """
    build, x = SMALL[name], image(37, 50)
    graph, state = nnx.split(filled(lambda rngs: build(rngs=rngs)))
    half = nnx.split(abstract(lambda rngs: build(dtype=jnp.bfloat16, rngs=rngs)))[0]

    def logits(graph, state, x):
        network = nnx.merge(graph, state, copy=True)
        network.eval()
        return network(x)

    @jax.jit
    def run(state, x):
        return logits(graph, state, x), logits(half, state, x.astype(jnp.bfloat16))

    y, rounded = run(state, x)
    assert np.ptp(y) > 0 and (y.dtype, rounded.dtype) == (jnp.float32, jnp.bfloat16)
    assert_close(rounded.astype(jnp.float32), y, 0.1)
