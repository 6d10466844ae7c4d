"""Fusing the assets of decoder and encoder (Lu et al., FADE, ECCV 2022)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_features, check_int, check_odd, check_shape, fail, known, pair
from jaxup.nn import initializers
from jaxup.ops.convolve import convolve
from jaxup.ops.reassemble import reassemble
from jaxup.ops.regions import convolve_groups
from jaxup.ops.resize import resize
from jaxup.ops.softmax import softmax
from jaxup.ops.tiling import in_strips, needs_strips
from jaxup.ops.windows import to_channels


def _conv(inputs: int, outputs: int, size: int, rngs: nnx.Rngs, **options: Any) -> nnx.Conv:
    options = {"kernel_init": initializers.xavier_uniform(), "conv_general_dilated": convolve} | options
    return nnx.Conv(inputs, outputs, (size, size), rngs=rngs, **options)


class SemiShift(nnx.Module):
    """Semi-shift convolution: kernel logits from an HR and an LR feature map with one K x K convolution.

        logits = conv(We guide + be) + nearest(conv(Wd x)),    conv(y) = W * y + b    (zero padding)

    The convolution, bias included, is shared by both terms, so b counts twice. The LR term is evaluated once per LR
    cell. The low-to-high and high-to-low forms of the official code are this sum, evaluated at HR and phase by phase.
    Parameters: (Cin + Cg + 1) E + K^2 E Cout + Cout; depthwise (E = Cout): (Cin + Cg + 2 + K^2) Cout.

    Args:
        in_features: Cin, channels of x.
        guide_features: Cg, channels of the guide.
        out_features: Cout, the number of logits.
        scale: integer upsampling factor, or a pair (vertical, horizontal). The paper has 2.
        kernel_size: of the convolution, odd.
        embedding_features: E, the channels that both maps are compressed to.
        depthwise: compress to Cout channels and convolve each by itself (FADE-Lite); E has no meaning then.
        dtype: the type in which the convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, Cg] -> [B, sy*h, sx*w, Cout] in `dtype`.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> logits = SemiShift(16, 8, 25, rngs=nnx.Rngs(0))
        >>> nnx.jit(logits)(jnp.ones((1, 5, 6, 16)), jnp.ones((1, 10, 12, 8))).shape
        (1, 10, 12, 25)

    Reference:
        Lu et al., FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling, ECCV 2022, Sec. 4.2.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        out_features: int,
        *,
        scale: int | Pair = 2,
        kernel_size: int = 3,
        embedding_features: int = 64,
        depthwise: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.scale = pair("scale", scale)
        outputs, size = check_int("out_features", out_features), check_odd("kernel_size", kernel_size)
        depth = outputs if depthwise else check_int("embedding_features", embedding_features)
        self.compress_guide = _conv(guide_features, depth, 1, rngs, dtype=dtype)
        self.compress_x = _conv(in_features, depth, 1, rngs, dtype=dtype, use_bias=False)
        grouped: dict[str, Any] = dict(feature_group_count=outputs, conv_general_dilated=convolve_groups)
        self.conv = _conv(depth, outputs, size, rngs, dtype=dtype, **(grouped if depthwise else {}))

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Logits on the guide's grid."""
        return self.kernels(x, guide, lambda logits: logits)

    def kernels(self, x: jax.Array, guide: jax.Array, finish: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """What a function makes of each pixel's logits; strip by strip where the embedded guide is large."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], self.scale[0] * x.shape[1], self.scale[1] * x.shape[2], None))
        of_x, margin = self.conv(self.compress_x(x)), self.conv.kernel_size[0] // 2
        embedded = self.compress_guide.out_features * of_x.dtype.itemsize
        row_bytes = known(guide.shape[0]) * known(guide.shape[2]) * embedded
        if not needs_strips(guide, margin=margin, row_bytes=row_bytes):
            of_x = resize(of_x, scale=self.scale, method="nearest")
            return finish(self.conv(self.compress_guide(guide)) + of_x)
        wide = resize(of_x, scale=(1, self.scale[1]), method="nearest")
        numbers = jnp.arange(guide.shape[1])[None, :, None, None]

        def strip(rows: jax.Array, numbers: jax.Array) -> jax.Array:
            return finish(self.conv(self.compress_guide(rows)) + wide[:, numbers[0, :, 0, 0] // self.scale[0]])

        dtype = jax.eval_shape(finish, of_x).dtype
        options: dict[str, Any] = dict(margin=margin, row_bytes=row_bytes, dtype=dtype)
        return in_strips(strip, guide, numbers, channels=of_x.shape[3], **options)


class FADE(nnx.Module):
    """Upsampling with kernels from the decoder and the encoder map, and a gate that lets encoder details through.

        up  = reassemble(x, softmax(SemiShift(x, guide)))
        out = g * guide + (1 - g) * up,    g = nearest(sigmoid(wg x + bg))

    Without the gate, out = up, and the guide may have other channels than x.
    Parameters: those of `SemiShift` with Cout = K^2, and Cin + 1 for the gate. Multiply-adds per output pixel:
    Cg E + (9 E K^2 + Cin E) (1 + 1 / s^2) + K^2 Cin.

    Args:
        in_features: Cin, channels of x.
        guide_features: Cg, channels of the guide; Cin where there is a gate.
        scale: integer upsampling factor, or a pair (vertical, horizontal). The paper has 2.
        kernel_size: K of the reassembly, odd, on the LR grid.
        embedding_features: E, see `SemiShift`.
        gated: blend in the guide.
        lite: depthwise semi-shift convolution (FADE-Lite).
        dtype: the type in which the convolutions compute; parameters are float32, the softmax never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, Cin], guide [B, sy*h, sx*w, Cg] -> HR map [B, sy*h, sx*w, Cin] in the
        dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = FADE(8, 8, lite=True, rngs=nnx.Rngs(0))
        >>> nnx.jit(up)(jnp.ones((1, 5, 6, 8)), jnp.ones((1, 10, 12, 8))).shape
        (1, 10, 12, 8)

    Reference:
        Lu et al., FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling, ECCV 2022. Official
        code: poppinace/fade (MIT; the readme says academic use), FADE_L2H.py and FADE_H2L.py.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        scale: int | Pair = 2,
        kernel_size: int = 5,
        embedding_features: int = 64,
        gated: bool = True,
        lite: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.scale, self.kernel_size = pair("scale", scale), check_odd("kernel_size", kernel_size)
        if gated and guide_features != in_features:
            fail("guide_features", f"in_features = {in_features} where there is a gate", guide_features)
        self.logits = SemiShift(
            in_features,
            guide_features,
            kernel_size**2,
            scale=scale,
            embedding_features=embedding_features,
            depthwise=lite,
            dtype=dtype,
            rngs=rngs,
        )
        self.gate = _conv(in_features, 1, 1, rngs, dtype=dtype) if gated else None

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        up = reassemble(x, self.kernels(x, guide), scale=self.scale, kernel_size=self.kernel_size)
        if self.gate is None:
            return up
        gate = resize(nnx.sigmoid(self.gate(x)), scale=self.scale, method="nearest").astype(x.dtype)
        gate = to_channels(gate, up.shape[3])
        return gate * guide.astype(x.dtype) + (1 - gate) * up

    def kernels(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """The weights of its averages, [B, sy*h, sx*w, K*K] with the sum 1, in float32 or more."""

        def weights(logits: jax.Array) -> jax.Array:
            return softmax(logits.astype(accum_dtype(logits)))

        return self.logits.kernels(x, guide, weights)
