"""What UPLiFT is made of: groups of residual convolutions, an image encoder, a decoder and a local attender."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_choice, check_int
from jaxup.nn import initializers
from jaxup.nn.norms import BatchNorm, Norm, layer_norm, normalise
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.resize import resize, row_table, some_rows
from jaxup.ops.softmax import softmax
from jaxup.ops.windows import merge_phases, pad_window, window_average, window_offsets

_STAR = ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))
_FAR = ((-2, 0), (0, -2), (0, 2), (2, 0))
_CORNERS = ((-2, -2), (-2, 2), (2, -2), (2, 2))
NEIGHBOURS: dict[int, tuple[Pair, ...]] = {
    5: _STAR,
    9: window_offsets(3),
    13: tuple(sorted(window_offsets(3) + _FAR)),
    17: tuple(sorted(window_offsets(3) + _FAR + _CORNERS)),
    25: window_offsets(5),
}
_NORMS = ("batch", "layer")
_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
Layer = dict[str, Any]  # dtype and rngs
Rows = tuple[jax.Array, int]  # the first row of a strip, and the height of the whole map


def trimmed_sum(a: jax.Array, b: jax.Array) -> jax.Array:
    """A + b with the channels of b: a is cut, or filled with zeros."""
    extra = b.shape[3] - a.shape[3]
    return b + (jnp.pad(a, ((0, 0),) * 3 + ((0, extra),)) if extra > 0 else a[..., : b.shape[3]])


def conv(inputs: int, outputs: int, size: int, *, stride: int = 1, use_bias: bool = True, **layer: Any) -> nnx.Conv:
    """A convolution with zeros around the image."""
    around = ((size // 2, size // 2),) * 2
    init: Layer = dict(kernel_init=_uniform, use_bias=use_bias)
    if size == 1:
        init["conv_general_dilated"] = pointwise_conv
    return nnx.Conv(inputs, outputs, (size, size), strides=stride, padding=around, **init, **layer)


def make_norm(kind: str, features: int, rngs: nnx.Rngs) -> Norm:
    """Batch normalisation, or layer normalisation over the channels."""
    check_choice("norm", kind, _NORMS)
    return BatchNorm(features, rngs=rngs) if kind == "batch" else layer_norm(features, rngs, epsilon=1e-6)


class ConvBlock(nnx.Module):
    """One or two of convolution, norm, ReLU, then perhaps a 1 x 1 convolution, added to the input (`trimmed_sum`)."""

    def __init__(self, inputs: int, outputs: int, count: int, *, norm: str, stride: int, one_by: bool, **layer: Any):
        sources = [inputs, *[outputs] * (count - 1)]
        self.convs = nnx.List(conv(n, outputs, 3, stride=stride, use_bias=False, **layer) for n in sources)
        self.norms = nnx.List(make_norm(norm, outputs, layer["rngs"]) for _ in sources)
        self.mix = conv(outputs, outputs, 1, **layer) if one_by else None
        self.stride, self.dtype = stride, layer["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        y = x
        for layer, norm in zip(self.convs, self.norms, strict=True):
            y = nnx.relu(normalise(norm, layer(y), self.dtype))
        y = y if self.mix is None else self.mix(y)
        return trimmed_sum(x if self.stride == 1 else halved(x), y)


class Group(nnx.Module):
    """Blocks one after the other, as an official configuration has them: block, norm, hc, stride, one_by."""

    def __init__(self, inputs: int, config: Mapping[str, Any], **layer: Any):
        check_choice("block", config["block"], ("SingleConv", "DoubleConv"))
        count, widths = 1 if config["block"] == "SingleConv" else 2, list(config["hc"])
        options = dict(norm=config["norm"], stride=config.get("stride", 1), one_by=config.get("one_by", True))
        pairs = zip([inputs, *widths[:-1]], widths, strict=True)
        self.blocks = nnx.List(ConvBlock(n, m, count, **options, **layer) for n, m in pairs)
        self.features = widths[-1]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H', W', features]."""
        for block in self.blocks:
            x = block(x)
        return x


