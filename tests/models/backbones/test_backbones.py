"""Every backbone: its size, any size of image, types, training mode, and what its options are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models.backbones import (
    BACKBONES,
    VGG,
    DenseNet,
    MiT,
    MobileNetV1,
    MobileNetV2,
    ResNet,
    SENet,
    Swin,
    ViT,
    make_backbone,
)
from jaxup.models.backbones.layers import dilated, max_pool
from jaxup.models.backbones.mobilenet_v2 import _width
from jaxup.models.backbones.senet import _margin
from jaxup.ops.regions import convolve_many_groups
from tests.compare import assert_close, assert_finite
from tests.modules import on_device

slow = pytest.mark.slow

# Without classifiers: published counts less the layers behind the last map; ViT: timm's;
# encoders of features: published counts less mask tokens, masked biases of keys and projections to texts;
# MiT-B1: SegFormer's 13.716 M less its head; Swin-T: 28.288 M less head and norm, and the norms of four maps.
SIZES = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
    "senet154": 115_088_984 - 2_049_000,
    "densenet161": 28_681_000 - 2_209_000,
    "vgg16_bn": 138_365_992 - 123_642_856,
    "mobilenet_v1": 4_231_976 - 1_025_000,
    "mobilenet_v2": 3_504_872 - 1_281_000 - 412_160,
    "efficientnet_lite0": 4_652_008 - 1_281_000 - 412_160,
    "vit_ti": 5_717_416 - 193_000,
    "vit_s": 22_050_664 - 385_000,
    "vit_b": 86_567_656 - 769_000,
    "vit_l": 304_326_632 - 1_025_000,
    "mit_b0": 3_319_392,
    "mit_b1": 13_151_424,
    "mit_b2": 24_196_288,
    "mit_b3": 44_072_128,
    "mit_b4": 60_842_688,
    "mit_b5": 81_443_008,
    "swin_t": 28_288_354 - 769_000 - 1_536 + 2_880,
    "swin_s": 49_606_258 - 769_000 - 1_536 + 2_880,
    "swin_b": 86_880_376,
    "swin_l": 195_201_204,
    "dinov2_s14": 22_056_576 - 384,
    "dinov2_b14": 86_580_480 - 768,
    "dinov2_l14": 304_368_640 - 1_024,
    "dinov2_s14_reg": 22_056_576 - 384 + 4 * 384,
    "dinov2_b14_reg": 86_580_480 - 768 + 4 * 768,
    "dinov2_l14_reg": 304_368_640 - 1_024 + 4 * 1_024,
    "dinov3_s16": 21_601_152 - 384 - 12 * 384,
    "dinov3_s16plus": 28_697_472 - 384 - 12 * 384,
    "dinov3_b16": 85_669_632 - 768 - 12 * 768,
    "dinov3_l16": 303_154_176 - 1_024 - 24 * 1_024,
    "siglip_b16": 92_884_224,
    "clip_b16": 86_192_640 - 768 * 512,
    "clip_b32": 87_849_216 - 768 * 512,
    "clip_l14": 303_966_208 - 1_024 * 768,
}
DEEP = {
    "resnet34",
    "senet154",
    "densenet161",
    "vit_ti",
    "vit_b",
    "resnet101",
    "resnet152",
    "vit_l",
    "mit_b2",
    "mit_b3",
    "mit_b4",
    "mit_b5",
    "swin_s",
    "swin_b",
    "swin_l",
    "dinov2_b14",
    "dinov2_l14",
    "dinov2_s14_reg",
    "dinov2_b14_reg",
    "dinov2_l14_reg",
    "dinov3_s16",
    "dinov3_b16",
    "dinov3_l16",
    "dinov3_s16plus",
    "siglip_b16",
    "clip_b16",
    "clip_l14",
}


def abstract(build):
    """Shapes only."""
    return nnx.eval_shape(lambda: build(rngs=Shapes()))


def filled(build):
    """Random parameters, without the initialisers, which take long to compile; variances are near one."""
    random, module = np.random.default_rng(0), abstract(build)
    state = nnx.to_flat_state(nnx.state(module))
    values = {
        path: random.normal(path[-1] in ("scale", "var"), 0.1 if len(x.shape) < 2 else 0.3, x.shape)
        for path, x in state
    }
    new = {path: x.replace(on_device(values[path], np.float32)) for path, x in state}
    nnx.update(module, nnx.from_flat_state(list(new.items())))
    return module


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) if n in DEEP else n for n in BACKBONES])
@pytest.mark.first(1)
def test_size(name):
    """Also the size in the docstring."""
    backbone = abstract(lambda rngs: make_backbone(name, rngs=rngs))
    count = sum(p.size for p in jax.tree.leaves(nnx.state(backbone, nnx.Param)))
    assert count == SIZES[name]
    assert f"{count:,}" in type(backbone).__doc__
    assert len(backbone.features) == len(backbone.strides)


SMALL = {
    "resnet": lambda **o: ResNet(
        depth=(1, 1, 1, 1), bottleneck=True, widths=(8, 8, 12, 16), stem_features=6, stem="deep", output_stride=16, **o
    ),
    "senet": lambda **o: SENet(blocks=(1, 2, 1, 1), widths=(8, 8, 12, 16), stem_features=6, groups=2, reduction=2, **o),
    "densenet": lambda **o: DenseNet(blocks=(2, 1, 1, 1), growth=3, stem_features=6, **o),
    "vgg": lambda **o: VGG(layers=(1, 1, 2), widths=(4, 6, 6), **o),
    "mobilenet_v1": lambda **o: MobileNetV1(multiplier=0.125, **o),
    "mobilenet_v2": lambda **o: MobileNetV2(
        stages=((1, 8, 1, 1, 3), (2, 8, 2, 2, 3), (3, 8, 1, 2, 5)), padding="same", **o
    ),
    "vit": lambda **o: ViT(patch_size=8, width=12, depth=2, num_heads=3, image_size=32, taps=(1, 2), **o),
    "mit": lambda **o: MiT(widths=(6, 8), depths=(1, 1), num_heads=(2, 2), reductions=(2, 1), **o),
    "swin": lambda **o: Swin(width=6, depths=(2, 1), num_heads=(2, 2), window_size=3, **o),
}
# Sides of maps at odd sizes, where they are no ceil(n / stride).
SMALLER = {("senet", 4): [9, 12], ("senet", 8): [5, 6], ("senet", 16): [3, 3], ("senet", 32): [2, 2]}
SMALLER |= {("densenet", 8): [5, 6], ("densenet", 16): [2, 3], ("densenet", 32): [1, 1]}
TIERS = {"resnet": (), "mit": pytest.mark.thorough}
each = pytest.mark.parametrize("family", [pytest.param(f, marks=TIERS.get(f, slow)) for f in SMALL])


def image(height=37, width=50, batch=1):
    return np.random.default_rng(0).standard_normal((batch, height, width, 3)).astype(np.float32)


@pytest.mark.thorough
@each
def test_any_size_gradients_and_types(family):
    """Sides that are no multiples of the strides; batch 1; float32 parameters, and bfloat16 inside."""
    x, build = image(), SMALL[family]
    graph, params, rest = nnx.split(filled(build), nnx.Param, ...)
    half = nnx.split(abstract(lambda rngs: build(dtype=jnp.bfloat16, rngs=rngs)), nnx.Param, ...)[0]

    def loss(params, x):
        module = nnx.merge(graph, params, rest, copy=True)
        module.eval()
        maps = module(x)
        return sum(jnp.mean(jnp.sin(y)) for y in maps), maps

    @jax.jit
    def run(params, x):
        module = nnx.merge(half, params, rest, copy=True)
        module.eval()
        return jax.grad(loss, (0, 1), has_aux=True)(params, x), module(x.astype(jnp.bfloat16))

    ((gradients, grad_x), maps), rounded = run(params, x)
    module = nnx.merge(graph, params, rest)
    for y, features, stride in zip(maps, module.features, module.strides, strict=True):
        sides = [n // stride if family == "vgg" else -(-n // stride) for n in x.shape[1:3]]
        sides = SMALLER.get((family, stride), sides)
        assert y.shape == (1, *sides, features) and y.dtype == jnp.float32
    assert_finite((gradients, grad_x))
    unused = [p for p, g in nnx.to_flat_state(gradients) if not np.any(g[...])]
    assert {path[-1] for path in unused} <= {"class_token"} | ({"bias"} if family in ("vit", "mit", "swin") else set())
    assert {y.dtype for y in rounded} == {jnp.dtype(jnp.bfloat16)}
    assert_close([y.astype(jnp.float32) for y in rounded], list(maps), 0.1)


@pytest.mark.thorough
def test_training_moves_statistics():
    module = filled(SMALL["mobilenet_v2"])
    graph, state = nnx.split(module)

    @jax.jit
    def run(state, x):
        module = nnx.merge(graph, state, copy=True)
        module(x)
        trained = nnx.state(module, nnx.BatchStat)
        module.eval()
        module(x)
        return trained, nnx.state(module, nnx.BatchStat)

    trained, evaluated = run(state, image(batch=2))
    before = nnx.state(module, nnx.BatchStat)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), trained, before)
    assert all(jax.tree.leaves(moved))
    assert_close(evaluated, trained, 0.0)


@pytest.mark.thorough
@pytest.mark.parametrize("family", [pytest.param("vit", marks=slow), pytest.param("swin", marks=slow), "mit"])
def test_dropped_paths(family):
    """Whole branches of an image, and nothing without a source."""
    module = filled(lambda rngs: SMALL[family](drop_path=0.5, rngs=rngs))
    graph, state = nnx.split(module)
    x = np.concatenate([image(32, 32)] * 8)

    @jax.jit
    def run(state, x, key):
        module = nnx.merge(graph, state)
        return module(x, rngs=nnx.Rngs(key))[-1], module(x)[-1]

    dropped, whole = run(state, x, jax.random.key(1))
    assert_finite(dropped)
    assert np.ptp(whole, axis=0).max() < 1e-5
    kinds = np.unique(np.round(np.asarray(dropped, np.float64).sum((1, 2, 3)), 3))
    assert 2 <= len(kinds) <= 4  # each of the two branches of the block is there or not


def test_dilation():
    """Of ResNet and of MobileNetV2 as CSAILVision and index networks have it: the first block has half."""
    resnet = {32: [(1, 1, 1)] + [(2, 1, 1)] * 3, 16: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]}
    resnet[8] = [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]
    for stride, stages in resnet.items():
        assert dilated((1, 2, 2, 2), stride, start=4) == stages
    inverted = dilated((1, 2, 2, 2, 1, 2, 1), 8, start=2)
    assert inverted[3:] == [(1, 1, 2), (1, 2, 2), (1, 2, 4), (1, 4, 4)]
    whole = abstract(lambda rngs: ResNet(depth=18, output_stride=8, contract_dilation=False, rngs=rngs))
    rates = [[b.convs[0].conv.kernel_dilation for b in s] + [s[0].convs[1].conv.kernel_dilation] for s in whole.stages]
    assert rates == [[1, 1, 1], [1, 1, 1], [2, 2, 1], [4, 4, 1]]


@pytest.mark.thorough
def test_multiplier():
    """torchvision rounds to multiples of 8; index networks cut."""
    rounded = abstract(lambda rngs: MobileNetV2(multiplier=1.4, num_classes=3, rngs=rngs))
    assert (rounded.features, rounded.head.conv.out_features) == ((24, 32, 48, 136, 448), 1792)
    assert [_width(w, 0.35, 8) for w in (16, 24, 32, 96, 320)] == [8, 8, 16, 32, 112]
    cut = abstract(
        lambda rngs: MobileNetV2(4, multiplier=1.4, divisor=None, padding="expanded", strided=False, rngs=rngs)
    )
    assert (cut.features, cut.strides) == ((22, 33, 44, 134, 448), (1,) * 5)
    assert cut.stem.conv.kernel_shape == (3, 3, 4, 44)


@pytest.mark.thorough
def test_padding_of_the_expanded_map():
    """The ring of zeros passes the expansion: behind its norm it is not zero."""
    block = filled(lambda rngs: MobileNetV2(stages=((2, 4, 1, 1, 3),), padding="expanded", rngs=rngs)).blocks[0]
    block.eval()
    block.expand.norm.bias[...] += 1
    x = image()[..., :1] * np.ones(32, np.float32)
    ring = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.lax.conv_general_dilated(
        block.expand(ring), block.depthwise.conv.kernel[...], (1, 1), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=64,
    )  # fmt: skip
    expected = block.project(nnx.relu6(block.depthwise.norm(y)))
    assert_close(block(x), expected, 1e-5)


@pytest.mark.thorough
def test_a_window_that_covers_the_map():
    """The shift stays, and pixels from opposite sides of the map do not see each other."""
    attention = filled(SMALL["swin"]).stages[0][1].attention.layer
    x = np.zeros((3, 3, 3, 6), np.float32)
    x[1, 0, 0], x[2, 2, 2] = 1, 1
    y = np.asarray(attention(x))
    seen = np.abs(y[1:] - y[0]).max(-1) > 1e-6
    np.testing.assert_array_equal(seen[0], np.outer([1, 0, 0], [1, 0, 0]))
    np.testing.assert_array_equal(seen[1], np.outer([0, 1, 1], [0, 1, 1]))


@pytest.mark.thorough
def test_errors():
    with pytest.raises(ValueError, match="name: expected one of 'resnet18'"):
        make_backbone("resnet19", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"depth: expected one of 18, 34, .* got 19"):
        ResNet(depth=19, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="style: expected one of 'pytorch', 'caffe', got 'torch'"):
        ResNet(style="torch", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="output_stride: expected one of 8, 16, 32, got 4"):
        MobileNetV2(output_stride=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="position_resize: expected one of 'bicubic-antialias'"):
        ViT(position_resize="nearest", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="patch_size: expected a divisor of image_size = 50, got 16"):
        ViT(image_size=50, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="taps: expected increasing numbers from 0 to 13"):
        abstract(lambda rngs: MobileNetV1(taps=(3, 14), rngs=rngs))
    with pytest.raises(ValueError, match="classify: expected a network with num_classes"):
        abstract(lambda rngs: MobileNetV2(rngs=rngs)).classify([image()])
    with pytest.raises(ValueError, match="x: expected an image whose map has sides of at least 8"):
        nnx.eval_shape(lambda: MiT(rngs=Shapes())(jnp.asarray(image(28, 64))))
    with pytest.raises(ValueError, match="x: expected shape"):
        abstract(SMALL["vgg"])(image()[..., :2])


def official(operator, config):
    """A state dict of the right shapes."""
    module = abstract(lambda rngs: OPERATORS[operator](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nnx.state(module)))
    return to_torch(operator, module, config)


@pytest.mark.thorough
def test_checkpoints_with_what_is_not_used():
    """Classifiers, counters, and other networks' buffers; but no key of another depth."""
    tensors = official("resnet18", {})
    extra = {"fc.weight": np.zeros((7, 512)), "fc.bias": np.zeros(7), "bn1.num_batches_tracked": np.int64(3)}
    module = from_torch("resnet18", tensors | extra, {})
    assert to_torch("resnet18", module, {}).keys() == tensors.keys()
    with pytest.raises(ValueError, match=r"layer1.2.conv1.weight: missing"):
        from_torch("resnet34", tensors, {})
    with pytest.raises(ValueError, match=r"layer1.0.conv3.weight: unexpected"):
        from_torch("resnet18", tensors | {"layer1.0.conv3.weight": np.zeros(1)}, {})
    with pytest.raises(ValueError, match=r"fc.weight: missing"):
        from_torch("resnet18", tensors, {"num_classes": 7})


