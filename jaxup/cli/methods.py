"""Methods by name, on normalised depth: classical ones with their constants, and networks with weights from a file.

Each is called as `method(target, guide)`: low-resolution depth [B, h, w, 1] in 0 .. 1 and RGB guide [B, H, W, 3] in
0 .. 1 to depth [B, H, W, 1]. The sizes may have any ratio for the classical ones, and a whole one for networks. The few
constants of the filters were chosen for the lowest RMSE at 8x on the generated training scenes of the experiments, and
are the same for all images and scales; the solvers run with the defaults of `jaxup.solvers`, which were also tried on
pairs of Middlebury.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx

from jaxup import interop, ops, solvers
from jaxup.files import InputError
from jaxup.interop.modules import is_module_file
from jaxup.models import DJF, DKN, DMSG, FDKN, AttentionJointNetwork

T = TypeVar("T")
Run = Callable[[jax.Array, jax.Array], jax.Array]

_CUBIC = 3  # low-resolution pixels that a bicubic enlargement reaches to, rounded up


class Method(NamedTuple):
    """How to upsample, and how many low-resolution pixels it reaches to at a scale; None: all of them.

    A solver's `run` also takes `confidence` [B, h, w, 1], zero in pixels without depth, which others need filled;
    `show` for its steps; and `warn` for a line if it did not converge.
    """

    run: Callable[..., jax.Array]
    margin: Callable[[float], int] | None
    solver: bool = False


def bicubic(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Cubic convolution with a = -0.5; the guide gives the size only."""
    return ops.resize(target, size=guide.shape[1:3], method="bicubic", cubic_coefficient=-0.5)


