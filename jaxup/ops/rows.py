"""Images too large for one device: rows split over many, each of which asks its neighbours for the few that it lacks.

A device makes its rows of the output from its rows of the inputs and a margin of `reach` rows on each side. All devices
compute strips of one height: at the top and the bottom of the image a strip is moved inwards, so that its end is the
image's, and what an operator does at borders stays its own business. Margins go from neighbour to neighbour, in several
steps where they are higher than what one device has, and gradients the same way back. Nothing is gathered.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import jax
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxup._checks import Pair, check_int, fail, jit

F = TypeVar("F", bound=Callable[..., Any])
AnyMesh = Mesh | AbstractMesh

# Typed: JAX's own have no annotations.
_spec: Callable[..., PartitionSpec] = PartitionSpec
_struct: Callable[..., Any] = jax.ShapeDtypeStruct
_reshard: Callable[..., jax.Array] = jax.sharding.reshard
_ppermute: Callable[..., jax.Array] = lax.ppermute


class _Split(NamedTuple):
    """How images are spread: a mesh, and the names of its axes for batch and rows."""

    mesh: AnyMesh
    batch: Any
    rows: Any

    @property
    def spec(self) -> PartitionSpec:
        """Of images."""
        return _spec(self.batch, self.rows)

    @property
    def devices(self) -> int:
        """Of the devices that share the rows."""
        names = self.rows if isinstance(self.rows, tuple) else (self.rows,)
        return math.prod(self.mesh.shape[name] for name in names)


def over_rows(
    *images: jax.Array,
    function: Callable[..., Any],
    reach: int,
    mesh: AnyMesh | None = None,
    axis: str | None = None,
) -> Any:
    """What a function makes of images whose rows are split over the devices of a mesh axis; nothing is gathered.

    The function is called on strips, so what it makes of a row must depend on the rows around it and not on the place
    in the image. Operators do this by themselves with arguments of which JAX knows that rows are split: those of
    compiled functions over Explicit axes, and all others outside of compiled functions. Over Auto axes in a compiled
    function it does not know, and this function is needed.

    Args:
        images: [B, H, W, ...]. Those that are not split yet will be.
        function: of the images; gives one or several arrays [B, H', ...]. One and the same object is compiled once.
        reach: how many rows the function looks up and down from one, in rows of the lowest image.
        mesh: none: that of the images, or the one in use (`jax.set_mesh`).
        axis: of the mesh; none: that of the images, or the only one.

    Returns:
        What the function returns, with rows split in the same way.

    Raises:
        ValueError: the devices cannot share the rows equally, or would need all of them; columns or channels are split;
            no mesh or axis is known.

    Example:
        >>> import jax.numpy as jnp
        >>> mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
        >>> over_rows(jnp.ones((1, 4, 3, 1)), function=lambda x: 2 * x, reach=0, mesh=mesh).shape
        (1, 4, 3, 1)

    Reference:
        Halo exchange, as solvers on grids have it; the operators' own references say what is computed.
    """
    check_int("reach", reach, 0)
    if not images or any(x.ndim < 3 for x in images):
        fail("images", "some of [B, H, W, ...]", [x.shape for x in images])
    found = _split_of(images)
    used = mesh or (found.mesh if found else jax.sharding.get_abstract_mesh())
    if found is None or axis is not None:
        rows = axis or (used.axis_names[0] if len(used.axis_names) == 1 else None)
        if rows not in used.axis_names:
            fail("axis", f"one of the mesh, {used.axis_names}", axis)
        found = _Split(used, found.batch if found else None, rows)
    return _on_strips(function, (reach, min(x.shape[1] for x in images)), found._replace(mesh=used), images)


def by_rows(*names: str, reach: Callable[..., int | None]) -> Callable[[F], F]:
    """Lets an operator take images whose rows are split: see `over_rows`.

    Args:
        names: of the arguments that are images; the others are the same for every strip.
        reach: of the operator's arguments; none: what it reads may be anywhere, and such images are refused.
    """

    def decorate(operator: F) -> F:
        signature = inspect.signature(operator)

        @functools.wraps(operator)
        def call(*args: Any, **options: Any) -> Any:
            split = _split_of((*args, *options.values()))
            if split is None:
                return operator(*args, **options)
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            return _apply(operator, names, dict(bound.arguments), reach(**bound.arguments), split)

        return cast(F, call)

    return decorate


def _apply(
    operator: Callable[..., Any], names: tuple[str, ...], given: dict[str, Any], reach: int | None, split: _Split
) -> Any:
    if reach is None:
        expected = "rows on one device, because what is read for one of them may be anywhere"
        fail(names[0], expected, f"rows split by {split.spec}")
    images = [name for name in names if given[name] is not None]
    tables = [name for name, value in given.items() if name not in images and _has_array(value)]
    options = tuple((name, value) for name, value in given.items() if name not in (*images, *tables))
    function = _Call(operator, (*images, *tables), options)
    lowest = _lowest([given[name].shape[1] for name in images], given.get("scale"))
    arrays = (tuple(given[name] for name in group) for group in (images, tables))
    return _on_strips(function, (reach, lowest), split, *arrays)


@dataclass(frozen=True)
class _Call:
    """An operator with its options, which equals another one of the same: it is compiled once."""

    operator: Callable[..., Any]
    names: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    def __call__(self, *arrays: Any) -> Any:
        return self.operator(**dict(zip(self.names, arrays, strict=True)), **dict(self.options))


def _lowest(heights: list[int], scale: Any) -> int:
    """The height of the coarsest grid, which may be that of no argument."""
    down = scale[0] if isinstance(scale, tuple | list) else scale
    return min(*heights, max(heights) // down) if isinstance(down, int) and down > 0 else min(heights)


def _has_array(value: Any) -> bool:
    return any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(value))


def _split_of(arguments: tuple[Any, ...]) -> _Split | None:
    """How rows of the first argument whose rows are split are; none: of none of them, as far as is known."""
    for x in arguments:
        if not isinstance(x, jax.Array) or x.ndim < 3:
            continue
        sharding: Any = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else x.sharding
        spec = sharding.spec if isinstance(sharding, NamedSharding) else _spec()
        if len(spec) < 2 or spec[1] is None:
            continue
        split = _Split(sharding.mesh, spec[0], spec[1])
        if split.devices > 1:
            if any(name is not None for name in spec[2:]):
                fail("sharding", "batch and rows that are split, and nothing else", spec)
            return split
    return None


@jit(static_argnums=(0, 1, 2))
def _on_strips(
    function: Callable[..., Any],
    reach: Pair,
    split: _Split,
    images: tuple[jax.Array, ...],
    tables: tuple[Any, ...] = (),
) -> Any:
    """`reach` is a number of rows and the height of the grid on which they are counted."""
    count, heights = split.devices, [x.shape[1] for x in images]
    kinds = jax.tree.map(lambda x: _struct(x.shape, x.dtype), (images, tables))
    results = jax.eval_shape(lambda images, tables: function(*images, *tables), *kinds)
    outputs = [y.shape[1] for y in jax.tree.leaves(results)]
    rows = math.gcd(reach[1], *heights, *outputs)
    own, margin = rows // count, -(-reach[0] * rows // reach[1])
    if rows % count:
        fail("rows", f"heights with a common divisor that {count} devices share equally", f"{heights} to {outputs}")
    if count > 1 and margin and own + 2 * margin > rows:
        fail("rows", f"more than the {count} x {own} of the devices, each of which needs {own + 2 * margin}", rows)

    def local(images: tuple[jax.Array, ...], tables: tuple[Any, ...]) -> Any:
        if margin == 0 or count == 1:
            return function(*images, *tables)
        first = lax.axis_index(split.rows) * own
        start = lax.clamp(0, first - margin, rows - own - 2 * margin)
        strips = []
        for x in images:
            ratio = x.shape[1] // own
            around = _with_neighbours(x, 2 * margin * ratio, split.rows, count)
            strip = (start - first + 2 * margin) * ratio, (own + 2 * margin) * ratio
            strips.append(lax.dynamic_slice_in_dim(around, *strip, axis=1))
        found = function(*strips, *tables)
        ratios = jax.tree.map(lambda y: y.shape[1] // (own + 2 * margin), found)
        return jax.tree.map(lambda y, r: lax.dynamic_slice_in_dim(y, (first - start) * r, own * r, 1), found, ratios)

    if AxisType.Explicit in split.mesh.axis_types:
        images = tuple(_reshard(x, NamedSharding(split.mesh, split.spec)) for x in images)
    given, made = (split.spec, _spec()), split.spec
    # Without the check of what varies over devices: loops of operators begin with constants.
    return jax.shard_map(local, mesh=split.mesh, in_specs=given, out_specs=made, check_vma=False)(images, tables)


def _with_neighbours(x: jax.Array, margin: int, axis: Any, count: int) -> jax.Array:
    """The rows of a device and as many above and below, zeros outside the image."""
    above, below = (_beyond(x, margin, axis, count, down) for down in (False, True))
    return lax.concatenate([*reversed(above), x, *below], 1)


def _beyond(x: jax.Array, margin: int, axis: Any, count: int, down: bool) -> list[jax.Array]:
    """The rows below or above those of a device, of one neighbour after the other."""
    towards = [(i + 1, i) if down else (i, i + 1) for i in range(count - 1)]
    parts: list[jax.Array] = []
    while margin > 0:
        piece, height = parts[-1] if parts else x, min(margin, x.shape[1])
        first = 0 if down else piece.shape[1] - height
        piece = lax.slice_in_dim(piece, first, first + height, axis=1)
        parts.append(_ppermute(piece, axis, towards))
        margin -= height
    return parts
