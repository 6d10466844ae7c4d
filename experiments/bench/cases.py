"""The operators at named sizes of the real world: inputs, their form in PyTorch, and what they must compute."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup import nn, ops

_ALIGNMENT = 64  # bytes


class Shape(NamedTuple):
    """Low-resolution rows and columns, the scale, and channels."""

    rows: int
    columns: int
    scale: int
    channels: int

    def low(self, channels: int) -> tuple[int, int, int, int]:
        """The shape of one map on the low-resolution grid."""
        return 1, self.rows, self.columns, channels

    def high(self, channels: int) -> tuple[int, int, int, int]:
        """The shape of one map on the high-resolution grid."""
        return 1, self.scale * self.rows, self.scale * self.columns, channels

    @property
    def pixels(self) -> int:
        """Of the high-resolution grid."""
        return self.rows * self.columns * self.scale**2


SHAPES: Mapping[str, Shape] = {
    "fpn": Shape(64, 64, 2, 256),
    "head": Shape(128, 128, 4, 256),
    "matting": Shape(512, 512, 2, 32),
    "vit": Shape(28, 28, 16, 384),
    "depth": Shape(60, 80, 8, 1),
    "4k": Shape(270, 480, 8, 64),
    "tiny": Shape(6, 5, 2, 4),
}
"""A level of a feature pyramid, a segmentation head, a matting decoder, features of a vision transformer, a depth map
of 640 x 480 and features under a 4K image; and one for tests."""


class Job(NamedTuple):
    """One operator at one shape: `run(*images, *others, **options)`, and the same by `form` of `torch_forms`."""

    run: Callable[..., jax.Array]
    form: str
    images: tuple[np.ndarray, ...]  # NHWC, NCHW in PyTorch, of the type that is measured
    options: Mapping[str, Any]
    multiply_adds: float
    others: tuple[Any, ...] = ()  # float32, as they are in both


def _random(*shape: int, seed: int = 0, factor: float = 1.0) -> np.ndarray:
    x = _aligned(shape)
    np.random.default_rng(seed).standard_normal(out=x, dtype=np.float32)
    x *= np.float32(factor)
    return x


def _colours(*shape: int) -> np.ndarray:
    x = _aligned(shape)
    np.random.default_rng(0).random(out=x, dtype=np.float32)
    return x


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """As XLA wants arrays, which it then need not copy: large ones are to be in memory once."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    found: np.ndarray = memory[start : start + size].view(np.float32).reshape(shape)
    return found


def _softmax(x: np.ndarray) -> np.ndarray:
    """In the place of x."""
    x -= x.max(-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(-1, keepdims=True)
    return x


def _reassemble(s: Shape) -> Job:
    images = _random(*s.low(s.channels)), _softmax(_random(*s.high(25)))
    options = dict(scale=s.scale, kernel_size=5)
    return Job(ops.reassemble, "reassemble", images, options, 25 * s.pixels * s.channels)


def _attention(s: Shape) -> Job:
    window, depth = 2 * s.scale + 1, s.channels + s.channels % 2
    images = _random(*s.high(depth), factor=0.1), _random(*s.low(depth)), _random(*s.low(s.channels))
    positions = tuple(_random(window, depth // 2, seed=seed) for seed in (1, 2))
    seen = window**2 / s.scale**2  # cells on average

    def run(query: Any, key: Any, value: Any, px: Any, py: Any, **options: Any) -> jax.Array:
        return ops.attention_upsample(query, key, value, positions=(px, py), **options)

    work = s.pixels * seen * (depth + s.channels) + s.pixels * window * depth
    return Job(run, "attention_upsample", images, dict(scale=s.scale, kernel_size=window), work, positions)


def _similarity(s: Shape) -> Job:
    depth = min(32, s.channels)
    images = _random(*s.high(depth), factor=0.1), _random(*s.low(depth)), _random(*s.low(s.channels))
    work = 25 * s.pixels * (depth + s.channels)
    options = dict(scale=s.scale, kernel_size=5)
    return Job(ops.similarity_upsample, "similarity_upsample", images, options, work)


def _fine(s: Shape) -> Job:
    images = _random(*s.low(s.channels)), _softmax(_random(*s.high(9)))
    options = dict(scale=s.scale, kernel_size=3)
    return Job(ops.fine_neighbour_attention, "fine_neighbour_attention", images, options, 9 * s.pixels * s.channels)


def _sample(s: Shape) -> Job:
    groups, large = math.gcd(4, s.channels), s.high(1)[1:3]
    at = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / s.scale - 0.5 for n in large), indexing="ij"), -1)
    points = np.float32(at[None, :, :, None] + 0.3 * _random(1, *large, groups, 2))
    work = 4 * s.pixels * s.channels
    return Job(ops.sample, "sample", (_random(*s.low(s.channels)),), dict(padding="border"), work, (points,))


def _resize(method: str, taps: int, s: Shape) -> Job:
    options = dict(size=s.high(1)[1:3], method=method)
    return Job(ops.resize, "resize", (_random(*s.low(s.channels)),), options, taps * s.pixels * s.channels)


def _area(s: Shape) -> Job:
    options = dict(size=(s.rows, s.columns), method="area")
    return Job(ops.resize, "resize", (_random(*s.high(s.channels)),), options, s.pixels * s.channels)


def _pixel_shuffle(s: Shape) -> Job:
    images = (_random(*s.low(s.channels * s.scale**2)),)
    return Job(ops.pixel_shuffle, "pixel_shuffle", images, dict(scale=s.scale), 0)


