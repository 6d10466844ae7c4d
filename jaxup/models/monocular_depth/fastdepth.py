"""FastDepth (Wofk et al., ICRA 2019), and its variants with index networks and CARAFE (Lu et al., TPAMI 2020)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_divides, check_features, check_int, fail
from jaxup.models.backbones import MobileNetV1
from jaxup.models.backbones.layers import ConvNorm, conv, through
from jaxup.models.monocular_depth.decoders import DECODERS, INTERPOLATIONS, Stage, decoder_widths
from jaxup.models.monocular_depth.layers import fit
from jaxup.models.resampling import Memory, Resampling
from jaxup.models.segmentation.heads import Backbone, build_backbone
from jaxup.models.stages import RESAMPLINGS
from jaxup.ops.resize import pixel_shuffle

# Those that keep the number of channels; strides in the convolutions and the other decoders are there without a name.
FASTDEPTH_RESAMPLINGS = tuple(
    name for name in RESAMPLINGS if name not in ("space-to-depth", "conv-bilinear", "conv-deconv")
)

# Units of MobileNet that have a stride, and channels that they give, in parts of the last.
_POOLED = {0: 32, 2: 8, 4: 4, 6: 2, 12: 1}

# The map of the backbone that is joined to a stage before, and behind its doubling, by stages from coarse to fine.
Skips = tuple[tuple[int | None, ...], tuple[int | None, ...]]
_NONE = (None,) * 5
_SKIPS: dict[tuple[str | None, bool], Skips] = {
    ("add", True): (_NONE, (None, 2, 1, 0, None)),
    ("concat", True): (_NONE, (None, 2, 1, 0, None)),
    ("add", False): ((4, 3, 2, 1, None), (None, None, None, 0, None)),
    ("concat", False): (_NONE, (3, 2, 1, 0, None)),
}


class FastDepth(nnx.Module):
    """FastDepth: depth from one image, by a small encoder and a decoder that doubles five times.

        y = backbone(x) at stride 32,   five times  y = up(f(y)),   depth = relu(norm(conv1x1(y)))

    With f and up of the decoders, k x k convolutions with norm and ReLU, which halve the channels, f, f/2, ... f/32:

    - "nnconv", "blconv": a convolution, then nearest or bilinear interpolation; "nnconv" with 5 x 5 is the paper's;
    - "deconv": a transposed convolution;
    - "upconv": 5 x 5 on a map between whose rows and columns there are zeros;
    - "upproj": on such a map relu(norm(conv3x3(relu(norm(conv5x5)))) + norm(conv5x5));
    - "shuffle": a pixel shuffle, then a convolution that keeps the channels, f/4, ... f/256; a bare shuffle at the end.

    Where they are `depthwise`, the first four have a depthwise k x k and a 1 x 1 convolution, each with norm and ReLU.
    ResNets have a 1 x 1 convolution with a bias to f channels behind them.

    Skips, with "nnconv" and "blconv": the maps of MobileNet at the strides 8, 4 and 2 join behind the doubling; those
    of ResNets (18 and 34) are added before it, but the stem's; "concat" joins their maps at 16, 8, 4, 2 behind it.

    `resampling` is how Index Networks' Table 10 changes the network: convolutions of MobileNet have stride 1 and are
    followed by D behind their 1 x 1, on f/32, f/8, f/4, f/2 and f channels; U takes the place of the interpolation, on
    f/32, f/16, f/8, f/4 and f/2. "max-nearest" is FastDepth-P-NNConv5, "max-carafe" FastDepth-P-carafe; "conv-carafe"
    keeps the strides and is FastDepth-carafe. The paper does not say how depthwise index maps fit a decoder that has
    half of their channels. That they are made where they are here, and that U stands behind the convolution, follows
    from the parameters and multiply-adds that it prints, all of which are those of this network; here each channel of
    the decoder takes the mean of two index maps. Holistic ones need nothing of the kind.

    Parameters, with 5 x 5: MobileNet and depthwise "nnconv" 3,960,930, also with added skips; with joined ones
    4,016,034; dense "nnconv" 20,668,194; "upproj" 41,274,018. "max-carafe" and "conv-carafe" add 352,308, and index
    networks what `Resampling` says. 0.69 G multiply-adds (1 G = 2^30) for 224 x 224 pixels, 1.01 G with pooling.

    Args:
        in_features: channels of the image.
        backbone: "mobilenet_v1", "resnet18" to "resnet152"; a backbone with five maps from stride 2 on, or a function
            `(dtype=, rngs=)` that builds one.
        features: f, a multiple of 32; the widths of MobileNet by name follow it.
        decoder: see above.
        kernel_size: k, odd; of "deconv" any.
        depthwise: see above; "upconv" and "upproj" are not.
        skip: None, "add" or "concat".
        resampling: None or a key of `jaxup.models.resampling.RESAMPLINGS`, but "space-to-depth", "conv-bilinear" and
            "conv-deconv".
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: image [B, H, W, Cin] in 0 to 1, without a mean or deviation taken off -> depth [B, H, W, 1] in the
        dtype of x, in metres after training on those. What the doublings have beyond the sides of the maps, where these
        are odd, is cut off. `module.encode(x)`: the maps, and what each D keeps for its U.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: FastDepth(features=32, skip="add", rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 37, 50, 3))).shape
        (1, 37, 50, 1)

    Reference:
        Wofk et al., FastDepth: Fast Monocular Depth Estimation on Embedded Systems, ICRA 2019; official code:
        dwofk/fast-depth (MIT). Lu et al., Index Networks, TPAMI 2020, Sec. 6.4, Fig. 15 and Table 10.
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        backbone: Backbone = "mobilenet_v1",
        features: int = 1024,
        decoder: str = "nnconv",
        kernel_size: int = 5,
        depthwise: bool = True,
        skip: str | None = None,
        resampling: str | None = None,
        nonlinear: bool = False,
        context: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("decoder", decoder, DECODERS)
        check_choice("skip", skip, (None, "add", "concat"))
        check_choice("resampling", resampling, (None, *FASTDEPTH_RESAMPLINGS))
        check_divides("features", 32, "features", check_int("features", features))
        if (skip or resampling) and decoder not in INTERPOLATIONS:
            fail("decoder", f"one of {', '.join(INTERPOLATIONS)} for skips and resampling", repr(decoder))
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.pools = resampling not in (None, "conv-carafe")
        self.backbone = _build(backbone, in_features, features, self.pools, options)
        small = isinstance(self.backbone, MobileNetV1)
        if resampling and not small:
            fail("resampling", "None for all backbones but MobileNet", repr(resampling))
        self.project = None if small else conv(self.backbone.features[-1], features, 1, **options)
        self.inside, self.behind = _SKIPS.get((skip, small), (_NONE, _NONE))
        self.concat = skip == "concat"
        self.stages, last = self._decoder(
            decoder, features, dict(kernel_size=kernel_size, depthwise=depthwise), options
        )
        self.head = None if decoder == "shuffle" else ConvNorm(last, 1, 1, **options)
        # With strides only U is used, and max pooling has no parameters.
        method = "max-carafe" if resampling == "conv-carafe" else resampling
        of_indices: dict[str, Any] = dict(nonlinear=nonlinear, context=context)
        self.resampling = None if method is None else _resampling(method, features, **of_indices, **options)

    def _decoder(
        self, kind: str, features: int, of_kernel: dict[str, Any], options: dict[str, Any]
    ) -> tuple[nnx.List[Any], int]:
        """The stages, and the channels of their result."""
        stages: nnx.List[Any] = nnx.List()
        joined = 0
        for i, (inputs, outputs) in enumerate(decoder_widths(kind, features)):
            stages.append(Stage(kind, inputs + joined, outputs, **of_kernel, **options))
            maps = [self.backbone.features[n] for n in (self.inside[i], self.behind[i]) if n is not None]
            if not self.concat and any(width != outputs for width in maps):
                fail("skip", f"maps of {outputs} channels to add to stage {i + 1}", f"{maps}")
            joined = sum(maps) if self.concat else 0
        return stages, outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """The depth of x."""
        maps, memories = self.encode(x)
        sizes = [x.shape[1:3]]
        while len(sizes) < 5:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        y = maps[-1] if self.project is None else self.project(maps[-1])
        for i, stage in enumerate(self.stages):
            y = self._join(stage(y), maps, self.inside[i])
            place = 4 - i
            y = self.resampling.up(place, y, memories[place]) if self.resampling else stage.enlarge(y)
            y = self._join(fit(y, sizes[place]), maps, self.behind[i])
        y = fit(pixel_shuffle(y, scale=2), sizes[0]) if self.head is None else self.head(y)
        return y.astype(x.dtype)

    def _join(self, y: jax.Array, maps: tuple[jax.Array, ...], number: int | None) -> jax.Array:
        if number is None:
            return y
        skipped = maps[number].astype(y.dtype)
        return jnp.concatenate([y, skipped], axis=3) if self.concat else y + skipped

    def encode(self, x: jax.Array) -> tuple[tuple[jax.Array, ...], list[Memory]]:
        """The maps of the backbone, fine to coarse, and what `Resampling.down` keeps, index maps for instance."""
        check_features("x", x, self.backbone.in_features)
        resampling = self.resampling if self.pools else None
        if resampling is None:
            return self.backbone(x), [None] * len(_POOLED)
        y, maps, memories = x, list[jax.Array](), list[Memory]()
        for i, unit in enumerate(self.backbone.units):
            y = through(unit, y)
            if i in self.backbone.taps:
                maps.append(y.astype(x.dtype))
            if i in _POOLED:
                even = fit(y, (y.shape[1] + y.shape[1] % 2, y.shape[2] + y.shape[2] % 2))
                y, memory = resampling.down(len(memories), even)
                memories.append(memory)
        return tuple(maps), memories


def _resampling(method: str, features: int, **options: Any) -> Resampling:
    """The stages from fine to coarse: all of the encoder but the first have twice the channels of the decoder."""
    encoder = [features // part for part in _POOLED.values()]
    decoder = [features // 2**i for i in range(5, 0, -1)]
    return Resampling(method=method, features=encoder, decoder_features=decoder, **options)


def _build(backbone: Backbone, in_features: int, features: int, pools: bool, options: dict[str, Any]) -> Any:
    if backbone == "mobilenet_v1":
        return MobileNetV1(in_features, multiplier=features / 1024, strided=not pools, **options)
    of_name: dict[str, Any] = dict(in_features=in_features) if isinstance(backbone, str) else {}
    built = build_backbone(backbone, **of_name, **options)
    if tuple(built.strides) != (2, 4, 8, 16, 32):
        fail("backbone", "one with maps at the strides 2, 4, 8, 16 and 32", repr(backbone))
    return built
