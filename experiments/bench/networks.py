"""FDKN and DKN against the same networks in PyTorch, and DKN against the 16 shifted passes that it replaces."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.bench.torch_twin import dkn_twin
from experiments.engine.config import versions
from experiments.engine.costs import seconds
from experiments.engine.report import markdown_table
from jaxup.files import InputError
from jaxup.models import DKN, FDKN
from jaxup.models.dkn import averaged, kernels
from jaxup.models.dkn_streams import NORMALISED, Maps
from jaxup.nn.norms import normalise
from jaxup.ops import resize

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
    *, width: int = 640, height: int = 480, scale: int = 8, repeats: int = 5, only: tuple[str, ...] = ("fdkn", "dkn")
) -> None:
    """Measure FDKN and DKN against the same networks in PyTorch, and DKN against its 16 passes.

    Args:
        width: of the image, in pixels, a multiple of 4 and of the scale.
        height: of the image.
        scale: upsampling factor.
        repeats: timed runs of each function, taken in turns; the fastest counts.
        only: fdkn, dkn, or both.
    """
    if width % scale or height % scale or width % 4 or height % 4 or set(only) - {"fdkn", "dkn"}:
        raise InputError("networks: expected multiples of 4 and of the scale, and fdkn or dkn")
    random = np.random.default_rng(0)
    depth = random.random((1, height // scale, width // scale, 1), np.float32)
    guide = random.random((1, height, width, 3), np.float32)
    print(f"{width} x {height}, {scale}x, float32, evaluation; {versions()}\n", flush=True)
    rows = []
    for name in only:
        rows += {"fdkn": _fdkn, "dkn": _dkn}[name](depth, guide, repeats)
    print(markdown_table(rows, list(rows[0]), digits=3))


def _fdkn(depth: np.ndarray, guide: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    network = FDKN(rngs=nnx.Rngs(0))
    network.eval()
    return _compare(
        "FDKN", _jitted(FDKN.__call__, network, depth, guide), "PyTorch", dkn_twin(network, depth, guide), repeats
    )


def _dkn(depth: np.ndarray, guide: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    network = DKN(rngs=nnx.Rngs(0))
    network.eval()
    ours, literal = (_jitted(run, network, depth, guide) for run in (DKN.__call__, literal_dkn))
    twin = dkn_twin(network, depth, guide)
    return [
        *_compare("DKN", ours, "PyTorch, dilated", twin, repeats),
        *_compare("DKN", ours, "16 passes", literal, repeats),
    ]


def _jitted(run: Callable[..., jax.Array], network: nnx.Module, *inputs: np.ndarray) -> Callable[[], np.ndarray]:
    graph, state = nnx.split(network)
    compiled = jax.jit(lambda state, *xs: run(nnx.merge(graph, state), *xs))
    arrays = [jnp.asarray(x) for x in inputs]
    return lambda: np.asarray(compiled(state, *arrays))


def _compare(
    name: str, ours: Callable[[], np.ndarray], other: str, theirs: Callable[[], np.ndarray], repeats: int
) -> list[dict[str, Any]]:
    """Fastest of several runs in turns, after one each whose results must agree."""
    error = float(np.abs(ours() - theirs()).max())
    if error > 1e-3:
        raise RuntimeError(f"{name} and {other} differ by {error}")
    times = [[seconds(run) for run in (ours, theirs)] for _ in range(repeats)]
    ours_ms, theirs_ms = (1000 * min(column) for column in zip(*times, strict=True))
    return [{"network": name, "ms": ours_ms, "against": other, "its ms": theirs_ms, "faster": theirs_ms / ours_ms}]