def _indexed_upsample(s: Shape) -> Job:
    images = _random(*s.low(s.channels)), _random(*s.high(s.channels))
    return Job(ops.indexed_upsample, "indexed_upsample", images, dict(scale=s.scale), s.pixels * s.channels)


def _indexed_pool(s: Shape) -> Job:
    images = _random(*s.high(s.channels)), _random(*s.high(s.channels))
    return Job(ops.indexed_pool, "indexed_pool", images, dict(scale=s.scale), s.pixels * s.channels)


def _joint_bilateral(s: Shape) -> Job:
    images = _random(*s.low(s.channels)), _colours(*s.high(3))
    options = dict(scale=s.scale, radius=1, sigma_spatial=0.7, sigma_range=0.1)
    return Job(
        ops.joint_bilateral_upsample, "joint_bilateral_upsample", images, options, 9 * s.pixels * (s.channels + 3)
    )


def _guided_filter(s: Shape) -> Job:
    images = _random(*s.high(s.channels)), _colours(*s.high(3))
    work = s.pixels * (2 * s.scale + 1) * 2 * (13 + 8 * s.channels)  # separable means of 21 + 8 C maps, about
    return Job(ops.guided_filter, "guided_filter", images, dict(radius=s.scale, eps=1e-2), work)


def _box(s: Shape) -> Job:
    images = (_random(*s.high(s.channels)),)
    return Job(ops.box_filter, "box_filter", images, dict(radius=8), 34 * s.pixels * s.channels)


def _gaussian(s: Shape) -> Job:
    images = (_random(*s.high(s.channels)),)
    return Job(ops.gaussian_filter, "gaussian_filter", images, dict(sigma=1.5, radius=6), 26 * s.pixels * s.channels)


def _bilateral(s: Shape) -> Job:
    images = (_random(*s.high(s.channels)),)
    options = dict(radius=2, sigma_spatial=1.5, sigma_range=1.0)
    return Job(ops.bilateral_filter, "bilateral_filter", images, options, 50 * s.pixels * s.channels)


def _module(make: Callable[..., nnx.Module], form: str, images: tuple[np.ndarray, ...], scale: int, work: float) -> Job:
    """A module that computes in the type of its images, with parameters in float32."""

    def build(dtype: Any) -> nnx.Module:
        module = make(dtype=dtype, rngs=nnx.Rngs(0))
        module.eval()
        return module

    _, *states = nnx.split(build(jnp.float32), nnx.Param, ...)
    params, rest = states

    def run(*arrays: Any, scale: int) -> jax.Array:
        graph = nnx.graphdef(nnx.eval_shape(partial(build, arrays[0].dtype)))
        merged: Any = nnx.merge(graph, nnx.State(arrays[-1]), rest, copy=True)
        out: jax.Array = merged(*arrays[:-1])
        return getattr(out, "decoder", out)

    return Job(run, form, images, dict(scale=scale), work, (nnx.to_pure_dict(params),))


def _deconvolution(s: Shape) -> Job:
    size = 2 * s.scale + 1 if s.scale > 2 else 5
    make = partial(nn.Deconvolution, s.channels, s.channels, scale=s.scale, kernel_size=size)
    work = size**2 * s.rows * s.columns * s.channels**2
    return _module(make, "deconvolution", (_random(*s.low(s.channels)),), s.scale, work)


def _fade(s: Shape) -> Job:
    make = partial(nn.FADE, s.channels, s.channels, scale=s.scale)
    both = 1 + 1 / s.scale**2
    work = s.pixels * (64 * s.channels * both + 9 * 64 * 25 * both + 25 * s.channels)
    return _module(make, "fade", (_random(*s.low(s.channels)), _random(*s.high(s.channels))), s.scale, work)


def _index_network(s: Shape) -> Job:
    make = partial(nn.IndexNetwork, s.channels, family="m2o", expansion=1, scale=s.scale)
    work = s.pixels * (4 * s.scale**2 + 1) * s.channels**2
    return _module(make, "index_network", (_random(*s.high(s.channels)),), s.scale, work)


OPERATORS: Mapping[str, Callable[[Shape], Job]] = {
    "nearest": lambda s: _resize("nearest", 0, s),
    "bilinear": lambda s: _resize("bilinear", 4, s),
    "bicubic": lambda s: _resize("bicubic", 8, s),
    "area": _area,
    "pixel_shuffle": _pixel_shuffle,
    "deconvolution": _deconvolution,
    "reassemble": _reassemble,
    "attention": _attention,
    "similarity": _similarity,
    "fine_neighbours": _fine,
    "sample": _sample,
    "fade": _fade,
    "index_network": _index_network,
    "indexed_pool": _indexed_pool,
    "indexed_upsample": _indexed_upsample,
    "joint_bilateral": _joint_bilateral,
    "guided_filter": _guided_filter,
    "bilateral_filter": _bilateral,
    "box_filter": _box,
    "gaussian_filter": _gaussian,
}
"""CARAFE and A2U are reassembly, SAPA is similarity, ReSFU fine neighbours, DySample sampling, beside their layers."""


def moved(job: Job, dtype: Any, gradients: bool) -> int:
    """Bytes that have to be read and written: inputs and output; with gradients also theirs."""
    size = jnp.dtype(dtype).itemsize
    inputs = sum(x.size for x in job.images) * size + sum(x.nbytes for x in jax.tree.leaves(job.others))
    structs = [jax.ShapeDtypeStruct(x.shape, dtype) for x in job.images]
    output = math.prod(jax.eval_shape(lambda *a: job.run(*a, **job.options), *structs, *job.others).shape) * size
    return 2 * inputs + output if gradients else inputs + output
