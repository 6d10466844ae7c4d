"""How much memory a training step takes with each upsampler: by what XLA allots, and by running one."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.instances_batches import Augmentation, training_batches
from experiments.engine.checkpoint import split_model
from experiments.engine.costs import alone, highest, seconds
from experiments.engine.report import leaves_results, markdown_table, publish
from experiments.engine.runs import parameters
from experiments.engine.train import memory_of
from experiments.engine.trained import Trained
from experiments.instances.data import DataConfig
from experiments.instances.networks import NetworkConfig
from experiments.instances.paper import PAPER
from experiments.instances.training import loss_of
from jaxup._checks import check_int, pair
from jaxup.files import InputError


class _Classes(NamedTuple):
    """As many as COCO has."""

    things: range = range(80)
    stuff: range = range(53)


@dataclass(frozen=True)
class MemoryConfig:
    """Which network, with which upsamplers, for images of which size."""

    network: NetworkConfig = field(default=NetworkConfig())
    upsamplers: tuple[str, ...] = PAPER
    """The rows, each in the place of `upsampler`."""
    size: tuple[int, int] = (512, 512)
    """Height and width of the images."""
    batch_size: int = 2
    """Images at a time."""
    objects: int = 100
    """Places for objects of an image."""
    anchors_drawn: int = 256
    """As in training."""
    boxes_drawn: int = 512
    """As in training."""
    run: bool = False
    """Compute losses and gradients, too, of generated scenes: their seconds, and the largest memory on the way."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""


@leaves_results
def memory(config: MemoryConfig) -> None:
    """Compile losses and gradients of a network with each upsampler, and print the memory that they take.

    Nothing is computed but with --run, where each row has a process of its own. On CPUs, seconds are those of all
    threads, and the peak is the largest resident memory of that process, compiling included.
    """
    if config.network.upsampler is not None:
        raise InputError("upsampler: has no effect beside upsamplers")
    for name in ("batch_size", "objects", "anchors_drawn", "boxes_drawn"):
        check_int(name, getattr(config, name))
    pair("size", config.size)
    rows = []
    for name in config.upsamplers:
        network = replace(config.network, upsampler=name)
        row = alone(name, _row, config, network) if config.run else _row(config, network)
        rows.append({"upsampler": name, **row})
        print(f"{name}: {row['GiB']:.2f} GiB", flush=True)
    size = "{} x {}".format(*config.size)
    text = f"Weights, gradients, and the losses of {config.batch_size} of {size} pixels with {config.objects} objects."
    publish(config.out, rows, f"{markdown_table(rows)}\n\n{text}")


def _row(config: MemoryConfig, network: NetworkConfig) -> dict[str, Any]:
    model = nnx.eval_shape(lambda: Trained(network.build(_Classes(), 0), 1))  # type: ignore[arg-type]
    model.train()
    graph, params, rest = split_model(model)
    count, objects, size = config.batch_size, config.objects, config.size
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "image": ((*size, 3), jnp.uint8),
        "limits": ((2,), jnp.float32),
        "boxes": ((objects, 4), jnp.float32),
        "labels": ((objects,), jnp.int32),
        "masks": ((objects, *size), bool),
        "crowd": ((objects,), bool),
        "semantic": (size, jnp.uint8),
    }
    batch = {name: jax.ShapeDtypeStruct((count, *shape), dtype) for name, (shape, dtype) in shapes.items()}
    loss = loss_of(config.anchors_drawn, config.boxes_drawn)

    def training(params: nnx.State, rest: nnx.State, batch: Any) -> jax.Array:
        return loss(nnx.merge(graph, params, rest, copy=True), batch)[0]

    compiled = jax.jit(jax.value_and_grad(training)).lower(params, rest, batch).compile()
    row = {"params (M)": parameters(model) / 1e6, "GiB": memory_of(compiled) / 2**30}
    return row | _run(config, network, compiled) if config.run else row


def _run(config: MemoryConfig, network: NetworkConfig, compiled: Any) -> dict[str, float]:
    """One call, of generated scenes and initial weights."""
    model = Trained(network.build(_Classes(), 0), 1)  # type: ignore[arg-type]
    model.train()
    _, params, rest = split_model(model)
    how = Augmentation(None, padded=config.size, objects=config.objects)
    scenes = DataConfig(images=config.batch_size, size=config.size).open("train")
    batch = next(iter(training_batches(scenes, how, batch_size=config.batch_size, seed=0)))
    found: list[Any] = []
    taken = seconds(lambda: found.append(jax.block_until_ready(compiled(params, rest, batch))))
    value, gradients = found[0]
    finite = all(bool(jnp.isfinite(x).all()) for x in (value, *jax.tree.leaves(gradients)))
    if not finite:
        raise RuntimeError(f"{network.label}: the loss, {value}, or a gradient is not finite")
    return {"s": taken, "peak, GiB": highest() / 2**30}
