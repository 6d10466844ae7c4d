"""Linear maps whose transposes are written by hand, in forward and reverse mode of any order and under `vmap`.

`jax.custom_vjp` has no forward mode. A map that is linear in some of its arguments needs none of its own: its tangent
is the map itself, of the tangents, and reverse mode is the transpose. So every operator with a derivative by hand has
a rule for tangents (`jax.custom_jvp`), made of `linear` maps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

Arrays = tuple[jax.Array, ...]
Map = Callable[..., Arrays]

# Typed: JAX's own have no annotations.
_instantiate: Callable[[Any], Any] = ad.instantiate_zeros
_linear_p: Any = Primitive("linear")
_linear_p.multiple_results = True


def linear(fun: Map, transpose: Map, others: Arrays, x: Arrays) -> Arrays:
    """`fun(*others, *x)`, linear in x; `transpose(*others, *ct)` takes what belongs to its outputs back to x.

    Both return tuples; neither may close over traced arrays. `fun` has to be differentiable in `others` by itself.
    """
    program = jax.make_jaxpr(fun)(*others, *x)
    out: list[jax.Array] = _linear_p.bind(*others, *x, program=program, fun=fun, transpose=transpose, count=len(others))
    return tuple(out)


def bilinear(f: Callable[..., jax.Array], of_first: Any, of_second: Any, primals: Any, tangents: Any) -> Any:
    """The rule of `f(a, b)`, linear in each: `of_first(ct, b)` and `of_second(a, ct)` are the transposes.

    b, and then what `of_second` returns, may be a tuple of arrays. For `defjvp(..., symbolic_zeros=True)`: nothing is
    computed of an argument that does not change.
    """
    (a, b), (d_a, d_b) = primals, tangents
    parts, d_parts = (b, d_b) if isinstance(b, tuple) else ((b,), (d_b,))
    a_type, types = jnp.result_type(a), [jnp.result_type(part) for part in parts]

    def joined(parts: Arrays) -> Any:
        return parts if isinstance(b, tuple) else parts[0]

    def to_first(*args: jax.Array) -> Arrays:
        return (of_first(args[-1], joined(args[:-1])).astype(a_type),)

    def to_second(a: jax.Array, ct: jax.Array) -> Arrays:
        return tuple(d.astype(dtype) for d, dtype in zip(jax.tree.leaves(of_second(a, ct)), types, strict=True))

    out = f(a, b)
    terms: list[jax.Array] = []
    if not isinstance(d_a, SymbolicZero):
        terms += linear(lambda *args: (f(args[-1], joined(args[:-1])),), to_first, parts, (d_a,))
    if not all(isinstance(d, SymbolicZero) for d in d_parts):
        pairs = zip(parts, d_parts, strict=True)
        changes = tuple(jnp.zeros_like(part) if isinstance(d, SymbolicZero) else d for part, d in pairs)
        terms += linear(lambda a, *parts: (f(a, joined(parts)),), to_second, (a,), changes)
    return out, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(out)


def _evaluate(*args: jax.Array, program: Any, **_: Any) -> Any:
    return jaxpr_as_fun(program)(*args)


def _jvp(primals: Arrays, tangents: Any, *, program: Any, fun: Map, transpose: Map, count: int) -> Any:
    others, x = primals[:count], primals[count:]
    moved = [any(type(t) is not ad.Zero for t in part) for part in (tangents[:count], tangents[count:])]
    d_others, d_x = (tuple(map(_instantiate, part)) for part in (tangents[:count], tangents[count:]))
    terms = []
    if moved[0]:
        terms.append(jax.jvp(lambda *others: fun(*others, *x), others, d_others)[1])
    if moved[1]:
        terms.append(linear(fun, transpose, others, d_x))
    return linear(fun, transpose, others, x), [sum(parts[1:], parts[0]) for parts in zip(*terms, strict=True)]


def _transpose(cts: Any, *args: Any, program: Any, fun: Map, transpose: Map, count: int) -> Any:
    d_out = tuple(_instantiate(ct) for ct in cts)
    return [None] * count + list(linear(transpose, fun, args[:count], d_out))


def _batch(args: Any, axes: Any, *, program: Any, fun: Map, transpose: Map, count: int) -> Any:
    """Each x has the new axis, so that the transpose need not sum over it."""
    size = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    others, places = args[:count], tuple(axes[:count])
    x = tuple(
        jnp.broadcast_to(a[None], (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(args[count:], axes[count:], strict=True)
    )
    outputs = len(program.out_avals)
    batched = jax.vmap(fun, in_axes=places + (0,) * len(x))
    back = jax.vmap(transpose, in_axes=places + (0,) * outputs)
    return linear(batched, back, others, x), (0,) * outputs


_linear_p.def_impl(_evaluate)
_linear_p.def_abstract_eval(lambda *_, program, **__: program.out_avals)
ad.primitive_jvps[_linear_p] = _jvp
ad.primitive_transposes[_linear_p] = _transpose
batching.primitive_batchers[_linear_p] = _batch
mlir.register_lowering(_linear_p, mlir.lower_fun(_evaluate, multiple_results=True))
