"""Depth networks of the subcommand `depth`: recognised from the keys of a checkpoint, run as their codes do on NYU.

Both codes reduce frames of 640 x 480 and cut a margin off. Here a whole photograph is seen at the same scale: its
shorter side in the place of the 480 pixels, and without the cut.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup import ops
from jaxup.cli import methods
from jaxup.files import InputError
from jaxup.matting import MEAN, STD
from jaxup.models.backbones.resnet import DEPTHS
from jaxup.models.monocular_depth import FastDepth, HuDepthNetwork

Tensors = Mapping[str, np.ndarray]
_LINES = 480  # of NYU's frames


def load_network(path: Path) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The name of the network in a file, and what makes depth maps [H, W] in metres of uint8 images [H, W, 3].

    Raises:
        InputError: a file of something else.
        ValueError: a file that cannot be read.
    """
    network: Any = methods.load_network(path, recognise, "FastDepth or of Hu et al.'s network")
    network.eval()
    if not isinstance(network, (FastDepth, HuDepthNetwork)):
        raise InputError(f"{path}: weights of {type(network).__name__}, which is no depth network")
    graph, variables = nnx.split(network)
    before = _fastdepth_input if isinstance(network, FastDepth) else _hu_input

    @jax.jit
    def run(variables: Any, image: jax.Array) -> jax.Array:
        x = image.astype(jnp.float32)[None] / 255
        depth = nnx.merge(graph, variables)(before(x))
        return ops.resize(depth, size=image.shape[:2], method="bilinear")[0, ..., 0]

    return type(network).__name__, lambda image: np.asarray(run(variables, jnp.asarray(image)))


def _scaled(x: jax.Array, lines: int, squeeze: tuple[float, float] = (1, 1)) -> tuple[int, int]:
    """The size with `lines` on the shorter side, less what is squeezed."""
    height, width = x.shape[1:3]
    rows, columns = (n * lines // min(height, width) for n in (height, width))
    return max(1, round(rows * squeeze[0])), max(1, round(columns * squeeze[1]))


def _fastdepth_input(x: jax.Array) -> jax.Array:
    """To 250 lines, of whose middle 228 x 304 pixels the code makes 224 x 224, by the nearest pixels."""
    if min(x.shape[1:3]) > _LINES:
        x = ops.resize(x, size=_scaled(x, _LINES), method="bilinear", antialias=True)
    return ops.resize(x, size=_scaled(x, 250, (224 / 228, 224 / 304)), method="nearest_exact")


def _hu_input(x: jax.Array) -> jax.Array:
    """To 240 lines, less the mean and by the deviation of ImageNet."""
    x = ops.resize(x, size=_scaled(x, 240), method="bilinear", antialias=True)
    return (x - MEAN[None, None, None]) / STD[None, None, None]


def recognise(state: Tensors) -> tuple[str, dict[str, Any]] | None:
    """The official class of these keys, and its config as far as names and shapes of tensors tell; None: another."""
    if "R.conv2.weight" in state and "MFF.conv.weight" in state:
        dense = any("denselayer" in name for name in state)
        encoder = "densenet161" if dense else "resnet50" if "E.conv1.weight" in state else "senet154"
        return "hu.model", {"encoder": encoder}
    small = "mobilenet.0.0.weight" in state or "conv0.0.weight" in state
    config: dict[str, Any] = {} if small else {"layers": _layers(state)}
    name = "fastdepth.MobileNet" if small else "fastdepth.ResNet"
    if "decode_conv6.0.weight" in state:
        return f"{name}Skip{_skip(state, small)}", config
    decoder = _decoder(state)
    return None if decoder is None else (name, config | {"decoder": decoder})


def _layers(state: Tensors) -> int:
    blocks = [len({name.split(".")[1] for name in state if name.startswith(f"layer{i}.")}) for i in range(1, 5)]
    bottleneck = "layer1.0.conv3.weight" in state
    depths = [depth for depth, found in DEPTHS.items() if (list(found[0]), found[1]) == (blocks, bottleneck)]
    return depths[0] if depths else 50


def _skip(state: Tensors, small: bool) -> str:
    """Joined where a stage has more channels than the one before it gives."""
    given, taken = ("decode_conv2.1.0", "decode_conv3.0.0") if small else ("decode_conv1.0", "decode_conv2.0")
    wide = state[f"{taken}.weight"].shape[0 if small else 1] if f"{taken}.weight" in state else 0
    return "Add" if wide == len(state.get(f"{given}.weight", ())) else "Concat"


def _decoder(state: Tensors) -> str | None:
    """Of nearest and bilinear interpolation behind the same convolutions, nearest, which is the paper's."""
    if "decoder.upconv1.1.weight" in state:
        return "upconv"
    if "decoder.upproj1.branch1.0.weight" in state:
        return "upproj"
    for name, last, kind in (("convt1", "convf", "deconv"), ("conv1", "conv6", "nnconv")):
        for inside, suffix in (("0.0", "dw"), ("0", "")):
            kernel = state.get(f"decoder.{name}.{inside}.weight")
            if kernel is not None:
                found = kind if f"decoder.{last}.0.weight" in state else "shuffle"
                return f"{found}{kernel.shape[-1]}{suffix}"
    return None
