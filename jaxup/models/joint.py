"""Networks that upsample a depth map under an RGB guide: the attention-based network and deep joint filtering."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_divides, check_features, check_int, check_odd, fail
from jaxup.nn import initializers
from jaxup.ops import attention_upsample, resize, zero_upsample
from jaxup.ops.convolve import convolve_layer

# The width of each layer, as in Table I; "features" is the width F of the streams' last layer.
JOINT_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "SA_M1_F8": {"features": 8, "mixing_layers": 1},
        "SA_M1_F16": {"features": 16, "mixing_layers": 1},
        "SA_M1_F32": {"features": 32, "mixing_layers": 1},
        "SA_M2_F32": {"features": 32, "mixing_layers": 2},
        "DJF": {"widths": (96, 48), "joint_widths": (64, 32)},
        "DJFR": {"widths": (96, 48), "joint_widths": (64, 32), "residual": True},
        "DJF+": {"widths": (512, 256), "joint_widths": (384, 192)},
        "DJFScaled+": {"widths": (384, 192), "joint_widths": (288, 144)},
    }
)

DJF_CROP = 6  # pixels that the joint part of the official DJF takes away on each side, and that each part reaches to
BICUBIC_REACH = 3  # low-resolution pixels that an enlargement reads on each side, also if displaced by half of one

_INIT = initializers.he_normal()  # keeps the signal through layers with ReLU
_LAYER: dict[str, Any] = dict(kernel_init=_INIT, conv_general_dilated=convolve_layer)


class _ThreeLayers(nnx.Module):
    """Convolutions 9x9, 1x1 and 5x5, with ReLU between them and, where asked, at the end; by default of the same size.

    A number as `padding` is that of zeros around the input of each layer.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        *,
        last_relu: bool,
        last_zero: bool = False,
        padding: str | int = "SAME",
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        inputs = (in_features, *widths[:-1])
        self.convs = nnx.List(
            nnx.Conv(i, o, (k, k), padding=padding, **_LAYER, dtype=dtype, rngs=rngs)
            for i, o, k in zip(inputs, widths, (9, 1, 5), strict=True)
        )
        if last_zero:
            self.convs[-1].kernel[...] = jnp.zeros_like(self.convs[-1].kernel[...])
        self.last_relu = last_relu

    def __call__(self, x: jax.Array) -> jax.Array:
        for index, conv in enumerate(self.convs):
            x = conv(x)
            if self.last_relu or index < len(self.convs) - 1:
                x = nnx.relu(x)
        return x