@pytest.mark.thorough
def test_names_of_efficientnet():
    """As in the package that holds its weights: 296 arrays, counters included."""
    tensors = official("efficientnet-lite0", {"num_classes": 1000})
    counters = sum(name.endswith("running_mean") for name in tensors)
    assert len(tensors) + counters == 296
    assert tensors["_blocks.0._project_conv.weight"].shape == (16, 32, 1, 1)
    assert tensors["_blocks.3._depthwise_conv.weight"].shape == (144, 1, 5, 5)
    assert {"_conv_stem.weight", "_bn0.running_var", "_conv_head.weight", "_bn1.weight", "_fc.bias"} <= tensors.keys()
    assert "_blocks.0._expand_conv.weight" not in tensors


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("imagenet.MobileNet", {"model.0.0.weight", "model.13.4.running_var"}),
        pytest.param(
            "senet154", {"layer0.conv3.weight", "layer2.0.downsample.1.bias", "layer1.0.se_module.fc2.bias"}, marks=slow
        ),
        pytest.param(
            "densenet161",
            {"features.denseblock4.denselayer24.conv2.weight", "features.transition3.norm.bias"},
            marks=slow,
        ),
    ],
)
def test_names_of_encoders_of_depth_networks(name, keys):
    """As their ImageNet weights have them, with a classifier that is not used."""
    tensors = official(name, {})
    assert keys <= tensors.keys()
    last = {"imagenet.MobileNet": "fc", "senet154": "last_linear", "densenet161": "classifier"}[name]
    from_torch(name, {f"module.{key}": x for key, x in tensors.items()} | {f"module.{last}.weight": np.zeros(1)}, {})


def test_pooling_of_senet():
    """Its last window may stand over the border, but does not begin there."""
    for n, expected in ((5, [2, 4]), (6, [2, 4, 5]), (1, [0]), (2, [1])):
        x = jnp.arange(n, dtype=jnp.float32).reshape(1, n, 1, 1)
        y = max_pool(x, 3, padding=[(0, _margin(side)) for side in x.shape[1:3]])
        np.testing.assert_array_equal(y[0, :, 0, 0], expected)


@pytest.mark.thorough
def test_convolution_in_many_groups():
    """As XLA has it, with strides and dilation."""
    x, kernel = (
        image()[:, :9, :8, :1] * np.arange(1, 7, dtype=np.float32),
        np.random.default_rng(0).random((3, 3, 2, 9)),
    )
    kernel = kernel.astype(np.float32)
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        options = dict(feature_group_count=3, rhs_dilation=(dilation,) * 2)
        arguments = (x, kernel, (stride, stride), [(1, 1), (1, 2)])
        expected = jax.lax.conv_general_dilated(*arguments, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)
        assert_close(convolve_many_groups(*arguments, **options), expected, 1e-5)
