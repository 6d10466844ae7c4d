"""Declarative tables from the keys of a PyTorch state dict to the parameters of a module, and both ways through them.

A table maps every official key to one entry:

    "conv.weight": Key("conv.kernel", "conv")              one of our arrays, in another layout
    "in_proj_weight": (Key("query.kernel", "linear"),      several, joined along PyTorch's first axis
                       Key("key.kernel", "linear"),
                       Unused((8, 8)))                     a part without any effect
    "kernel": Constant(np.ones((3, 1, 1, 9)))              a buffer that our module knows by itself

`conv`, `linear`, `norm` and `batch_norm` write the usual entries of one layer, `prefixed` moves a table into a
submodule: `conv("0", "first") | prefixed(block_table, "1.", "second.")`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxup._checks import accum_dtype, check_choice, fail


class Layout(NamedTuple):
    """A rearrangement of an array's axes and its inverse; both work on NumPy and JAX arrays."""

    to_ours: Callable[[Any], Any]
    to_torch: Callable[[Any], Any]


LAYOUTS: dict[str, Layout] = {
    "same": Layout(lambda x: x, lambda x: x),
    # [O, I, kh, kw] <-> [kh, kw, I, O], also of grouped convolutions
    "conv": Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    # [O, I] <-> [I, O]
    "linear": Layout(lambda x: x.transpose(1, 0), lambda x: x.transpose(1, 0)),
    # a 1x1 convolution [O, I, 1, 1] as a linear layer [I, O]
    "pointwise": Layout(lambda x: x[:, :, 0, 0].transpose(1, 0), lambda x: x.transpose(1, 0)[:, :, None, None]),
    # [I, O, kh, kw] <-> cross-correlation kernels [kh, kw, I, O], flipped
    "conv_transpose": Layout(
        lambda x: x[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
    ),
    # [I, O, kh, kw] <-> [kh, kw, I, O], not flipped
    "conv_in_out": Layout(lambda x: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1)),
    # [C, 1, kh, kw] <-> [kh, kw, 1, C], flipped
    "depthwise_transpose": Layout(
        lambda x: x[:, :, ::-1, ::-1].transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1]
    ),
    # [O, 1, kh, kw] <-> [kh, kw, O]
    "filters": Layout(lambda x: x[:, 0].transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1)[:, None]),
    # [C] <-> [1, C]
    "row": Layout(lambda x: x[None], lambda x: x[0]),
    # [1, C, 1, 1] <-> [C]
    "channels": Layout(lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1, 1)),
}


def permuted(layout: str, axis: int, order: Sequence[int] | np.ndarray) -> Layout:
    """A layout, after which entry i along an axis of ours is the one that stood at order[i]."""
    there, back, inverse = *LAYOUTS[layout], np.argsort(order)
    return Layout(lambda x: _take(there(x), axis, order), lambda x: back(_take(x, axis, inverse)))


def extended(layout: str, extra: int) -> Layout:
    """A layout, after which filters have zeros for more input channels than the file's."""
    there, back = LAYOUTS[layout]
    widths = ((0, 0), (0, 0), (0, extra), (0, 0))

    def to_ours(x: Any) -> Any:
        return (jnp if isinstance(x, jax.Array) else np).pad(there(x), widths)

    return Layout(to_ours, lambda x: back(x[:, :, : x.shape[2] - extra]))


def _take(x: Any, axis: int, order: Sequence[int] | np.ndarray) -> Any:
    return x[(slice(None),) * axis + (np.asarray(order),)]


@dataclass(frozen=True)
class Key:
    """One array of our module: its path, as in "block.0.kernel", and the layout that PyTorch has it in."""

    path: str
    layout: str | Layout = "same"

    def __post_init__(self) -> None:
        if isinstance(self.layout, str):
            check_choice("layout", self.layout, LAYOUTS)

    @property
    def ways(self) -> Layout:
        """The layout itself, where it was given by name."""
        return LAYOUTS[self.layout] if isinstance(self.layout, str) else self.layout


