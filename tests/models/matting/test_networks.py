"""Matting networks on MobileNetV2 and VGG: sizes, types, gradients, pairs of stages, and what their options are for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.interop import from_torch, to_torch
from jaxup.models.matting import DeepLabMatting, DeepMatting, MattingNetwork, RefineNetMatting
from jaxup.models.resampling import RESAMPLINGS
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import abstract, filled, official
from tests.modules import call, random
from tests.registry.examples import marked

more = partial(pytest.param, marks=pytest.mark.thorough)
small = partial(MattingNetwork, multiplier=0.125, aspp=False, kernel_size=3)
NETWORKS = {
    "matting": partial(small, upsampler="holistic"),
    "deeplab": partial(DeepLabMatting, multiplier=0.125, kernel_size=1),
    "refinenet": partial(RefineNetMatting, multiplier=0.125, kernel_size=1),
    "deep_matting": partial(DeepMatting, features=2),
}
each = pytest.mark.parametrize("name", marked(NETWORKS, {"deep_matting"}))


def shaped(build, *shape, dtype=jnp.float32):
    """What the network makes of such an image."""
    return nnx.eval_shape(lambda n, x: n(x), abstract(build), jax.ShapeDtypeStruct(shape, dtype))


@each
@pytest.mark.first(1, 1)
def test_types_and_any_size(name):
    for inside, dtype in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        for size in ((37, 50), (1, 1)):
            y = shaped(partial(NETWORKS[name], dtype=inside), 1, *size, 4, dtype=dtype)
            assert (y.shape, y.dtype) == ((1, *size, 1), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_halves(name):
    """Every parameter has a gradient, and all are finite; bfloat16 inside is near."""
    build, x = NETWORKS[name], random(1, 37, 50, 4)
    graph, params, rest = nnx.split(filled(build), nnx.Param, ...)
    half = nnx.split(abstract(partial(build, dtype=jnp.bfloat16)), nnx.Param, ...)[0]
    # Large activations would leave nothing of the gradients of ReLU6 and of the sigmoid.
    gain = 0.5 if name == "refinenet" else 5  # which sums many maps
    params = jax.tree.map(lambda x: x if x.ndim < 4 else x * (gain / np.prod(x.shape[:3]) ** 0.5), params)

    def alpha(graph, params, x):
        network = nnx.merge(graph, params, rest, copy=True)
        network.eval()
        return network(x)

    @jax.jit
    def run(params, x):
        loss = lambda params, x: jnp.mean(jnp.sin(alpha(graph, params, x)))  # noqa: E731
        return jax.grad(loss, (0, 1))(params, x), alpha(graph, params, x), alpha(half, params, x)

    (gradients, grad_x), y, rounded = run(params, x)
    assert_finite((gradients, grad_x, y))
    assert np.any(grad_x) and np.ptp(y) > 0 and rounded.dtype == jnp.float32
    assert [path for path, g in nnx.to_flat_state(gradients) if not np.any(g[...])] == []
    assert np.abs(rounded - y).mean() <= 0.1 * np.abs(y).max()


FORMS = {"m2o": (8, 4), "holistic": (8, 8), "unshared_o2o-bilinear": (8, 4)}
PAIRS = [name for name, stage in RESAMPLINGS.items() if stage.packed == 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "upsampler", marked(PAIRS, {"max-bilinear"}, set(PAIRS) - {"max-carafe", "holistic-max-unpool", "m2o"})
)
def test_any_pair_of_stages(upsampler):
    """At odd sizes of every map."""
    assert shaped(partial(small, upsampler=upsampler), 1, 37, 50, 4).shape == (1, 37, 50, 1)
    assert shaped(partial(DeepMatting, features=2, upsampler=upsampler), 1, 37, 50, 4).shape == (1, 37, 50, 1)


@pytest.mark.thorough
@pytest.mark.parametrize(("stride", "layers"), [more(32, (0, 2, 3, 4, 6)), more(16, (0, 2, 3, 4)), (8, (0, 2, 3))])
def test_output_stride(stride, layers):
    """Stages behind the last pooling are dilated, the first block of a stage that had a stride half as much."""
    network = abstract(partial(small, output_stride=stride))
    assert network.pooled == layers
    rates = [block.depthwise.conv.kernel_dilation for block in network.encoder.blocks]
    deepest = {32: [1, 1, 1, 1, 1, 1], 16: [1, 1, 1, 1, 2, 2], 8: [1, 2, 2, 2, 4, 4]}[stride]
    assert [rates[i] for i in (6, 7, 12, 13, 15, 16)] == deepest
    assert set(network.encoder.strides) == {1}


@pytest.mark.slow
def test_alpha_by_hand():
    """The last stages: indices that pooled upsample, and the map that is fused is the one that they weighted."""
    network = filled(partial(small, upsampler="m2o", multiplier=0.0625))
    network.eval()
    graph, state = nnx.split(network)
    plain = MattingNetwork._fuse

    @jax.jit
    def run(state, x):
        network, seen = nnx.merge(graph, state), []

        def spy(self, y, skip):
            seen.append((y, skip))
            return plain(self, y, skip)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MattingNetwork, "_fuse", spy)
            memories = network.outputs(x)["memories"]
        first = network.encoder.stem(x)
        even = jnp.concatenate([first, first[:, -1:]], axis=1)
        index = network.resampling.down_layers[0](even)
        before = jnp.concatenate(seen[-2], axis=3)
        for block in network.decoder[-2]:
            before = block(before)
        up = ops.indexed_upsample(before, index.decoder)[:, :33]
        return (*memories, *seen[-1]), (index, up, (index.encoder * even)[:, :33])

    (found, *others, y, skip), expected = run(state, random(1, 33, 34, 4))
    assert len(others) == 4
    assert_close((found, y, skip), expected, 1e-5)


@pytest.mark.thorough
def test_fusion():
    """Widths of the decoder's blocks: alone, with the encoder's map added, or beside it."""
    inputs = [160, 96, 64, 32, 24, 16, 32]
    for fusion, factor in {"skip": 1, "concat": 2}.items():
        network = abstract(partial(MattingNetwork, fusion=fusion))
        assert [block[0].conv.in_features for block in network.decoder] == [factor * n for n in inputs]
        assert [block[0].conv.out_features for block in network.decoder] == [*inputs[1:], 32]
    y, skip = random(1, 2, 3, 4), random(1, 2, 3, 4) + 1
    for fusion, expected in {"none": y, "skip": y + skip, "concat": np.concatenate([y, skip], 3)}.items():
        network.fusion = fusion
        assert_close(network._fuse(y, skip), expected, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("family", marked(FORMS, {"m2o"}))
def test_forms_of_index_networks(family):
    """Hidden maps and activation of paper and code."""
    for form, width, activation in zip(("paper", "official"), FORMS[family], (nnx.relu, nnx.relu6), strict=True):
        network = abstract(partial(small, upsampler=family, nonlinear=True, form=form))
        column = network.resampling.down_layers[0].columns[0]
        assert (column.norm.num_features, column.activation.function) == (width, activation)


@pytest.mark.thorough
def test_form_of_other_stages():
    assert not abstract(partial(small, form="official")).resampling.down_layers


@pytest.mark.thorough
@pytest.mark.first(1, 2)
def test_fixed_norms():
    """As the paper trains: the encoder's statistics stay."""
    network = filled(partial(DeepMatting, features=2))
    network.train()
    network.encoder.eval()
    before = jax.tree.map(np.asarray, nnx.state(network.encoder))
    call(network, random(1, 32, 32, 4))
    assert_close(nnx.state(network.encoder), before, 0)


