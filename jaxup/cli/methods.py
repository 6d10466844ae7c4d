"""Methods by name, on normalised depth: classical ones with their constants, and networks with weights from a file.

Each is called as `method(target, guide)`: low-resolution depth [B, h, w, 1] in 0 .. 1 and RGB guide [B, s*h, s*w, 3] in
0 .. 1 to depth [B, s*h, s*w, 1]. The few constants of the filters were chosen for the lowest RMSE at 8x on the
generated training scenes of the experiments, and are the same for all images and scales; FGI and FBS run with the
defaults of `jaxup.solvers`, which were also tried on pairs of Middlebury.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup import interop, ops, solvers
from jaxup.files import InputError
from jaxup.interop.modules import is_module_file
from jaxup.models import DJF, DKN, FDKN, AttentionJointNetwork
from jaxup.models.joint import DJF_CROP

Run = Callable[[jax.Array, jax.Array], jax.Array]

_CUBIC = 3  # low-resolution pixels that a bicubic enlargement reaches to, rounded up


class Method(NamedTuple):
    """How to upsample, and how many low-resolution pixels it reaches to at a scale; None: all of them."""

    run: Run
    margin: Callable[[int], int] | None


def bicubic(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Cubic convolution with a = -0.5; the guide gives the size only."""
    return ops.resize(target, size=guide.shape[1:3], method="bicubic", cubic_coefficient=-0.5)


def guided_filter(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Guided filter of the bicubic enlargement, with the factor as radius."""
    return ops.guided_filter(bicubic(target, guide), guide, radius=_scale(target, guide), eps=1e-5)


def joint_bilateral(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Joint bilateral upsampling over 3 x 3 low-resolution pixels."""
    scale = _scale(target, guide)
    return ops.joint_bilateral_upsample(target, guide, scale=scale, radius=1, sigma_spatial=0.7, sigma_range=0.1)


def guided_interpolation(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Fast guided global interpolation."""
    return solvers.guided_interpolation(target, guide, scale=_scale(target, guide))


def bilateral_solver(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Fast bilateral solver."""
    return solvers.bilateral_solver_upsample(target, guide, scale=_scale(target, guide))


CLASSICAL: dict[str, Method] = {
    "bicubic": Method(bicubic, lambda scale: _CUBIC),
    "guided-filter": Method(guided_filter, lambda scale: _CUBIC + 2),
    "jbu": Method(joint_bilateral, lambda scale: 2),
    "fgi": Method(guided_interpolation, None),
    "fbs": Method(bilateral_solver, None),
}
LEARNED = {"attention": AttentionJointNetwork, "djf": DJF, "djfr": DJF, "dkn": DKN, "fdkn": FDKN}


def make_method(name: str, weights: Path | None) -> Method:
    """A method, compiled; the networks read their weights from a file of `interop.save_module` or an official one.

    Raises:
        InputError: weights missing, unwanted, or of another model.
        ValueError: a file that cannot be read.
    """
    if name in CLASSICAL:
        if weights is not None:
            raise InputError(f"{weights}: {name} takes no weights")
        return CLASSICAL[name]._replace(run=jax.jit(CLASSICAL[name].run))
    if weights is None:
        raise InputError(f"{name} needs --weights FILE")
    if is_module_file(weights):
        network = interop.load_module(weights)
        run = _call
    else:
        network, run = _official(name, weights)
    found, residual = type(network).__name__, getattr(network, "residual", None)
    if not isinstance(network, LEARNED[name]) or (name in ("djf", "djfr") and residual != (name == "djfr")):
        found += " with residual" if isinstance(network, DJF) and residual else ""
        raise InputError(f"{weights}: weights of {found}, not of {name}")
    network.eval()
    graph, state = nnx.split(network)
    compiled = jax.jit(lambda state, target, guide: run(nnx.merge(graph, state), target, guide))
    return Method(lambda target, guide: compiled(state, target, guide), partial(_margin, network))


def _scale(target: jax.Array, guide: jax.Array) -> int:
    return guide.shape[1] // target.shape[1]


def _margin(network: nnx.Module, scale: int) -> int:
    """What a network's layers, windows and enlargement reach to, rounded up."""
    match network:
        case AttentionJointNetwork():
            # 9x9 and 5x5 at both ends; each doubling has half the reach of the one before
            return 6 + len(network.mixing_cnn) + network.kernel_size // 2 + 2 + -(-12 // scale)
        case DKN():
            return -(-(25 + network.window_size // 2 + 1) // scale) + _CUBIC
        case FDKN():
            return -(-(4 * (6 + 1) + network.window_size // 2 + 1) // scale) + _CUBIC
        case _:
            return -(-2 * DJF_CROP // scale) + _CUBIC + 1


def _call(network: nnx.Module, target: jax.Array, guide: jax.Array) -> jax.Array:
    return network(target, guide)


def _official(name: str, path: Path) -> tuple[nnx.Module, Callable[..., jax.Array]]:
    """The network of an official file, whose options are read off its arrays, and how it was used there."""
    if name == "attention":
        raise InputError(f"{path}: expected a file of jaxup.interop.save_module, there are no official weights")
    if name in ("djf", "djfr"):
        state = interop.load_matconvnet(path)
        config: dict[str, Any] = {"widths": [len(state.get(f"layer{i}_biases", ())) for i in (1, 3, 5, 6, 8, 10)]}
        return _convert(name, path, state, config), _call_cropped
    state = interop.load_checkpoint(path)
    samples = len(state.get("DepthKernel.conv_weight.bias", ())) // (1 if name == "dkn" else 16)
    config = {"kernel_size": round(samples**0.5) or 3, "filter_size": 15, "residual": True}
    return _convert(name, path, state, config), _call_enlarged


def _convert(name: str, path: Path, state: dict[str, np.ndarray], config: dict[str, Any]) -> nnx.Module:
    try:
        return interop.from_torch(name.upper(), state, config)
    except ValueError as error:
        first, *rest = str(error).splitlines()[1:] or [str(error)]
        more = f", and {len(rest)} more differences" if rest else ""
        raise InputError(f"{path}: not the weights of {name}: {first.strip()}{more}") from error


def _call_enlarged(network: nnx.Module, target: jax.Array, guide: jax.Array) -> jax.Array:
    """Official DKN and FDKN were trained on depth enlarged with a = -0.5, where the modules themselves take -0.75."""
    return _call(network, bicubic(target, guide), guide)


def _call_cropped(network: nnx.Module, target: jax.Array, guide: jax.Array) -> jax.Array:
    """Official DJF: with the border that it takes away, and its displacement.

    It was trained on the last pixel of each s x s block, enlarged as if it were the block's centre, and learned to move
    the depth back by (s - 1) / 2. Depth that lies at the centres is displaced here, so that this brings it back.
    """
    scale = _scale(target, guide)
    border = -(-DJF_CROP // scale) + 2
    target, guide = (
        jnp.pad(x, ((0, 0), (n, n), (n, n), (0, 0)), mode="edge")
        for x, n in ((target, border), (guide, border * scale))
    )
    shift = jnp.full(2, (1 - scale) / 2, jnp.float32)
    enlarged = jax.image.scale_and_translate(
        target, (*guide.shape[:3], 1), (1, 2), jnp.full(2, scale, jnp.float32), shift, "cubic", antialias=False
    )
    out = _call(network, enlarged, guide)
    inner = border * scale - DJF_CROP
    return out[:, inner:-inner, inner:-inner]
