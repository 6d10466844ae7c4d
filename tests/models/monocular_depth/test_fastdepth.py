"""FastDepth: golden vectors, what Table 10 of Index Networks prints, any size, and what its stages are made of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import ops
from jaxup.interop import from_torch
from jaxup.models.monocular_depth import FastDepth, make_monocular_depth_network
from jaxup.models.monocular_depth.fastdepth import FASTDEPTH_RESAMPLINGS
from tests import goldens
from tests.compare import assert_close, assert_finite
from tests.models.backbones.test_backbones import abstract, filled, image
from tests.models.multiply_adds import multiply_adds
from tests.models.segmentation.networks import check_round_trip, check_types, small_resnet
from tests.modules import call, count
from tests.registry.examples import marked, slow, thorough

SMALL = dict(features=32)


@pytest.mark.parametrize("case", goldens.cases("fastdepth_net/*", quick=()))
@pytest.mark.first(0, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("case", goldens.cases("fastdepth/*", quick={"nnconv5dw_train", "upconv"}))
def test_stages(case):
    goldens.check(goldens.load(case), half=False)


@pytest.mark.parametrize("size", [4, thorough(2), thorough(6)])
def test_even_deconvolution(size):
    """PyTorch's, of a depthwise filter and its weight [C, 1, k, k]: pixel i is added at 2 i - (k - 1) // 2 and on."""
    rng = np.random.default_rng(size)
    x, kernel = rng.normal(size=(1, 3, 2, 4)), rng.normal(size=(4, 1, size, size))
    state = {"0.0.weight": kernel, "1.0.weight": np.eye(4)[..., None, None]}
    norm = {"weight": 1, "bias": 50, "running_mean": 0, "running_var": 1 - 1e-5}  # nothing is cut off at 0
    state |= {f"{i}.1.{name}": np.full(4, value) for i in (0, 1) for name, value in norm.items()}
    state = {name: value.astype(np.float32) for name, value in state.items()}
    stage = from_torch("fastdepth.deconvdw", state, dict(in_channels=4, out_channels=4, kernel_size=size))
    stage.eval()
    full = np.zeros((1, 4 + size, 2 + size, 4))  # what PyTorch's padding then cuts off
    for i, j in np.ndindex(3, 2):
        full[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += x[:, i, j, None, None] * kernel[:, 0].transpose(1, 2, 0)
    cut = (size - 1) // 2
    assert_close(call(stage, x.astype(np.float32)), full[:, cut:][:, :6, cut:][:, :, :4] + 100, 1e-6)


CHECKPOINTS = {
    "mobilenet_skipconcat": ("MobileNetSkipConcat", {}),
    "mobilenet_nnconv5dw": ("MobileNet", {"decoder": "nnconv5dw"}),
    "mobilenet_upproj": ("MobileNet", {"decoder": "upproj"}),
    "resnet18_nnconv5": ("ResNet", {"layers": 18, "decoder": "nnconv5"}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", marked(CHECKPOINTS, {"mobilenet_nnconv5dw"}))
def test_checkpoints(case):
    name, config = CHECKPOINTS[case]
    check_round_trip(f"fastdepth.{name}", goldens.load(f"fastdepth_net/{case}").params, config)


def test_checkpoint_errors():
    for decoder in ("nnconv4", "nnconv55", "upconv5", None):
        with pytest.raises(ValueError, match=f"decoder: expected nnconv5dw.* got {decoder!r}"):
            from_torch("fastdepth.MobileNet", {}, {"decoder": decoder})
    with pytest.raises(ValueError, match="layers: expected one of 18"):
        from_torch("fastdepth.ResNetSkipAdd", {}, {"layers": 20})


# Table 10: parameters, of index networks those added, with half a unit of the last digit, and 2^30 multiply-adds. Of
# functions that all channels share the paper counts the products once: 1.02. Here they are once for each channel, which
# is what functions of their own cost.
TABLE = {
    "nnconv5": (3.96e6, 5e3, 0.69),
    "p-nnconv5": (3.96e6, 5e3, 1.01),
    "carafe": (4.31e6, 5e3, 1.63),
    "p-carafe": (4.31e6, 5e3, 1.96),
    "holistic": (31.23e3, 5, 1.03),
    "holistic-nl": (11.17e6, 5e3, 2.65),
    "holistic-nl-c": (44.62e6, 5e3, 7.53),
    "modelwise_o2o": (16, 0, 1.03),
    "modelwise_o2o-nl": (56, 0, 1.06),
    "modelwise_o2o-nl-c": (152, 0, 1.16),
    "shared_o2o": (80, 0, 1.03),
    "shared_o2o-nl": (280, 0, 1.06),
    "shared_o2o-nl-c": (760, 0, 1.16),
    "unshared_o2o": (31.23e3, 5, 1.03),
    "unshared_o2o-nl": (0.11e6, 5e3, 1.06),
    "unshared_o2o-nl-c": (0.30e6, 5e3, 1.16),
    "m2o": (22.30e6, 5e3, 4.27),
    "m2o-nl": (55.78e6, 5e3, 9.15),
    "m2o-nl-c": (189.57e6, 5e3, 28.67),
}


# By default the first two, in the thorough tests all of these.
ROWS = ("nnconv5", "p-carafe", "unshared_o2o-nl-c", "carafe", "holistic-nl", "m2o")


@pytest.mark.thorough
@pytest.mark.parametrize("row", marked(TABLE, ROWS[:2], set(TABLE) - set(ROWS)))
@pytest.mark.first(1, 4)
def test_table_10(row):
    parameters, half, cost = TABLE[row]
    network = abstract(partial(make_monocular_depth_network, f"fastdepth-{row}"))
    base = 0 if "nnconv5" in row or "carafe" in row else 3_960_930
    assert abs(count(network) - base - parameters) <= half
    assert multiply_adds(network, (1, 224, 224, 3)) / 2**30 == pytest.approx(cost, rel=0.0, abs=0.0051)


SIZES = [
    (3_960_930, {}),
    thorough(4_016_034, dict(skip="concat")),
    thorough(20_668_194, dict(depthwise=False)),
    thorough(41_274_018, dict(decoder="upproj")),
]


@pytest.mark.parametrize(("size", "options"), SIZES)
def test_size(size, options):
    assert count(abstract(partial(FastDepth, **options))) == size
    assert f"{size:,}" in FastDepth.__doc__


KINDS = [dict(decoder=d, depthwise=w) for d in ("blconv", "deconv", "shuffle") for w in (True, False)]
KINDS += [dict(decoder="upconv"), dict(decoder="upproj"), dict(kernel_size=9), dict(skip="concat")]
KINDS += [dict(resampling=method) for method in FASTDEPTH_RESAMPLINGS]
KINDS += [
    dict(resampling="holistic", skip="add"),
    dict(backbone=small_resnet(widths=(8, 16, 32, 64), stem_features=8), skip="concat"),
]
NAMES = ["-".join(str(value) for value in kind.values() if not callable(value)) for kind in KINDS]
OFTEN = [
    dict(decoder="upconv"),
    dict(resampling="max-nearest"),
    dict(skip="concat"),
    dict(resampling="conv-carafe"),
    KINDS[-2],
    KINDS[-1],
]
QUICK = [dict(decoder="shuffle", depthwise=True)]


@pytest.mark.thorough
@pytest.mark.parametrize("options", marked(KINDS, QUICK, [o for o in KINDS if o not in OFTEN]), ids=NAMES)
@pytest.mark.first(1, 1)
def test_any_size_and_type(options):
    """The result is as large as the image, and of its type; shuffles of 1024 channels end in one."""
    sizes = {} if options.get("decoder") == "shuffle" else SMALL
    check_types(partial(FastDepth, **sizes, **options), (1, 37, 50, 1))


@pytest.mark.parametrize(
    "options",
    [
        thorough(dict(skip="add", resampling="unshared_o2o", nonlinear=True)),
        slow(dict(decoder="upproj")),
        slow(dict(decoder="deconv", depthwise=True)),
        slow(dict(resampling="conv-carafe")),
    ],
    ids=str,
)
def test_gradients(options):
    """Of every parameter, at odd sizes; a norm without statistics keeps the last layer above zero."""
    graph, params, rest = nnx.split(filled(partial(FastDepth, **SMALL, **options)), nnx.Param, ...)

    def loss(params, x):
        network = nnx.merge(graph, params, rest, copy=True)
        network.eval()
        network.head.norm.bias[...] += 5
        return jnp.mean(jnp.sin(network(x)))

    gradients, grad_x = jax.jit(jax.grad(loss, (0, 1)))(params, image(37, 50))
    assert_finite((gradients, grad_x))
    assert [path for path, g in nnx.to_flat_state(gradients) if not np.any(g[...])] == []


@pytest.mark.slow
def test_pools_and_upsamples_with_the_same_indices():
    """The finest stage by hand, at odd sizes: extended by copies, and cut again."""
    network = filled(partial(FastDepth, resampling="m2o", **SMALL))
    network.eval()
    x = image(33, 34)

    @jax.jit
    def run(x):
        first = network.backbone.units[0][0](x)
        even = jnp.concatenate([first, first[:, -1:]], axis=1)
        index = network.resampling.down_layers[0](even)
        pooled = ops.indexed_pool(even, index.encoder)
        maps, memories = network.encode(x)
        second = pooled
        for layer in network.backbone.units[1]:
            second = layer(second)
        y = maps[-1]
        for i, stage in enumerate(network.stages):
            y = stage(y)
            decoder = memories[4 - i].decoder
            wide = decoder.shape[3] // y.shape[3]
            decoder = sum(decoder[..., part::wide] for part in range(wide)) / wide
            size = [-(-n // 2 ** (4 - i)) for n in (33, 34)]
            y = ops.indexed_upsample(y, decoder)[:, : size[0], : size[1]]
        return (network(x), maps[0], memories[0].decoder), (network.head(y), second, index.decoder)

    found, expected = run(x)
    assert_close(found, expected, 1e-5)


@pytest.mark.thorough
def test_errors():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"decoder: expected one of 'nnconv', .* got 'nnconv5'"):
        FastDepth(decoder="nnconv5", rngs=rngs)
    with pytest.raises(ValueError, match="skip: expected one of None, 'add', 'concat', got 'sum'"):
        FastDepth(skip="sum", rngs=rngs)
    with pytest.raises(ValueError, match=r"resampling: expected one of None, .* got 'space-to-depth'"):
        FastDepth(resampling="space-to-depth", rngs=rngs)
    with pytest.raises(ValueError, match="decoder: expected one of nnconv, blconv for skips and resampling, got 'deco"):
        FastDepth(decoder="deconv", skip="add", rngs=rngs)
    with pytest.raises(ValueError, match="features: expected a divisor of features = 48, got 32"):
        FastDepth(features=48, rngs=rngs)
    with pytest.raises(ValueError, match="resampling: expected None for all backbones but MobileNet, got 'holistic'"):
        abstract(partial(FastDepth, backbone=small_resnet(), resampling="holistic"))
    with pytest.raises(ValueError, match=r"skip: expected maps of 16 channels to add to stage 1, got \[12\]"):
        abstract(partial(FastDepth, backbone=small_resnet(), skip="add", **SMALL))
    with pytest.raises(ValueError, match="backbone: expected one with maps at the strides 2, 4, 8, 16 and 32"):
        abstract(partial(FastDepth, backbone="vgg16_bn"))
    with pytest.raises(ValueError, match="kernel_size: expected an odd integer"):
        abstract(partial(FastDepth, kernel_size=4))
    with pytest.raises(ValueError, match="kernel_size: expected an integer >= 1, got 0"):
        abstract(partial(FastDepth, decoder="deconv", kernel_size=0))
    with pytest.raises(ValueError, match="name: expected one of 'fastdepth-nnconv5'"):
        make_monocular_depth_network("fastdepth", rngs=rngs)
    with pytest.raises(ValueError, match="x: expected shape"):
        abstract(partial(FastDepth, **SMALL))(image()[..., :2])
