"""Speed and memory of the operators, as ratios to a reference that runs in the same process.

Milliseconds depend on the machine; ratios and compiled scratch memory say more. Each case is a layer and what it
replaces, in float32, forward and with all gradients.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.bench import measuring
from experiments.engine.config import versions
from experiments.engine.report import markdown_table
from jaxup import ops
from jaxup.files import InputError
from jaxup.nn import UPSAMPLERS, AttentionUpsample, Deconvolution, make_upsampler

Function = Callable[..., jax.Array]

_NONE = "\N{EN DASH}"


def literal_attention_upsample(
    query: jax.Array, key: jax.Array, value: jax.Array, px: jax.Array, py: jax.Array, *, scale: int, kernel_size: int
) -> jax.Array:
    """Eqs. 8 to 12 as the paper writes them: zero-upsample, gather K x K neighbours per pixel, mask, softmax."""
    rows, ok_rows = _window(query.shape[1], scale, kernel_size)
    cols, ok_cols = _window(query.shape[2], scale, kernel_size)
    allowed = ok_rows[:, None, :, None] & ok_cols[None, :, None, :]

    def gather(x: jax.Array) -> jax.Array:
        return ops.zero_upsample(x, scale=scale)[:, rows[:, None, :, None], cols[None, :, None, :]]

    square = (kernel_size, kernel_size, px.shape[1])
    positions = jnp.concatenate([jnp.broadcast_to(px[:, None], square), jnp.broadcast_to(py[None, :], square)], -1)
    scores = jnp.einsum("bijc,bijklc->bijkl", query, gather(key) + positions[None, None, None])
    weights = jax.nn.softmax(jnp.where(allowed[None], scores, -jnp.inf), axis=(-2, -1))
    return jnp.einsum("bijkl,bijklc->bijc", weights, gather(value))


def _window(size: int, scale: int, kernel_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the window of each pixel along an axis, clipped to the image, and whether they are allowed."""
    positions = np.arange(size)[:, None] + np.arange(kernel_size) - kernel_size // 2
    allowed = (positions >= 0) & (positions < size) & (positions % scale == 0)
    return positions.clip(0, size - 1), allowed


@dataclass(frozen=True)
class Case:
    """One function and its inputs."""

    name: str
    run: Function
    inputs: tuple[Any, ...]


