"""Networks against PyTorch, DKN also against the 16 shifted passes; training by attention and deconvolution."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.bench import measuring
from experiments.bench.torch_dense import dense_twin
from experiments.bench.torch_twin import dkn_twin
from experiments.engine.report import markdown_table
from experiments.super_resolution.networks import NetworkConfig
from jaxup.files import InputError
from jaxup.models import DKN, FDKN
from jaxup.models.dkn import averaged, kernels
from jaxup.models.dkn_streams import NORMALISED, Maps
from jaxup.models.matting import A2UMatting, MattingNetwork
from jaxup.models.monocular_depth import FastDepth, HuDepthNetwork
from jaxup.models.segmentation import SegFormer, SemanticFPN, UperNet
from jaxup.nn.norms import normalise
from jaxup.ops import resize

UPSAMPLERS: dict[str, type[FDKN | DKN]] = {"fdkn": FDKN, "dkn": DKN}
# Those that map an image to a map, and the side and channels of their images.
DENSE: dict[str, tuple[str, Callable[..., Any], int, int]] = {
    "semantic-fpn": ("Semantic FPN, ResNet-50", partial(SemanticFPN, 150), 512, 3),
    "upernet": ("UPerNet, ResNet-50", partial(UperNet, 150), 256, 3),
    "segformer": ("SegFormer, MiT-B1", partial(SegFormer, 150, backbone="mit_b1"), 512, 3),
    "matting": ("matting, MobileNetV2, max unpooling (B11)", MattingNetwork, 320, 4),
    "indexnet": (
        "matting, MobileNetV2, M2O index networks",
        partial(MattingNetwork, upsampler="m2o", nonlinear=True, context=True),
        320,
        4,
    ),
    "a2u": ("A2U matting", A2UMatting, 320, 4),
    "fastdepth": ("FastDepth", FastDepth, 224, 3),
    "hu": ("Hu et al., ResNet-50", HuDepthNetwork, 256, 3),
}
NETWORKS, PASSES = (*UPSAMPLERS, *DENSE, "super-resolution"), ("forward", "gradients")

# By how much of the largest entry results may differ, and how many entries may by more: where a derivative jumps. Many
# do in deep networks: a millionth of the image moves the gradient by 5e-3 of its norm, and PyTorch's is 1e-2 from ours.
_AGREES, _KINKS, _JUMPS = 1e-3, 1e-3, 3e-2
_STRIDES = (1, 2, 1, 2, 1, 1, 1)
_SEEN = 51  # pixels that a pass sees in each direction, of which it reads the first 50


def literal_dkn(network: Any, x: jax.Array, guide: jax.Array) -> jax.Array:
    """The paper's evaluation: the strided streams run for 16 shifts of the images, and their outputs interleaved."""
    target = resize(x, size=guide.shape[1:3], method="bicubic")
    streams = (network.depth_stream, target), (network.guide_stream, guide)
    height, width = guide.shape[1:3]

    def one_pass(row: int, column: int) -> Maps:
        maps = []
        for stream, image in streams:
            pad = [(25 - shift, _SEEN - 29 + shift) for shift in (row, column)]
            maps.append(_strided(stream, jnp.pad(image, ((0, 0), *pad, (0, 0)))))
        return kernels(maps, network)

    rows = [[one_pass(row, column) for column in range(4)] for row in range(4)]

    def interleaved(index: int) -> jax.Array:
        parts = jnp.stack([jnp.stack([jnp.asarray(p[index]) for p in row], axis=3) for row in rows], axis=2)
        return parts.reshape(parts.shape[0], height, width, parts.shape[-1])

    return averaged(target, interleaved(0), interleaved(1), network)


def _strided(stream: Any, x: jax.Array) -> Maps:
    """A stream as Table 1 has it, without dilation."""
    for index, (conv, stride) in enumerate(zip(stream.convs, _STRIDES, strict=True)):
        x = _convolve(conv, x, stride)
        if index in NORMALISED:
            x = normalise(stream.norms[NORMALISED.index(index)], x, x.dtype)
        x = nnx.relu(x)
    return _convolve(stream.weight_head, x, 1), _convolve(stream.offset_head, x, 1)


