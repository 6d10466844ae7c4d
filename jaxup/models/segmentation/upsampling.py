"""How an upsampler is put into a network: direct or iterated, with which guides and options, and for any size."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int, check_power_of_two, check_shape, fail
from jaxup.models.backbones.layers import ConvNorm
from jaxup.nn import UPSAMPLERS, Iterated, PixelShuffle, make_upsampler
from jaxup.ops.convolve_resized import convolve_resized, resizes_last
from jaxup.ops.resize import resize

Build = str | Callable[..., nnx.Module]

# Interpolation comes to any size at once.
_RESIZED = ("nearest", "bilinear", "bicubic")
# Made for any ratio, or iterated by themselves.
DIRECT = ("resfu", "stack_jbu", "anyup")
# As ReSFU's experiments have the upsamplers, after their numbers of parameters. What drops out only by chance, without
# a source of random numbers in the call, does not here.
_USUAL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "pixel_shuffle": dict(kernel_size=1),
        "dysample": dict(style="pl", dynamic_scope=True),
        "sapa": dict(embedding_features=32),
        "fade": dict(gated=False),
        "fade_lite": dict(gated=False),
        "resfu": dict(form="official"),
        "jbu": dict(fixup=True, dropout=0.0),
        "stack_jbu": dict(fixup=True, dropout=0.0, fixup_dropout=0.0),
    }
)


class _Deconvolution(nnx.Module):
    """A transposed convolution whose windows are the cells: kernel = stride = scale."""

    def __init__(self, features: int, *, scale: int, dtype: Any, rngs: nnx.Rngs):
        options: dict[str, Any] = dict(kernel_size=1, use_bias=False, dtype=dtype, rngs=rngs)
        self.spread, self.dtype = PixelShuffle(features, features, scale=scale, **options), dtype
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return (self.spread(x).astype(self.dtype) + self.bias[...].astype(self.dtype)[None, None, None]).astype(x.dtype)


class Upsampling(nnx.Module):
    """An upsampler in a network: it brings a map to the size of the finest of its guides, 2^N times as large.

        y_0 = x,    y_n = crop(up_n(y_{n-1}, extend(maps[N - n])))          iterated, each step with its adjacent map
        out = crop(up(x, extend(maps[0])))                                   direct, for those of `direct`
        out = resize(x, size of maps[0])                                     "nearest", "bilinear", "bicubic"

    The maps of a pyramid whose image has odd sides are no multiples of each other, but ceil(H / 2): a guide is extended
    by copies of its last row and column to the multiple, and the result is cut to its size. Upsamplers without a guide
    learn only that size from the maps.

    Options are those with which ReSFU's experiments have the printed numbers of parameters: deconvolution with kernel =
    stride, pixel shuffle after a 1x1 convolution, DySample of style "pl" with a dynamic scope ("S+"), SAPA with an
    embedding of 32, FADE without a gate, ReSFU of the official form, JBU with its fix-ups and without dropout.

    Args:
        upsampler: a name of `nn.UPSAMPLERS`, or a function (in_features=, guide_features=, scale=, rngs=) -> module,
            which is used directly: `nn.Iterated` is there for steps.
        in_features: channels of x and of the result.
        guides: channels of the N guides between x and the result, the finest first.
        scale: 2^N.
        image_features: channels of an image for upsamplers that want one as their guide (JBU, Stack-JBU, joint PAC,
            AnyUp); without, these take the maps, too.
        direct: the names of those that are not iterated.
        options: of the upsamplers by name, in the place of the usual ones.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, maps, image=None)`: x [B, h, w, in_features], maps [B, ceil(2^N h), ...] to the step above x, each
        with its channels of `guides`, the finest first, image [B, H, W, image_features] -> [B, h_0, w_0, in_features]
        with the size of maps[0], in the dtype of x.

    Raises:
        ValueError: an unknown upsampler, guides that are not N or that it does not take, or maps that do not fit.

    Example:
        >>> up = Upsampling("sapa", in_features=8, guides=(4, 6), scale=4, rngs=nnx.Rngs(0))
        >>> up(jnp.ones((1, 3, 2, 8)), (jnp.ones((1, 10, 7, 4)), jnp.ones((1, 5, 4, 6)))).shape
        (1, 10, 7, 8)

    Reference:
        Zhou et al., A Refreshed Similarity-based Upsampler, 2024, Sec. 5.2, Figs. 9, 10, 12 and 15.
    """

    def __init__(
        self,
        upsampler: Build = "bilinear",
        *,
        in_features: int,
        guides: Sequence[int],
        scale: int,
        image_features: int | None = None,
        direct: Collection[str] = DIRECT,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        doublings = check_power_of_two("scale", scale)
        self.in_features = check_int("in_features", in_features)
        self.guides = tuple(check_int("guides", channels) for channels in guides)
        if len(self.guides) != doublings:
            fail("guides", f"the channels of {doublings} maps for a scale of {scale}", self.guides)
        name = upsampler if isinstance(upsampler, str) else None
        if name is not None:
            check_choice("upsampler", name, UPSAMPLERS)
        elif not callable(upsampler):
            fail("upsampler", "a name of nn.UPSAMPLERS or a function that builds a module", repr(upsampler))
        self.method = name if name in _RESIZED else None
        self.of_image = name is not None and UPSAMPLERS[name].guide == "image" and image_features is not None
        self.image_features = image_features
        one_step = name is None or name in direct
        # Steps from the coarsest on: how much, and under which of the maps.
        self.plan = () if self.method else ((scale, 0),) if one_step else tuple((2, n) for n in range(doublings)[::-1])
        given = {**_USUAL.get(name or "", {}), **(options or {}).get(name or "", {})}
        self.steps = nnx.List(
            _build(
                upsampler,
                in_features=in_features,
                guide_features=(image_features if self.of_image else None) or self.guides[n],
                scale=factor,
                dtype=dtype,
                options=given,
                rngs=rngs,
            )
            for factor, n in self.plan
        )

    def __call__(self, x: jax.Array, maps: Sequence[jax.Array], image: jax.Array | None = None) -> jax.Array:
        """Enlarge x to the size of maps[0]."""
        check_features("x", x, self.in_features)
        if len(maps) != len(self.guides):
            fail("maps", f"{len(self.guides)} maps, the finest first", f"{len(maps)}")
        for y, channels in zip(maps, self.guides, strict=True):
            check_features("maps", y, channels)
        if self.method is not None:
            return resize(x, size=maps[0].shape[1:3], method=self.method)
        for step, (factor, n) in zip(self.steps, self.plan, strict=True):
            x = _enlarge(step, x, self._guide(maps[n], image), factor)
        return x

    @property
    def guided(self) -> bool:
        """Whether the values of the maps are read, and not only their sizes."""
        return not self.of_image and any(map(_guided, self.steps))

    def _guide(self, y: jax.Array, image: jax.Array | None) -> jax.Array:
        """The map, or the image at its size."""
        if not self.of_image:
            return y
        if image is None:
            fail("image", f"an image of {self.image_features} channels, for which this was built", None)
        check_shape("image", image, (y.shape[0], None, None, self.image_features))
        return resize(image, size=y.shape[1:3], method="area")


def _build(
    upsampler: Build,
    *,
    in_features: int,
    guide_features: int,
    scale: int,
    dtype: Any,
    options: Mapping[str, Any],
    rngs: nnx.Rngs,
) -> nnx.Module:
    if not isinstance(upsampler, str):
        return upsampler(in_features=in_features, guide_features=guide_features, scale=scale, rngs=rngs)
    if upsampler == "deconvolution" and not options:
        return _Deconvolution(in_features, scale=scale, dtype=dtype, rngs=rngs)
    typed = "dtype" in inspect.signature(UPSAMPLERS[upsampler].module.__init__).parameters
    options = {**({"dtype": dtype} if typed else {}), **options}
    channels: dict[str, Any] = dict(in_features=in_features, guide_features=guide_features)
    return make_upsampler(upsampler, **channels, scale=scale, rngs=rngs, **options)


def _enlarge(step: Any, x: jax.Array, guide: jax.Array, factor: int) -> jax.Array:
    """One step to the size of the guide."""
    height, width = guide.shape[1:3]
    margins = [factor * n - m for n, m in zip(x.shape[1:3], (height, width), strict=True)]
    if not all(0 <= margin < factor for margin in margins):
        fail("maps", f"a map that is {factor} times as large as {x.shape[1:3]}, or not quite", f"shape {guide.shape}")
    y: jax.Array = step(x, extend(guide, margins)) if _guided(step) else step(x)
    return y[:, :height, :width]


def fuse_resized(
    layer: ConvNorm, maps: Sequence[jax.Array], size: Sequence[int], methods: Sequence[str] | None = None
) -> jax.Array:
    """A layer of maps that are interpolated to one size and joined.

    Interpolation is bilinear, or by a method for each map. Where a map is not to be made at that size, it meets its
    part of the kernel before.
    """
    output = (size[0], size[1])
    stops = np.cumsum([y.shape[3] for y in maps])[:-1]
    kernels = jnp.split(layer.conv.kernel[...].astype(layer.dtype), stops, axis=2)
    methods = ("bilinear",) * len(maps) if methods is None else methods
    parts: list[jax.Array] = []
    joined: list[tuple[jax.Array, jax.Array]] = []
    for y, kernel, method in zip(maps, kernels, methods, strict=True):
        y = y.astype(layer.dtype)
        if resizes_last(y, kernel, output):
            parts.append(convolve_resized(y, kernel, output, method=method))
        else:
            joined.append((resize(y, size=output, method=method), kernel))
    if joined:
        x = jnp.concatenate([y for y, _ in joined], axis=3)
        parts.append(convolve_resized(x, jnp.concatenate([kernel for _, kernel in joined], axis=2), output))
    return layer.finish(sum(parts[1:], parts[0]))


def extend(x: jax.Array, margins: Sequence[int]) -> jax.Array:
    """Copies of the last rows and columns behind them."""
    for axis, margin in enumerate(margins, start=1):
        if margin:
            last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
            x = jnp.concatenate([x, *[last] * margin], axis=axis)
    return x


def _guided(step: Any) -> bool:
    if isinstance(step, Iterated):
        return _guided(step.steps[0])
    return "guide" in inspect.signature(type(step).__call__).parameters