@dataclass(frozen=True)
class Constant:
    """A stored value that never changes: verified on the way in, written on the way out."""

    value: np.ndarray


@dataclass(frozen=True)
class Unused:
    """A tensor without any effect on the output: dropped on the way in, zeros on the way out."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Optional:
    """A tensor of any shape without effect that files need not have: dropped on the way in, absent on the way out."""


# Ends of the names of buffers that files may have, and nothing reads: counters, and what follows from the options.
_IGNORED = (
    "num_batches_tracked",
    "_tmp_running_mean",
    "_tmp_running_var",
    "_running_iter",
    "relative_position_index",
)

Part = Key | Constant | Unused | Optional
Table = dict[str, Part | tuple[Part, ...]]
# The module of an official config, and the table of its keys: several where the official code names them in two ways.
Operators = dict[str, Callable[[dict[str, Any]], tuple[nnx.Module, *tuple[Table, ...]]]]


def conv(torch: str, ours: str, *, bias: bool = True, layout: str = "conv") -> Table:
    """Weight and bias of a convolution (or, with another layout, of any layer that has a kernel)."""
    table: Table = {f"{torch}.weight": Key(f"{ours}.kernel", layout)}
    return table | ({f"{torch}.bias": Key(f"{ours}.bias")} if bias else {})


def linear(torch: str, ours: str, *, bias: bool = True) -> Table:
    """Weight and bias of a linear layer."""
    return conv(torch, ours, bias=bias, layout="linear")


def norm(torch: str, ours: str) -> Table:
    """Scale and bias of a group or layer normalisation."""
    return {f"{torch}.weight": Key(f"{ours}.scale"), f"{torch}.bias": Key(f"{ours}.bias")}


def batch_norm(torch: str, ours: str) -> Table:
    """Scale, bias and running statistics; `num_batches_tracked` has no counterpart and is ignored."""
    statistics: Table = {
        f"{torch}.running_mean": Key(f"{ours}.mean"),
        f"{torch}.running_var": Key(f"{ours}.var"),
    }
    return norm(torch, ours) | statistics


def prefixed(table: Table, torch: str, ours: str) -> Table:
    """The table of a submodule: `torch` before each key, `ours` before each path."""

    def move(part: Part) -> Part:
        return replace(part, path=ours + part.path) if isinstance(part, Key) else part

    return {
        torch + name: tuple(map(move, entry)) if isinstance(entry, tuple) else move(entry)
        for name, entry in table.items()
    }


def unfilled(build: Callable[[], nnx.Module]) -> nnx.Module:
    """The module that `build` makes, with shapes in the place of initial values, which would be replaced anyway.

    Only random generators have their states, which no file has.
    """
    module = nnx.eval_shape(build)
    if jax.tree.leaves(nnx.state(module, nnx.RngState)):
        states = jax.jit(lambda: nnx.state(build(), nnx.RngState))  # XLA makes nothing of what is not returned
        nnx.update(module, states())
    return module


def flat_variables(state: nnx.Module | nnx.State[Any, Any]) -> dict[str, Any]:
    """All arrays of a module or state but the states of random generators, by path."""
    if isinstance(state, nnx.Module):
        state = nnx.state(state, nnx.Not(nnx.RngState))
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def as_array(x: Any) -> Any:
    """A tensor as an array; NumPy has no bfloat16 and no 8-bit floats, so torch tensors of these go through float32."""
    if isinstance(x, jax.Array):
        return x
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() and x.element_size() <= 2 else x).numpy()
    return np.asarray(x)


def read(table: Table, tensors: Mapping[str, Any], module: nnx.Module) -> nnx.Module:
    """Replace every parameter and buffer of `module` by the tensors; all mismatches are reported in one error."""
    state = nnx.state(module, nnx.Not(nnx.RngState))
    variables = flat_variables(state)
    unread = {name for name, entry in table.items() if isinstance(entry, Optional)}
    table = {name: entry for name, entry in table.items() if name not in unread}
    tensors = {k: as_array(v) for k, v in tensors.items() if k not in unread and not k.endswith(_IGNORED)}
    problems = list(_mismatches(table, tensors, variables))
    if problems:
        fail("state_dict", "the keys and shapes of this operator and config", "\n  " + "\n  ".join(problems))
    for name, entry in table.items():
        for part, x in _cut(_parts(entry), tensors[name], variables):
            if isinstance(part, Key):
                variable = variables[part.path]
                dtype = variable.get_value().dtype
                if isinstance(x, jax.Array) and jnp.issubdtype(dtype, jnp.floating):
                    dtype = accum_dtype(x)  # float64 stays
                variable.set_value(jnp.asarray(part.ways.to_ours(x), dtype))
    nnx.update(module, state)
    return module


def write(table: Table, variables: Mapping[str, Any], *, constants: bool) -> dict[str, np.ndarray]:
    """The tensors of a table's keys whose arrays are present; `constants`: also those that hold none of our arrays."""
    tensors = {}
    for name, entry in table.items():
        parts = _parts(entry)
        if isinstance(entry, Optional):
            continue
        ours = [part.path in variables for part in parts if isinstance(part, Key)]
        if all(ours) if ours else constants:
            pieces = [_torch_value(part, variables) for part in parts]
            tensors[name] = np.array(np.concatenate(pieces) if len(pieces) > 1 else pieces[0], order="C")
    return tensors


