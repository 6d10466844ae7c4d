"""The encoder-decoder that reconstructs images from small maps: what upsampling brings back (Lu et al., TPAMI 2020)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_divides, check_features, check_int
from jaxup.models.resampling import Memory, Resampling
from jaxup.nn import initializers
from jaxup.nn.norms import BatchNorm, normalise
from jaxup.ops.convolve import convolve_layer


class _Block(nnx.Module):
    """C(k): a 3 x 3 convolution, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, dtype: Any, rngs: nnx.Rngs):
        options: Any = dict(kernel_init=initializers.he_normal(), conv_general_dilated=convolve_layer)
        self.conv = nnx.Conv(inputs, outputs, (3, 3), use_bias=False, **options, dtype=dtype, rngs=rngs)
        self.norm, self.dtype = BatchNorm(outputs, rngs=rngs), dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(normalise(self.norm, self.conv(x), self.dtype))


class ReconstructionNetwork(nnx.Module):
    """An autoencoder without skip connections but what its downsampling stages hand to its upsampling stages.

        C(32) - D - C(64) - D - C(128) - D - C(256) - C(128) - U - C(64) - U - C(32) - U - C(1)

    C(k) is a 3 x 3 convolution to k channels, BatchNorm and ReLU, the last one a convolution with bias alone. D and U
    halve and double the resolution, both on 32, 64 and 128 channels; which ones they are is `method`, see
    `jaxup.models.resampling.Resampling`.

    Parameters for one channel: 776,129, for "space-to-depth" 1,868,009 (its maps are wider after D, narrower after U),
    and those of the method: "modelwise_o2o" 152, "holistic" 690,816, "m2o" 2,928,128 (nonlinear with context), "a2u"
    17,694, "a2u-k1" 3,166, "conv-carafe" 381,388, "conv-deconv" 387,520, "conv-bilinear" 193,760. Multiply-adds per
    pixel without the method's: 28,224.

    Args:
        in_features: channels of the image.
        method: how to resample, one of `jaxup.models.resampling.RESAMPLINGS`.
        widths: of the encoder's blocks, and in reverse of the decoder's. After the last D one block has twice as many.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        encoder_normalization: of index networks.
        decoder_normalization: of index networks.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: [B, H, W, C] -> [B, H, W, C] in the dtype of x, not clipped. H and W are multiples of 2^n for n
        widths.

    Raises:
        ValueError: a wrong option, or an x that does not fit.

    Example:
        >>> network = ReconstructionNetwork(1, method="avg-nearest", widths=(2,), rngs=nnx.Rngs(0))
        >>> network(jnp.ones((1, 4, 6, 1))).shape
        (1, 4, 6, 1)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 5.3 and Table 3.
    """

    def __init__(
        self,
        in_features: int = 1,
        *,
        method: str,
        widths: Sequence[int] = (32, 64, 128),
        nonlinear: bool = True,
        context: bool = True,
        encoder_normalization: str = "sigmoid+softmax",
        decoder_normalization: str = "sigmoid",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.resampling = stages = Resampling(
            method=method,
            features=widths,
            nonlinear=nonlinear,
            context=context,
            encoder_normalization=encoder_normalization,
            decoder_normalization=decoder_normalization,
            dtype=dtype,
            rngs=rngs,
        )
        numbers = range(len(widths))

        def blocks(inputs: Sequence[int], outputs: Sequence[int]) -> nnx.List[_Block]:
            return nnx.List(_Block(i, o, dtype=dtype, rngs=rngs) for i, o in zip(inputs, outputs, strict=True))

        down, up = [stages.down_features(n) for n in numbers], [stages.up_features(n) for n in numbers]
        self.encoder = blocks([in_features, *down[:-1]], widths)
        self.bottleneck = _Block(down[-1], 2 * widths[-1], dtype=dtype, rngs=rngs)
        self.decoder = blocks([2 * widths[-1], *up[:0:-1]], widths[::-1])
        options: Any = dict(kernel_init=initializers.lecun_normal(), conv_general_dilated=convolve_layer)
        self.last = nnx.Conv(up[0], in_features, (3, 3), **options, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Reconstruct x."""
        return self.decode(*self.encode(x)).astype(x.dtype)

    def kernels(self, x: jax.Array) -> jax.Array:
        """The weights of the averages that give the largest map, to look at them.

        Args:
            x: [B, H, W, C].

        Returns:
            [B, H, W, G, K*K], as `ops.reassemble` takes them.

        Raises:
            ValueError: the method does not average by kernels ("a2u" and "carafe" do), or an x that does not fit.

        Example:
            >>> network = ReconstructionNetwork(1, method="conv-carafe", widths=(2,), rngs=nnx.Rngs(0))
            >>> network.kernels(jnp.ones((1, 4, 6, 1))).shape
            (1, 4, 6, 1, 25)
        """
        z, memories = self.encode(x)
        return self.resampling.kernels(0, self._before_last_stage(z, memories), memories[0])

    def encode(self, x: jax.Array) -> tuple[jax.Array, list[Memory]]:
        """The smallest map, and what each downsampling stage remembers: of index networks the two index maps."""
        check_features("x", x, self.in_features)
        for name, length in zip(("height", "width"), x.shape[1:3], strict=True):
            check_divides("stride", 2 ** len(self.encoder), name, length)
        memories = []
        for stage, block in enumerate(self.encoder):
            x, memory = self.resampling.down(stage, block(x))
            memories.append(memory)
        return self.bottleneck(x), memories

    def decode(self, z: jax.Array, memories: Sequence[Memory]) -> jax.Array:
        """The image."""
        return self.last(self.resampling.up(0, self._before_last_stage(z, memories), memories[0]))

    def _before_last_stage(self, z: jax.Array, memories: Sequence[Memory]) -> jax.Array:
        """What the last upsampling stage enlarges, that of the largest map, number 0."""
        for stage, block in zip(reversed(range(len(memories))), self.decoder, strict=True):
            z = block(z)
            if stage:
                z = self.resampling.up(stage, z, memories[stage])
        return z
