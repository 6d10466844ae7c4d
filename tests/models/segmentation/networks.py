"""What every segmentation network must do."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup.interop import from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models import ResNet
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import filled


def small_resnet(output_stride=32, widths=(6, 8, 10, 12), stem_features=4):
    """A function that builds one block a stage."""

    def build(dtype, rngs):
        sizes = dict(widths=widths, stem_features=stem_features, output_stride=output_stride)
        return ResNet(depth=(1,) * 4, bottleneck=False, **sizes, dtype=dtype, rngs=rngs)

    return build


def check_types(build, shape, size=(37, 50)):
    """Logits of this shape for an image of any size, in its type, whatever the layers compute in."""
    for inside, dtype in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        run = lambda x, inside=inside: build(dtype=inside, rngs=Shapes())(x)  # noqa: E731
        y = nnx.eval_shape(run, jax.ShapeDtypeStruct((1, *size, 3), dtype))
        assert (y.shape, y.dtype) == (shape, dtype)


def check_gradients(build, x):
    """Every parameter has a gradient, and all are finite.

    `build(dtype=, rngs=)` makes the network; in evaluation a bias in front of a norm has a gradient, too.
    """
    graph, params, rest = nnx.split(filled(lambda rngs: build(dtype=jnp.float32, rngs=rngs)), nnx.Param, ...)
    # Large activations would leave nothing of the gradient of a sigmoid.
    params = jax.tree.map(lambda x: x if x.ndim < 2 else x * (4 / np.prod(x.shape[:-1]) ** 0.5), params)

    def loss(params, x):
        network = nnx.merge(graph, params, rest, copy=True)
        network.eval()
        found = network.outputs(x)
        return sum(jnp.mean(jnp.sin(found[name])) for name in ("logits", "auxiliary") if name in found)

    gradients, grad_x = jax.jit(jax.grad(loss, (0, 1)))(params, x)
    assert_finite((gradients, grad_x))
    assert [path for path, g in nnx.to_flat_state(gradients) if not np.any(g[...])] == []


def check_dropout(network, x):
    """Channels are dropped only with a source, another choice for each key."""
    network.eval()
    graph, state = nnx.split(network)

    @jax.jit
    def run(state, x, key):
        network = nnx.merge(graph, state)
        return network(x, nnx.Rngs(key)), network(x)

    (first, plain), (second, again) = (run(state, x, jax.random.key(i)) for i in (1, 2))
    assert_close(plain, again, 0.0)
    assert np.abs(first - second).max() > 1e-3 and np.abs(first - plain).max() > 1e-3


def check_round_trip(operator, tensors, config):
    """Every tensor comes back as it was."""
    module = from_torch(operator, tensors, config)
    back = to_torch(operator, module, config)
    assert back.keys() == {name for name in tensors if not name.endswith("num_batches_tracked")}
    for name, x in back.items():
        np.testing.assert_array_equal(x, tensors[name], err_msg=name)
    return module