def _convolve(conv: Any, x: jax.Array, stride: int) -> jax.Array:
    kernel, dimensions = conv.kernel[...], ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=dimensions)
    return y + conv.bias[...][None, None, None]


def networks(
    *,
    width: int = 640,
    height: int = 480,
    scale: int = 8,
    side: int = 0,
    repeats: int = 5,
    only: tuple[str, ...] = NETWORKS,
    passes: tuple[str, ...] = PASSES,
    cores: int = 0,
) -> None:
    """Measure networks against PyTorch, DKN also against its 16 passes; training with attention against deconvolution.

    Of networks in evaluation mode, forward, and gradients of inputs and parameters; and of a step of the
    super-resolution network: 2x, 64 features, 10 patches of 24 x 24, K = 3 and 5. CPU seconds of all threads; medians.
    "faster" is the ratio of these, "elapsed" that of the time that passed.

    Args:
        width: of the image of FDKN and DKN, in pixels, a multiple of 4 and of the scale.
        height: of the image.
        scale: upsampling factor.
        side: of the images of the networks of dense prediction, a multiple of 32; 0 is what the table says.
        repeats: timed runs of each function, taken in turns.
        only: fdkn, dkn, semantic-fpn, upernet, segformer, matting, indexnet, a2u, fastdepth, hu, super-resolution.
        passes: forward, gradients.
        cores: on which this process and its threads run, where the system can say so; 0: as it is.
    """
    if width % scale or height % scale or width % 4 or height % 4 or set(only) - set(NETWORKS):
        raise InputError(f"networks: expected multiples of 4 and of the scale, and some of {', '.join(NETWORKS)}")
    if side % 32 or side < 0:
        raise InputError(f"side: expected 0, or a multiple of 32, got {side}")
    if set(passes) - set(PASSES):
        raise InputError(f"passes: expected some of {', '.join(PASSES)}, got {', '.join(passes)}")
    if repeats < 1:
        raise InputError(f"repeats: expected a number above 0, got {repeats}")
    if cores:
        measuring.run_on(cores)
    random = np.random.default_rng(0)
    depth = random.random((1, height // scale, width // scale, 1), np.float32)
    guide = random.random((1, height, width, 3), np.float32)
    print(f"{width} x {height}, {scale}x, float32; {measuring.circumstances()}\n", flush=True)
    rows: list[dict[str, Any]] = []

    def add(more: list[dict[str, Any]]) -> None:
        rows.extend(more)
        for row in more:
            measuring.tell(row)

    for name in only:
        if name == "super-resolution":
            add([_training(size, repeats) for size in (3, 5)])
            continue
        for which in passes:
            how: Any = dict(gradients=which == "gradients", repeats=repeats)
            add(_upsampling(name, depth, guide, **how) if name in UPSAMPLERS else [_dense(name, side, **how)])
    print("\n" + markdown_table(rows, list(rows[0]), digits=3))


def _upsampling(
    name: str, depth: np.ndarray, guide: np.ndarray, *, gradients: bool, repeats: int
) -> list[dict[str, Any]]:
    network: Any = UPSAMPLERS[name](rngs=nnx.Rngs(0))
    network.eval()
    about = f"{name.upper()}, {'gradients' if gradients else 'forward'}"
    ours = _jitted(_guided, network, (guide, depth), gradients)
    twin = dkn_twin(network, depth, guide, gradients=gradients)
    rows = [_compare(about, ours, "PyTorch, dilated" if name == "dkn" else "PyTorch", twin, repeats)]
    if name == "dkn" and not gradients:
        literal = _jitted(lambda network, guide, depth: literal_dkn(network, depth, guide), network, (guide, depth))
        rows.append(_compare(about, ours, "16 passes", literal, repeats))
    return rows


def _guided(network: Any, guide: jax.Array, depth: jax.Array) -> jax.Array:
    upsampled: jax.Array = network(depth, guide)
    return upsampled


def _dense(name: str, side: int, *, gradients: bool, repeats: int) -> dict[str, Any]:
    title, build, usual, channels = DENSE[name]
    network = build(rngs=nnx.Rngs(0))
    network.eval()
    side = side or usual
    image = np.random.default_rng(0).random((1, side, side, channels), np.float32)
    about = f"{title}, {side} x {side}, {'gradients' if gradients else 'forward'}"
    ours = _jitted(type(network).__call__, network, (image,), gradients)
    return _compare(about, ours, "PyTorch", dense_twin(network, image, gradients=gradients), repeats)


def _jitted(
    run: Callable[..., jax.Array], network: nnx.Module, inputs: tuple[np.ndarray, ...], gradients: bool = False
) -> Callable[[], np.ndarray]:
    """What the network makes of its inputs, or the gradient for the first beside those for others and parameters."""
    graph, *states = nnx.split(network, nnx.Param, ...)
    params, rest = states

    def forward(params: nnx.State, *inputs: jax.Array) -> jax.Array:
        return run(nnx.merge(graph, params, rest, copy=True), *inputs)

    def pulled(*inputs: Any) -> Any:
        out, back = jax.vjp(forward, *inputs)
        return back(jnp.ones_like(out))

    compiled = jax.jit(pulled if gradients else forward)
    held = params, *map(jnp.asarray, inputs)

    def once() -> np.ndarray:
        out = jax.block_until_ready(compiled(*held))
        return np.asarray(out[1] if gradients else out)

    return once


def _training(kernel_size: int, repeats: int) -> dict[str, Any]:
    """A step with Adam."""
    random = np.random.default_rng(0)
    low, high = (jnp.asarray(random.random((10, n, n, 1), np.float32)) for n in (24, 48))

    def step_of(upsampler: str) -> Callable[[], Any]:
        config = NetworkConfig(upsampler=upsampler, scale=2, features=64, kernel_size=kernel_size)
        graph, *states = nnx.split(config.build(0), nnx.Param, ...)
        params, rest = states
        optimizer = optax.adam(1e-4)

        def loss(params: Any) -> jax.Array:
            return jnp.mean(jnp.abs(nnx.merge(graph, params, rest, copy=True)(low) - high))

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, state: Any) -> tuple[Any, Any]:
            with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
                updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        held = [(params, optimizer.init(params))]

        def once() -> None:
            held[0] = jax.block_until_ready(step(*held[0]))

        return once

    steps = [step_of(upsampler) for upsampler in ("attention", "deconvolution")]
    return _timed(f"a training step, attention, K {kernel_size}", "deconvolution", steps, repeats)


def _compare(
    name: str, ours: Callable[[], np.ndarray], other: str, theirs: Callable[[], np.ndarray], repeats: int
) -> dict[str, Any]:
    """Runs in turns, after one each whose results must agree."""
    mine, its = ours(), theirs()
    differ = np.abs(mine - its) > _AGREES * max(1.0, float(np.abs(its).max()))
    if np.mean(differ) > _KINKS and not np.linalg.norm(mine - its) < _JUMPS * np.linalg.norm(its):
        raise RuntimeError(f"{name} and {other} differ in {differ.sum()} of {differ.size} entries")
    return _timed(name, other, [ours, theirs], repeats)


def _timed(name: str, other: str, runs: list[Callable[[], Any]], repeats: int) -> dict[str, Any]:
    ours, its = measuring.in_turns(runs, repeats)
    row = {"network": name, "ms": 1000 * float(np.median(ours.taken)), "spread": measuring.spread(ours.taken)}
    row |= {"against": other, "its ms": 1000 * float(np.median(its.taken)), "its spread": measuring.spread(its.taken)}
    return row | dict(zip(("faster", "elapsed"), measuring.faster(ours, its), strict=True))
