"""Networks that remove noise: DnCNN (Zhang et al., TIP 2017), and its form as an encoder-decoder (Lu et al., TPAMI)."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_divides, check_features, check_int
from jaxup.models.resampling import Resampling
from jaxup.models.stages import RESAMPLINGS
from jaxup.nn import initializers
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.convolve import convolve_layer

_INIT = initializers.he_normal()  # the "improved Xavier" of the paper
# Of the last layer a tenth of that: training starts near the image, and not a hundred times as far from it as noise.
_LAST = initializers.variance_scaling(0.02, "fan_in", "truncated_normal")
_DEPTH = 17  # layers
_STAGES = 3

# Those that keep the number of channels, and whose convolution can take the place of one that is there already.
DENOISING_METHODS = tuple(
    name for name in RESAMPLINGS if name not in ("space-to-depth", "conv-bilinear", "conv-deconv")
)
"""Resampling methods of `DnCNNSegNet`, see `RESAMPLINGS`."""


class _Layer(nnx.Module):
    """3x3 convolution, BatchNorm, ReLU."""

    def __init__(
        self, in_features: int, features: int, *, norm: bool = True, stride: int = 1, dtype: Any, rngs: nnx.Rngs
    ):
        self.conv = _conv(in_features, features, stride=stride, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(features, rngs=rngs) if norm else None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(x)
        return nnx.relu(y if self.norm is None else normalise(self.norm, y, self.dtype))


def _conv(
    in_features: int, features: int, *, stride: int = 1, init: Any = _INIT, dtype: Any, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        in_features,
        features,
        (3, 3),
        strides=stride,
        padding=((1, 1), (1, 1)),  # with a stride, "SAME" would be another one
        kernel_init=init,
        conv_general_dilated=convolve_layer,
        dtype=dtype,
        rngs=rngs,
    )


class DnCNN(nnx.Module):
    """DnCNN: a stack of convolutions at full resolution predicts the noise.

        out = x - conv(relu(norm(conv( ... relu(norm(conv(relu(conv(x))))) ... ))))

    Every convolution is 3x3 with a bias; BatchNorm is in all layers but the first and the last. Parameters, with F
    features and L layers: (9 Cin + 1) F + (L - 2) (9 F + 3) F + (9 F + 1) Cin, which is 557,057 for the paper's 17
    layers of 64. Multiply-adds per pixel: 9 Cin F + (L - 2) 9 F^2 + 9 F Cin, 554,112.

    Args:
        in_features: Cin, channels of the image.
        features: F, of the layers between.
        layers: L, at least 3.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: noisy image [B, H, W, Cin] -> image without noise, [B, H, W, Cin] in the dtype of x. The value
        range is free; the experiments have 0 to 1.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> DnCNN(features=8, layers=4, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 7, 1))).shape
        (1, 5, 7, 1)

    Reference:
        Zhang et al., Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising, TIP 2017, Sec. III.
    """

    def __init__(
        self,
        in_features: int = 1,
        *,
        features: int = 64,
        layers: int = _DEPTH,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        widths = [in_features] + [check_int("features", features)] * (check_int("layers", layers, 3) - 1)
        pairs = enumerate(itertools.pairwise(widths))
        self.layers = nnx.List(_Layer(i, o, norm=index > 0, dtype=dtype, rngs=rngs) for index, (i, o) in pairs)
        self.last = _conv(features, in_features, init=_LAST, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Take the noise away."""
        check_features("x", x, self.in_features)
        y = x
        for layer in self.layers:
            y = layer(y)
        return x - self.last(y).astype(x.dtype)