@pytest.mark.slow
def test_dropout():
    """In training mode half of the context's outputs are dropped, where there is a source."""
    context = filled(partial(MattingNetwork, multiplier=0.0625)).context
    context.eval()
    x = random(1, 4, 4, context.in_features)
    plain, evaluated = context(x), context(x, rngs=nnx.Rngs(0))
    context.dropout.set_attributes(deterministic=False)
    dropped = context(x, rngs=nnx.Rngs(0))
    assert_close(evaluated, plain, 0)
    kept = np.asarray(dropped) != 0
    assert 0.2 < kept[np.asarray(plain) != 0].mean() < 0.8
    assert_close(dropped, jnp.where(kept, 2 * plain, 0), 1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("operator", "build", "stem"),
    [
        ("vgg16_bn", DeepMatting, "features.0.weight"),
        more("mobilenet_v2", MattingNetwork, "features.0.0.weight"),
        more("MobileNetV2Dilated", MattingNetwork, "features.0.0.weight"),
        more("mobilenetv2_100", RefineNetMatting, "conv_stem.weight"),
        more("efficientnet-lite0", partial(DeepLabMatting, backbone="efficientnet_lite0"), "_conv_stem.weight"),
    ],
)
def test_weights_of_imagenet(operator, build, stem):
    """Filters of the trimap are zero."""
    tensors = official(operator, {})
    tensors[stem] = tensors[stem] + random(*tensors[stem].shape)
    backbone = from_torch(operator, tensors, {"extra_channels": 1})
    network = abstract(build)
    nnx.update(network.encoder, nnx.state(backbone))
    first = network.encoder.stages[0][0] if operator == "vgg16_bn" else network.encoder.stem
    kernel = first.conv.kernel[...]
    assert_close(kernel[:, :, :3], tensors[stem].transpose(2, 3, 1, 0), 0)
    assert kernel.shape[2] == 4 and not np.any(kernel[:, :, 3])
    back = to_torch(operator, backbone, {"extra_channels": 1})
    assert back.keys() == tensors.keys()
    assert_close(back[stem], tensors[stem], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(fusion="add"), "fusion: expected one of 'none', 'skip', 'concat', got 'add'"),
        (dict(upsampler="space-to-depth"), "upsampler: expected one of 'avg-nearest'"),
        (dict(output_stride=4), "output_stride: expected one of 8, 16, 32, got 4"),
        (dict(kernel_size=4), "kernel_size: expected an odd integer, got 4"),
        (dict(form="code"), "form: expected one of 'paper', 'official', got 'code'"),
        (dict(backbone="resnet50"), "backbone: expected one of 'mobilenet_v2', 'efficientnet_lite0'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        abstract(partial(MattingNetwork, **options))


def test_errors_of_images():
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, \*, \*, 4\)"):
        shaped(NETWORKS["deep_matting"], 1, 32, 32, 3)