def attention_cases(*, size: int, channels: int, scale: int, kernel_size: int) -> tuple[Case, Case]:
    """Attention upsampling by phases, and the literal form."""
    large, half = (1, scale * size, scale * size, channels), (kernel_size, channels // 2)
    inputs = arrays(large, (1, size, size, channels), (1, size, size, channels), half, half)

    def by_phases(query: jax.Array, key: jax.Array, value: jax.Array, px: jax.Array, py: jax.Array) -> jax.Array:
        return ops.attention_upsample(query, key, value, scale=scale, kernel_size=kernel_size, positions=(px, py))

    literal = partial(literal_attention_upsample, scale=scale, kernel_size=kernel_size)
    return Case("attention_upsample", by_phases, inputs), Case("literal form", literal, inputs)


def layer_cases(*, size: int, channels: int, scale: int, kernel_size: int) -> list[Case]:
    """The attention layer, the library's deconvolution, and a plain strided transposed convolution."""
    x = arrays((1, size, size, channels))[0]
    options: Any = {"scale": scale, "kernel_size": kernel_size, "rngs": nnx.Rngs(0)}
    kernel = arrays((kernel_size, kernel_size, channels, channels))[0]

    def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pad = kernel_size // 2
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [(pad, pad + scale - 1)] * 2, (scale, scale), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return [
        _module_case("AttentionUpsample", AttentionUpsample(channels, channels, **options), x),
        _module_case("Deconvolution", Deconvolution(channels, channels, **options), x),
        Case("transposed convolution (lax)", transposed, (x, kernel)),
    ]


def _module_case(name: str, module: nnx.Module, *inputs: jax.Array) -> Case:
    graph, *states = nnx.split(module, nnx.Param, ...)
    params, rest = states
    return Case(name, lambda params, *xs: nnx.merge(graph, params, rest, copy=True)(*xs), (params, *inputs))


def arrays(*shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Deterministic normal numbers."""
    random = np.random.default_rng(0)
    return tuple(jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes)


def with_gradients(run: Function) -> Function:
    """The pullback of a cotangent to all inputs, as a training step needs it."""
    return lambda cotangent, *inputs: jax.vjp(run, *inputs)[1](cotangent)


def scratch(function: Function, *inputs: Any) -> int:
    """Bytes of scratch memory of the compiled function."""
    return measuring.scratch(jax.jit(function).lower(*inputs).compile())


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Fastest of several runs in milliseconds, and scratch memory in MiB, forward and with gradients."""
    cotangent = jnp.ones(jax.eval_shape(case.run, *case.inputs).shape)
    row: dict[str, Any] = {"name": case.name}
    for label, function, inputs in (
        ("forward", case.run, case.inputs),
        ("gradients", with_gradients(case.run), (cotangent, *case.inputs)),
    ):
        compiled = jax.jit(function).lower(*inputs).compile()
        jax.block_until_ready(compiled(*inputs))
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(compiled(*inputs))
            times.append(time.perf_counter() - start)
        row[f"{label} ms"] = 1000 * min(times)
        row[f"{label} MiB"] = measuring.scratch(compiled) / 2**20
    return row


def run(*, size: int = 64, channels: int = 64, scale: int = 2, kernel_size: int = 3, repeats: int = 20) -> None:
    """Measure attention upsampling against its literal form and against transposed convolutions.

    Args:
        size: height and width of the low-resolution map.
        channels: channels of query, key, value and output.
        scale: upsampling factor.
        kernel_size: K.
        repeats: timed runs of each function; the fastest counts.
    """
    sizes = {"size": size, "channels": channels, "scale": scale, "kernel_size": kernel_size}
    print(f"1x{size}x{size}x{channels}, scale {scale}, K {kernel_size}, float32; {versions()}\n")
    for cases in (attention_cases(**sizes), layer_cases(**sizes)):
        rows = [measure(case, repeats) for case in cases]
        columns = list(rows[0])
        for row in rows[1:]:
            row |= {f"{label} ratio": row[label] / rows[0][label] for label in columns[1:]}
        print(markdown_table(rows, columns, digits=3))
        for row in rows[1:]:
            ratios = ", ".join(
                f"{label.rsplit(' ', 1)[0]} {'time' if 'ms' in label else 'memory'} {row[f'{label} ratio']:.2f}"
                for label in columns[1:]
            )
            print(f"\n{row['name']} / {rows[0]['name']}: {ratios}")
        print()


def upsamplers(
    *, size: int = 64, channels: int = 256, scale: int = 2, repeats: int = 3, only: tuple[str, ...] = ()
) -> None:
    """Measure every upsampler of `jaxup.nn` against the deconvolution: the README's table.

    Args:
        size: height and width of the low-resolution map.
        channels: of the map, and of guides that are feature maps.
        scale: upsampling factor.
        repeats: timed runs of each function; the fastest counts.
        only: names; none: all.
    """
    unknown = [name for name in only if name not in UPSAMPLERS]
    if unknown:
        raise InputError(f"only: expected names of jaxup.nn.UPSAMPLERS, got {', '.join(unknown)}")
    print(f"1x{size}x{size}x{channels}, scale {scale}, float32; {versions()}\n", flush=True)
    names = ["deconvolution", *(n for n in only or UPSAMPLERS if n != "deconvolution")]
    rows = []
    for name in names:
        entry, guide = UPSAMPLERS[name], UPSAMPLERS[name].guide_channels(channels)
        module = make_upsampler(name, in_features=channels, guide_features=guide, scale=scale, rngs=nnx.Rngs(0))
        module.eval()
        inputs = arrays((1, size, size, channels), (1, scale * size, scale * size, guide))
        row = measure(_module_case(name, module, *(inputs if entry.guided else inputs[:1])), repeats)
        parameters = sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))
        about = {"name": f"`{name}`", "guide": str(guide) if entry.guided else _NONE, "scales": entry.allowed.short}
        about |= {"parameters": f"{parameters:,}", "paper": entry.paper or _NONE}
        rows.append(row | about | {"official code, its licence": entry.official or _NONE})
        figures = (f"{row[f'{kind} ms']:.1f} ms and {row[f'{kind} MiB']:.1f} MiB" for kind in ("forward", "gradients"))
        print(f"{name}: {', with gradients '.join(figures)}", flush=True)
    headings = {
        "forward ms": "time",
        "gradients ms": "time, gradients",
        "forward MiB": "memory",
        "gradients MiB": "memory, gradients",
    }
    for row in rows[::-1]:
        row |= {to: row[of] / rows[0][of] for of, to in headings.items()}
    columns = ["name", "guide", "scales", "parameters", *headings.values(), "paper", "official code, its licence"]
    print("\n" + markdown_table(rows, columns, digits=2))