def guided_filter(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Guided filter of the bicubic enlargement, with the factor as radius."""
    rows, columns = (_radius(high / low) for low, high in zip(target.shape[1:3], guide.shape[1:3], strict=True))
    return ops.guided_filter(bicubic(target, guide), guide, radius=(rows, columns), eps=1e-5)


def _radius(scale: float) -> int:
    return int(scale + 0.5)


def joint_bilateral(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Joint bilateral upsampling over 3 x 3 low-resolution pixels."""
    return ops.joint_bilateral_upsample(target, guide, radius=1, sigma_spatial=0.7, sigma_range=0.1)


def guided_interpolation(
    target: jax.Array, guide: jax.Array, *, confidence: jax.Array | None = None, show: Any = None, warn: Any = None
) -> jax.Array:
    """Fast guided global interpolation, which ends after a fixed number of steps."""
    return solvers.guided_interpolation(target, guide, confidence=confidence)


def bilateral_solver(
    target: jax.Array, guide: jax.Array, *, confidence: jax.Array | None = None, show: Any = None, warn: Any = None
) -> jax.Array:
    """Fast bilateral solver."""
    return solvers.bilateral_solver_upsample(target, guide, confidence=confidence)


def _iterated(name: str, upsample: Callable[..., Any]) -> Callable[..., jax.Array]:
    """A solver of `jaxup.solvers` that reports how it ended."""
    finish: Callable[[], None] = jax.effects_barrier  # after it, `show` is no longer called

    def run(
        target: jax.Array, guide: jax.Array, *, confidence: jax.Array | None = None, show: Any = None, warn: Any = None
    ) -> jax.Array:
        depth, report = upsample(target, guide, confidence=confidence, progress=show, report=True)
        finish()
        if warn is not None and not report.converged.all():
            steps, residual = int(report.steps.max()), float(report.residual.max())
            warn(f"{name}: not converged after {steps} steps, at a residual of {residual:.1e}")
        solved: jax.Array = depth
        return solved

    return run


mrf, tgv = _iterated("mrf", solvers.mrf_upsample), _iterated("tgv", solvers.tgv_upsample)
sdf, park = _iterated("sdf", solvers.sdf_upsample), _iterated("park", solvers.park_upsample)


def fitted(target: jax.Array, guide: jax.Array) -> jax.Array:
    """Bilateral filter whose cells are fitted to the image."""
    return solvers.upsample_anything(target, guide)


CLASSICAL: dict[str, Method] = {
    "bicubic": Method(bicubic, lambda scale: _CUBIC),
    "guided-filter": Method(guided_filter, lambda scale: _CUBIC + math.ceil(2 * _radius(scale) / scale)),
    "jbu": Method(joint_bilateral, lambda scale: 2),
    "fitted": Method(fitted, None),
    "fgi": Method(guided_interpolation, None, solver=True),
    "fbs": Method(bilateral_solver, None, solver=True),
    "mrf": Method(mrf, None, solver=True),
    "tgv": Method(tgv, None, solver=True),
    "sdf": Method(sdf, None, solver=True),
    "park": Method(park, None, solver=True),
}
LEARNED = {"attention": AttentionJointNetwork, "djf": DJF, "djfr": DJF, "dkn": DKN, "dmsg": DMSG, "fdkn": FDKN}
_DOUBLING = ("attention", "dmsg")
_DMSG_LEVELS = 4  # at most, of the published models


def check_scale(name: str, scale: tuple[float, float]) -> None:
    """Refuse a ratio of sizes (vertical, horizontal) that a network was not made for.

    Raises:
        InputError: a ratio that is no integer, or not the same on both axes, or for "attention" and "dmsg" no power of
            two.
    """
    factor = int(scale[0])
    power_of_two = factor > 1 and factor & (factor - 1) == 0
    if name in CLASSICAL or (scale == (factor, factor) and (power_of_two or name not in _DOUBLING)):
        return
    wanted = "2, 4, 8, ..." if name in _DOUBLING else "a whole number"
    others = ", ".join(CLASSICAL)
    raise InputError(f"{name}: expected a scale of {wanted}, the sizes make it {ratio(scale)}; {others} take any")


def check_solver(name: str, options: Mapping[str, bool]) -> None:
    """Refuse options that only solvers have.

    Raises:
        InputError: one that is given for another method.
    """
    for option, given in options.items():
        if given and not (name in CLASSICAL and CLASSICAL[name].solver):
            others = ", ".join(other for other, method in CLASSICAL.items() if method.solver)
            raise InputError(f"{option}: {name} has no use for it, only {others} have")


def ratio(scale: tuple[float, float]) -> str:
    """How a ratio of sizes is written: one number, or width x height."""
    return " x ".join(f"{number:g}" for number in dict.fromkeys(scale[::-1]))


def make_method(name: str, weights: Path | None) -> Method:
    """A method, compiled; the networks read their weights from a file of `interop.save_module` or an official one.

    Raises:
        InputError: weights missing, unwanted, or of another model.
        ValueError: a file that cannot be read.
    """
    if name in CLASSICAL:
        if weights is not None:
            raise InputError(f"{weights}: {name} takes no weights")
        method = CLASSICAL[name]
        return method if method.solver else method._replace(run=jax.jit(method.run))  # solvers are compiled as they are
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
    reach = None if isinstance(network, DMSG) else network.reach  # which sees the range of the whole guide
    return Method(lambda target, guide: compiled(state, target, guide), reach)


def _call(network: nnx.Module, target: jax.Array, guide: jax.Array) -> jax.Array:
    scale = guide.shape[1] // target.shape[1]
    if isinstance(network, DMSG) and network.scale != scale:
        raise InputError(f"dmsg: the weights are for a scale of {network.scale}, the sizes make it {scale}")
    out: jax.Array = network(target, guide)
    return out


def _official(name: str, path: Path) -> tuple[nnx.Module, Callable[..., jax.Array]]:
    """The network of an official file, whose options are read off its arrays, and how it was used there."""
    if name == "attention":
        raise InputError(f"{path}: expected a file of jaxup.interop.save_module, there are no official weights")
    if name in ("djf", "djfr"):
        state = interop.load_matconvnet(path)
        config: dict[str, Any] = {"widths": [len(state.get(f"layer{i}_biases", ())) for i in (1, 3, 5, 6, 8, 10)]}
        return convert(name.upper(), config, path, state), interop.djf_upsample
    if name == "dmsg":
        state = interop.load_caffemodel(path)
        layers = sum(key.endswith("-Y.weight") and key.startswith("conv") for key in state)
        return convert("DMSG", {"scale": 2 ** min(max(1, layers - 1), _DMSG_LEVELS)}, path, state), _call
    state = interop.load_checkpoint(path)
    sizes = [len(x) for key, x in state.items() if key.endswith("DepthKernel.conv_weight.bias") and x.ndim]
    samples = sum(sizes) // (1 if name == "dkn" else 16)
    config = {"kernel_size": round(samples**0.5) or 3, "filter_size": 15, "residual": True}
    return convert(name.upper(), config, path, state), _call


def convert(name: str, config: dict[str, Any], path: Path, state: Mapping[str, np.ndarray]) -> nnx.Module:
    """The module of an official file, or one line that names the file."""
    try:
        return interop.from_torch(name, state, config)
    except ValueError as error:
        first, *rest = str(error).splitlines()[1:] or [str(error)]
        more = f", and {len(rest)} more differences" if rest else ""
        raise InputError(f"{path}: not the weights of {name.lower()}: {first.strip()}{more}") from error


def inner(
    state: Mapping[str, np.ndarray], recognise: Callable[[Mapping[str, np.ndarray]], T | None]
) -> tuple[T, Mapping[str, np.ndarray]] | None:
    """What a function says of the tensors, and these, without the names that all keys begin with if it takes that."""
    while (found := recognise(state)) is None:
        if not state or len({name.partition(".")[0] for name in state}) > 1 or not all("." in name for name in state):
            return None
        state = {name.partition(".")[2]: x for name, x in state.items()}
    return found, state


def load_network(
    path: Path, recognise: Callable[[Mapping[str, np.ndarray]], tuple[str, dict[str, Any]] | None], what: str
) -> nnx.Module:
    """The module of a file of `interop.save_module`, or of an official one whose class the names of its tensors tell.

    Raises:
        InputError: a file of something else, or one in which tensors are missing or have another shape.
        ValueError: a file that cannot be read.
    """
    if is_module_file(path):
        return interop.load_module(path)
    state = interop.load_checkpoint(path)
    try:
        found = inner(state, recognise)
    except (LookupError, TypeError, ValueError, StopIteration) as error:  # where it looks for a tensor and its shape
        raise InputError(f"{path}: expected weights of {what}, some tensors are missing or damaged") from error
    if found is None:
        raise InputError(f"{path}: expected weights of {what}")
    (name, config), tensors = found
    return convert(name, config, path, tensors)