def halved(x: jax.Array) -> jax.Array:
    """Half the size, rounded down, corners on corners."""
    return resize(x, size=(max(1, x.shape[1] // 2), max(1, x.shape[2] // 2)), method="bilinear", align_corners=True)


class Down(nnx.Module):
    """Between two groups of the image encoder: nothing, a strided convolution, or the largest of 2 x 2 pixels."""

    def __init__(self, features: int, config: Mapping[str, Any], **layer: Any):
        self.kind, self.residual = config["down_op"], config.get("residual", "none") == "bilinear"
        check_choice("down_op", self.kind, ("none", "conv", "max"))
        strided = self.kind == "conv"
        self.conv = conv(features, features, 3, stride=2, **layer) if strided else None
        self.norm = BatchNorm(features, rngs=layer["rngs"]) if strided else None
        self.dtype = layer["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same, or half as large."""
        if self.conv is not None and self.norm is not None:
            y = nnx.relu(normalise(self.norm, self.conv(x), self.dtype))
        elif self.kind == "max":
            pool: Any = nnx.max_pool  # which has no types
            y = pool(x, (2, 2), strides=(2, 2))
        else:
            y = x
        return trimmed_sum(halved(x), y) if self.residual else y


class ImageEncoder(nnx.Module):
    """Groups of convolutions, with a `Down` before all but the first; all their maps are returned."""

    def __init__(self, inputs: int, config: Mapping[str, Any], **layer: Any):
        steps = check_int("down_steps", config["down_steps"], 0)
        groups, downs = [Group(inputs, config["block_0"], **layer)], []
        for k in range(1, steps + 1):
            downs.append(Down(groups[-1].features, config[f"down_{k}"], **layer))
            groups.append(Group(groups[-1].features, config[f"block_{k}"], **layer))
        self.groups, self.downs = nnx.List(groups), nnx.List(downs)
        self.features = tuple(group.features for group in groups)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """[B, H, W, inputs] -> a map of each group."""
        maps = [self.groups[0](x)]
        for down, group in zip(self.downs, self.groups[1:], strict=True):
            maps.append(group(down(maps[-1])))
        return maps


class Doubling(nnx.Module):
    """Transposed convolution of 2 x 2 with stride 2, plus the enlargement of its input, corners on corners."""

    def __init__(self, features: int, config: Mapping[str, Any], **layer: Any):
        check_choice("up_op", config["up_op"], ("tconv",))
        self.residual = config.get("residual", "none") == "bilinear"
        self.kernel = nnx.Param(_uniform(layer["rngs"].params(), (2, 2, features, features)))
        self.bias = nnx.Param(jnp.zeros(features))
        self.dtype = layer["dtype"]

    def __call__(self, x: jax.Array, rows: Rows | None = None) -> jax.Array:
        """[B, h, w, C] -> [B, 2 h, 2 w, C]; x may be some rows, `rows` the first of them and the height of the map."""
        y = merge_phases(jnp.einsum("bhwc,uvco->bhuwvo", x, self.kernel[...].astype(self.dtype)))
        y = y + self.bias[...].astype(self.dtype)[None, None, None]
        if not self.residual:
            return y
        if rows is None:
            return y + resize(x, scale=2, method="bilinear", align_corners=True)
        (first, height), size = rows, (y.shape[1], y.shape[2])
        table = row_table(height, 2 * height, "bilinear", align_corners=True)
        enlarged = some_rows(x, table, 2 * first, size[0], first)
        return y + resize(enlarged, size=size, method="bilinear", align_corners=True)


class LocalAttender(nnx.Module):
    """Each pixel's average of n cells around its own, by the softmax of a 1 x 1 convolution of a guide.

    With `residual` the guide's first n channels are added to the scores. Beyond the border the map goes on.
    """

    def __init__(self, guide_features: int, neighbours: int, *, residual: bool = True, **layer: Any):
        check_choice("neighbours", neighbours, NEIGHBOURS)
        self.score = conv(guide_features, neighbours, 1, **layer)
        self.neighbours, self.residual = neighbours, residual

    def __call__(self, guide: jax.Array, x: jax.Array) -> jax.Array:
        """Guide [B, r h, r w, Cg], x [B, h, w, C] -> [B, r h, r w, C] in float32 or more."""
        scores = self.score(guide)
        scores = (trimmed_sum(guide.astype(scores.dtype), scores) if self.residual else scores).astype(
            accum_dtype(scores)
        )
        ry, rx = scores.shape[1] // x.shape[1], scores.shape[2] // x.shape[2]
        offsets = NEIGHBOURS[self.neighbours]
        radius = max(abs(dy) for dy, _ in offsets)
        weights = softmax(scores).reshape(x.shape[0], x.shape[1], ry, x.shape[2], rx, 1, -1)
        cells = pad_window(x, (radius, radius), "edge")[..., None, :]
        return merge_phases(window_average(weights, cells, offsets, (radius, radius))[..., 0, :])


class Noise:
    """Normal draws, one after the other: given ones, those of a source, or zeros."""

    def __init__(self, draws: Sequence[jax.Array] | None, rngs: nnx.Rngs | None):
        self.draws, self.rngs = None if draws is None else list(draws), rngs

    def beside(self, parts: list[jax.Array], noise: tuple[int, float]) -> jax.Array:
        """The parts and channels of noise, as many as given and with the given deviation."""
        like, (channels, deviation) = parts[0], noise
        if not channels:
            return jnp.concatenate(parts, axis=-1)
        shape = (*like.shape[:3], channels)
        if self.draws is not None:
            drawn = self.draws.pop(0)
        else:
            drawn = jnp.zeros(shape) if self.rngs is None else jax.random.normal(self.rngs.noise(), shape)
        return jnp.concatenate([*parts, deviation * drawn.astype(like.dtype)], axis=-1)


resampled = {
    "nearest": partial(resize, method="nearest"),
    "bilinear": partial(resize, method="bilinear", antialias=True),
}