def _parts(entry: Part | tuple[Part, ...]) -> tuple[Part, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def _torch_value(part: Part, variables: Mapping[str, Any]) -> np.ndarray:
    match part:
        case Key(path):
            tensor: np.ndarray = part.ways.to_torch(np.asarray(variables[path][...]))
            return tensor
        case Constant(value):
            return value
        case Unused(shape):
            return np.zeros(shape, np.float32)
        case Optional():
            raise TypeError("an optional tensor has no value")


def _torch_shape(part: Part, variables: Mapping[str, Any]) -> tuple[int, ...]:
    match part:
        case Key(path):
            empty: np.ndarray = np.broadcast_to(np.float32(0), variables[path].get_value().shape)
            return tuple(part.ways.to_torch(empty).shape)
        case Constant(value):
            return value.shape
        case Unused(shape):
            return shape
        case Optional():
            raise TypeError("an optional tensor has no shape")


def _cut(parts: tuple[Part, ...], tensor: Any, variables: Mapping[str, Any]) -> Iterator[tuple[Part, Any]]:
    """The pieces of one tensor along its first axis."""
    if len(parts) == 1:
        yield parts[0], tensor
        return
    start = 0
    for part in parts:
        stop = start + _torch_shape(part, variables)[0]
        yield part, tensor[start:stop]
        start = stop


def _mismatches(table: Table, tensors: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[str]:
    paths = [part.path for entry in table.values() for part in _parts(entry) if isinstance(part, Key)]
    yield from (f"{path}: our parameter, which no key fills" for path in sorted(variables.keys() - set(paths)))
    yield from (f"{path}: no parameter of our module" for path in sorted(set(paths) - variables.keys()))
    yield from (f"{path}: filled by two keys" for path in sorted({p for p in paths if paths.count(p) > 1}))
    yield from (f"{name}: missing" for name in table if name not in tensors)
    yield from (f"{name}: unexpected" for name in tensors if name not in table)
    for name, entry in table.items():
        parts = _parts(entry)
        if name not in tensors or any(isinstance(p, Key) and p.path not in variables for p in parts):
            continue
        shapes = [_torch_shape(part, variables) for part in parts]
        expected = (sum(s[0] for s in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
        if tensors[name].shape != expected:
            yield f"{name}: expected shape {expected}, got shape {tensors[name].shape}"
        elif isinstance(entry, Constant) and not _equal(tensors[name], entry.value):
            yield f"{name}: expected the constant values of this operator, got others"


def _equal(x: Any, value: np.ndarray) -> bool:
    return isinstance(x, jax.core.Tracer) or bool(np.allclose(x, value, rtol=1e-6, atol=1e-7))