class DnCNNSegNet(nnx.Module):
    """DnCNN as an encoder-decoder of the same 17 layers, with three stages of downsampling and upsampling.

        C(64) C(64) D  C(128) C(128) D  C(256) C(256) C(256) D  C(512) C(512)
        C(256) U  C(128) C(128) U  C(64) C(64) U  C(64) C(64)  conv(Cin),    out = x - that

    C(k) is a 3x3 convolution of k channels, BatchNorm and ReLU; D and U are the stages of `Resampling`, on 64, 128 and
    256 channels, by the same method. With the method "conv-carafe" D is a stride of 2 in the convolution before it.

    Parameters: 7,087,873 and those of `Resampling`: CARAFE 201,964; linear, nonlinear and nonlinear index networks with
    context: holistic 7,168, 693,504, 2,757,888; modelwise_o2o 16, 56, 152; shared_o2o 48, 168, 456; unshared_o2o 7,168,
    25,088, 68,096; m2o 1,376,256, 3,447,808, 11,705,344. Multiply-adds per pixel: 388,224.
    The encoder is that of the paper ("the first 9 layers follow VGG-16"), which does not give the widths of the 7
    decoding layers. Those here, a mirror of VGG's, are the one choice among 64, 128, 256 and 512 channels, not
    increasing, with upsampling on 256, 128 and 64 channels, that has the paper's 7.09 M parameters and 18.14 G
    multiply-adds (1 G = 2^30) for 224 x 224 pixels; the second C(128) and one C(64) moved to half resolution would
    give the same. Without the biases, which BatchNorm takes away again, it would be 7.08 M.

    Args:
        in_features: Cin, channels of the image.
        method: of resampling, one of `DENOISING_METHODS`: "max-unpool" is the paper's DnCNN-SegNet, the others are
            "max-carafe", "avg-carafe", "conv-carafe", and the families of index networks; the further ones of
            `Resampling` are not in the paper.
        features: in the place of 64; the others are twice to eight times as many.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: noisy image [B, 8h, 8w, Cin] -> image without noise, [B, 8h, 8w, Cin] in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, 8h, 8w, Cin].

    Example:
        >>> network = DnCNNSegNet(features=4, method="holistic", rngs=nnx.Rngs(0))
        >>> network.eval()
        >>> jax.eval_shape(network, jnp.ones((1, 16, 8, 1))).shape
        (1, 16, 8, 1)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 6.2, Fig. 12 and Table 7.
    """

    def __init__(
        self,
        in_features: int = 1,
        *,
        method: str = "max-unpool",
        features: int = 64,
        nonlinear: bool = False,
        context: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        check_choice("method", method, DENOISING_METHODS)
        f, options = check_int("features", features), dict(dtype=dtype, rngs=rngs)
        self.strided = method == "conv-carafe"
        encoder = ((f, f), (2 * f, 2 * f), (4 * f, 4 * f, 4 * f), (8 * f, 8 * f))
        decoder = ((4 * f,), (2 * f, 2 * f), (f, f), (f, f))
        strides = (2, 2, 2, 1) if self.strided else (1, 1, 1, 1)
        inputs = (in_features, *(widths[-1] for widths in (*encoder, *decoder)))
        self.encoder = nnx.List(
            _block(i, widths, stride, **options) for i, widths, stride in zip(inputs, encoder, strides, strict=False)
        )
        self.decoder = nnx.List(_block(i, widths, **options) for i, widths in zip(inputs[4:], decoder, strict=False))
        self.last = _conv(f, in_features, init=_LAST, **options)
        # With strides only U is used, and average pooling has no parameters.
        resampling = "avg-carafe" if self.strided else method
        self.resampling = Resampling(
            method=resampling, features=(f, 2 * f, 4 * f), nonlinear=nonlinear, context=context, **options
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Take the noise away."""
        y, memories = self.encode(x)
        for stage, block in enumerate(self.decoder):
            y = _through(block, y)
            if stage < _STAGES:
                y = self.resampling.up(_STAGES - 1 - stage, y, memories[-1 - stage])
        return x - self.last(y).astype(x.dtype)

    def encode(self, x: jax.Array) -> tuple[jax.Array, list[Any]]:
        """The first nine layers.

        Args:
            x: [B, 8h, 8w, Cin].

        Returns:
            (y, memories): features [B, h, w, 512], and what each D keeps for its U, see `Resampling.down`; of index
            networks the index maps (encoder, decoder).
        """
        check_features("x", x, self.in_features)
        check_divides("downsampling", 2**_STAGES, "the height of x", x.shape[1])
        check_divides("downsampling", 2**_STAGES, "the width of x", x.shape[2])
        memories: list[Any] = []
        for stage, block in enumerate(self.encoder):
            x = _through(block, x)
            if stage < _STAGES:
                x, memory = (x, None) if self.strided else self.resampling.down(stage, x)
                memories.append(memory)
        return x, memories


def _block(in_features: int, widths: Sequence[int], stride: int = 1, **options: Any) -> nnx.List[_Layer]:
    """Layers one after the other, the stride in the last."""
    strides = [1] * (len(widths) - 1) + [stride]
    inputs = (in_features, *widths[:-1])
    return nnx.List(_Layer(i, o, stride=s, **options) for i, o, s in zip(inputs, widths, strides, strict=True))


def _through(layers: Sequence[_Layer], x: jax.Array) -> jax.Array:
    for layer in layers:
        x = layer(x)
    return x