class AttentionJointNetwork(nnx.Module):
    """Attention-based joint upsampling: log2(M) attention layers that double the size, keyed by the guide.

        Y_lr, V = CNN_T(x), CNN_T(x);  Y_hr = CNN_G(guide)
        for i = 1 .. log2(M):
            Q, K = split(CNN_M(zero_upsample(V) || downsample(Y_hr, M / 2^i)))
            V = relu(attention_upsample(Q, K, V))
        out = CNN_F(V)

    CNN_T and CNN_G are 9x9, 1x1, 5x5 convolutions of widths `widths` and F; CNN_M is `mixing_layers` 3x3
    convolutions of 2F channels; CNN_F is 9x9, 1x1, 5x5 of 2F, 2F and Cin channels. ReLU follows every layer but the
    last of CNN_F and the last of CNN_M. Weights do not depend on M, so that one network serves every power of two;
    it reads M off the shapes.

    Parameters of the presets: SA_M1_F8 73,241, SA_M1_F16 131,729, SA_M1_F32 326,273, SA_M2_F32 363,201, in
    agreement with the paper's "FDKN, having around 1.9x more parameters" than SA_M2_F32 (FDKN has 0.69 M).
    The paper leaves open, and chosen here: CNN_M's 3x3 kernels and its being shared by the stages, as Algorithm 1
    writes it (both follow from that ratio); the attention window K = 5; the mean as `downsample`; and queries and
    keys without ReLU, linear as in Eqs. 13 and 14 (with it, short trainings stayed at the level of bicubic).

    Args:
        features: F, even.
        mixing_layers: layers of CNN_M.
        widths: widths of the first two layers of CNN_T and CNN_G.
        in_features: channels of x.
        guide_features: channels of the guide.
        kernel_size: K of the attention windows on the doubled grid, odd, at least 3.
        num_heads: attention heads, a divisor of F (the paper has one).
        scaled: divide scores by sqrt(F / num_heads).
        residual: let every stage upsample x itself, too, by the same attention weights, and add the result to the
            output, with which the untrained network then starts (its last layer is zero). Not in the paper; needs
            one head. It gives Q and K a direct gradient, without which short trainings hardly leave bicubic.
        dtype: the type in which convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: x [B, h, w, Cin], guide [B, M*h, M*w, Cg], M = 2, 4, 8, ... -> [B, M*h, M*w, Cin] in the
        dtype of x. The value range is free; train and run with the same normalisation.

    Raises:
        ValueError: a wrong option, or a guide that is not a power of two times as large as x.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> network = AttentionJointNetwork(features=8, mixing_layers=1, widths=(16, 8), rngs=nnx.Rngs(0))
        >>> nnx.jit(network)(jnp.ones((1, 4, 5, 1)), jnp.ones((1, 16, 20, 3))).shape
        (1, 16, 20, 1)

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Algorithm 1, Fig. 3 and Table I.
    """

    def __init__(
        self,
        *,
        features: int,
        mixing_layers: int,
        widths: tuple[int, int] = (96, 48),
        in_features: int = 1,
        guide_features: int = 3,
        kernel_size: int = 5,
        num_heads: int = 1,
        scaled: bool = False,
        residual: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if check_int("features", features) % 2:
            fail("features", "an even integer, half for row and half for column positions", features)
        check_divides("num_heads", check_int("num_heads", num_heads), "features", features)
        self.in_features, self.guide_features = check_int("in_features", in_features), guide_features
        self.kernel_size, self.num_heads = check_odd("kernel_size", kernel_size), num_heads
        self.scaled, self.residual = scaled, residual
        if kernel_size < 3:
            fail("kernel_size", "at least 3, or windows are empty", kernel_size)
        if residual and num_heads > 1:
            fail("num_heads", "1 with residual", num_heads)
        both = 2 * features
        self.target_cnn = _ThreeLayers(in_features, (*widths, features), last_relu=True, dtype=dtype, rngs=rngs)
        self.guide_cnn = _ThreeLayers(guide_features, (*widths, features), last_relu=True, dtype=dtype, rngs=rngs)
        self.mixing_cnn = nnx.List(
            nnx.Conv(both, both, (3, 3), **_LAYER, dtype=dtype, rngs=rngs)
            for _ in range(check_int("mixing_layers", mixing_layers))
        )
        self.final_cnn = _ThreeLayers(
            features, (both, both, in_features), last_relu=False, last_zero=residual, dtype=dtype, rngs=rngs
        )
        init, shape = initializers.normal(features**-0.5), (kernel_size, features // 2)
        self.px = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.py = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x to the size of the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        factor = _power_of_two(x, guide)
        depth, value, guide_map = x, self.target_cnn(x), self.guide_cnn(guide)
        while factor > 1:
            factor //= 2
            depth, value = self._stage(depth, value, _shrink(guide_map, factor))
        out = self.final_cnn(value).astype(x.dtype)
        return out + depth if self.residual else out

    def reach(self, scale: float) -> int:
        """How many low-resolution pixels beyond its own an output pixel depends on at most, at a scale.

        9x9 and 5x5 convolutions at both ends, and at each doubling half of what the one before reached to.
        """
        return 6 + len(self.mixing_cnn) + self.kernel_size // 2 + 2 + math.ceil(12 / scale)

    def _stage(self, depth: jax.Array, value: jax.Array, guide_map: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Double the size of the value map and, with `residual`, of the depth."""
        mixed = jnp.concatenate([zero_upsample(value, scale=2), guide_map], axis=-1)
        for index, conv in enumerate(self.mixing_cnn):
            mixed = conv(nnx.relu(mixed) if index else mixed)
        query, key = jnp.split(mixed, 2, axis=-1)
        if self.residual:
            value = jnp.concatenate([value, depth.astype(value.dtype)], axis=-1)
        up = attention_upsample(
            query,
            key,
            value,
            scale=2,
            kernel_size=self.kernel_size,
            positions=(self.px[...], self.py[...]),
            num_heads=self.num_heads,
            scaled=self.scaled,
        )
        if not self.residual:
            return depth, nnx.relu(up)
        return up[..., -self.in_features :].astype(depth.dtype), nnx.relu(up[..., : -self.in_features])


class DJF(nnx.Module):
    """Deep joint filtering: two streams and a joint part over the bicubically enlarged target.

        out = CNN_F(CNN_G(guide) || CNN_T(resize(x)))

    Each part is 9x9, 1x1 and 5x5 convolutions with ReLU between them; the streams end in one channel each. Every layer
    keeps the size, with zeros around it. The official models instead (`cropped`) put two zeros around every layer of
    the streams, also around the 1x1 one, and none in the joint part: the output then lacks six pixels on each side.

    Parameters of the presets: DJF 56,323, DJFScaled+ 374,787, DJF+ 583,683.

    Args:
        widths: widths of the first two layers of both streams.
        joint_widths: widths of the first two layers of the joint part.
        in_features: channels of x.
        guide_features: channels of the guide.
        residual: add the enlarged x to the output (DJFR), with which the untrained network then starts.
        cropped: the borders of the official models.
        dtype: the type in which convolutions compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: x [B, h, w, Cin], guide [B, H, W, Cg] of any size -> [B, H, W, Cin] in the dtype of x, or
        [B, H - 12, W - 12, Cin] with `cropped`. x is enlarged to the guide by bicubic interpolation, and left alone
        where it has that size already.

    Raises:
        ValueError: a wrong option, or an x or guide of a wrong rank, dtype or channel count.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> network = DJF(widths=(16, 8), joint_widths=(8, 4), rngs=nnx.Rngs(0))
        >>> nnx.jit(network)(jnp.ones((1, 4, 5, 1)), jnp.ones((1, 16, 20, 3))).shape
        (1, 16, 20, 1)

    Reference:
        Li et al., Deep Joint Image Filtering, ECCV 2016, and Joint Image Filtering with Deep Convolutional Networks,
        2019 (residual). Official models: Yijunmaverick/DeepJointFilter (MIT), `jaxup.interop.load_matconvnet`. The
        presets' widths: Kundu et al., Attention-based Image Upsampling, 2020, Table I.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, int] = (96, 48),
        joint_widths: tuple[int, int] = (64, 32),
        in_features: int = 1,
        guide_features: int = 3,
        residual: bool = False,
        cropped: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.guide_features = check_int("in_features", in_features), guide_features
        self.residual, self.cropped = residual, cropped
        part: Any = partial(_ThreeLayers, last_relu=False, dtype=dtype, rngs=rngs)
        borders: dict[str, Any] = {"padding": 2} if cropped else {}
        self.target_cnn = part(in_features, (*widths, 1), **borders)
        self.guide_cnn = part(guide_features, (*widths, 1), **borders)
        self.final_cnn = part(
            2, (*joint_widths, in_features), last_zero=residual, padding="VALID" if cropped else "SAME"
        )

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x to the size of the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        target = resize(x, size=guide.shape[1:3], method="bicubic")
        streams = [self.guide_cnn(guide), self.target_cnn(target)]
        if self.cropped and min(target.shape[1:3]) <= 2 * DJF_CROP:
            fail("guide", f"more than {2 * DJF_CROP} rows and columns with cropped", f"shape {guide.shape}")
        out: jax.Array = self.final_cnn(jnp.concatenate(streams, axis=-1)).astype(x.dtype)
        if self.residual:
            out = out + (target[:, DJF_CROP:-DJF_CROP, DJF_CROP:-DJF_CROP] if self.cropped else target)
        return out

    def reach(self, scale: float) -> int:
        """How many low-resolution pixels beyond its own an output pixel depends on at most, at a scale."""
        return math.ceil(2 * DJF_CROP / scale) + BICUBIC_REACH


def make_joint_network(preset: str, *, rngs: nnx.Rngs, **options: Any) -> AttentionJointNetwork | DJF:
    """Build a network of Table I by its name there.

    Args:
        preset: a name in `JOINT_PRESETS`: "SA_M1_F8", "SA_M1_F16", "SA_M1_F32", "SA_M2_F32", "DJF", "DJFR", "DJF+"
            or "DJFScaled+".
        rngs: source of the initial parameters.
        options: further options of `AttentionJointNetwork` or `DJF`; they win over the preset's.

    Returns:
        The network, float32.

    Raises:
        ValueError: an unknown preset, or a wrong option.

    Example:
        >>> from flax import nnx
        >>> make_joint_network("SA_M1_F8", rngs=nnx.Rngs(0)).kernel_size
        5

    Reference:
        Kundu et al., Attention-based Image Upsampling, 2020, Table I.
    """
    check_choice("preset", preset, JOINT_PRESETS)
    build = DJF if preset.startswith("DJF") else AttentionJointNetwork
    return build(**{**JOINT_PRESETS[preset], **options}, rngs=rngs)


def _power_of_two(x: jax.Array, guide: jax.Array) -> int:
    factor = guide.shape[1] // max(1, x.shape[1])
    same = guide.shape[:3] == (x.shape[0], factor * x.shape[1], factor * x.shape[2])
    if not same or factor < 2 or factor & (factor - 1):
        fail("guide", f"the batch of x and 2, 4, 8, ... times its size {x.shape[1:3]}", f"shape {guide.shape}")
    return factor


def _shrink(x: jax.Array, factor: int) -> jax.Array:
    return x if factor == 1 else resize(x, size=(x.shape[1] // factor, x.shape[2] // factor), method="area")
