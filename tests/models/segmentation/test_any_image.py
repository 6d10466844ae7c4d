"""Every network of the folder: images whose sides are no multiples of its strides, batch 1, gradients, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop.backbones import Shapes
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.models.segmentation import test_maskformer, test_segformer, test_segmenter, test_transunet

SMALL = {
    "MaskFormer": test_maskformer.small,
    "SegFormer": test_segformer.small,
    "Segmenter": test_segmenter.small,
    "TransUNet": test_transunet.small,
}
STRIDE = {"MaskFormer": 4, "SegFormer": 4, "Segmenter": 16, "TransUNet": 1}
# No influence: biases of keys, and of convolutions and sums in front of a norm; and as MaskFormer's queries start at
# zero, its first layer sees nothing of them but the bias of their values.
WITHOUT_GRADIENT = {"bias", "class_token", "to_queries"}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(37, 50), (64, 33)])
def test_shapes(name, size):
    def run(x):
        return SMALL[name](dtype=jnp.bfloat16, rngs=Shapes())(x)

    y = nnx.eval_shape(run, jax.ShapeDtypeStruct((1, *size, 3), jnp.bfloat16))
    sides = [-(-n // STRIDE[name]) for n in size]
    assert y.shape[:3] == (1, *sides) and y.dtype == jnp.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_gradients_and_types(name):
    """Parameters are float32; bfloat16 inside is near."""
    build, x = SMALL[name], image(37, 50)
    graph, params, rest = nnx.split(filled(lambda rngs: build(rngs=rngs)), nnx.Param, ...)
    half = nnx.split(abstract(lambda rngs: build(dtype=jnp.bfloat16, rngs=rngs)), nnx.Param, ...)[0]

    def logits(graph, params, x):
        network = nnx.merge(graph, params, rest, copy=True)
        network.eval()
        return network(x)

    def loss(params, x):
        y = logits(graph, params, x)
        return jnp.mean(jnp.sin(y)), y

    @jax.jit
    def run(params, x):
        return jax.grad(loss, (0, 1), has_aux=True)(params, x), logits(half, params, x.astype(jnp.bfloat16))

    ((gradients, grad_x), y), rounded = run(params, x)
    assert y.dtype == jnp.float32 and rounded.dtype == jnp.bfloat16
    assert_finite((gradients, grad_x))
    assert np.any(grad_x)
    unused = {path for path, g in nnx.to_flat_state(gradients) if not np.any(g[...])}
    assert [path for path in unused if not set(path) & WITHOUT_GRADIENT] == []
    assert_close(rounded.astype(jnp.float32), y, 0.1)
