"""How much memory a network takes with each upsampler, by what XLA allots; nothing is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.engine.checkpoint import split_model
from experiments.engine.report import leaves_results, markdown_table, publish
from experiments.engine.runs import parameters
from experiments.engine.train import memory_of
from experiments.engine.trained import Trained
from experiments.segmentation.networks import NetworkConfig, normalised
from experiments.segmentation.table import PAPER
from experiments.segmentation.training import loss_of
from jaxup._checks import check_int, pair
from jaxup.files import InputError

_WHAT = "weights and results with them; with gradients, they and the loss of a training step."


@dataclass(frozen=True)
class MemoryConfig:
    """Which network, with which upsamplers, for images of which size."""

    network: NetworkConfig = field(default=NetworkConfig("segformer", "mit_b1"))
    upsamplers: tuple[str, ...] = PAPER
    """The rows, each in the place of `upsampler`."""
    num_classes: int = 150
    size: tuple[int, int] = (512, 512)
    """Height and width of the images."""
    batch_size: int = 1
    """Images at a time."""
    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""


@leaves_results
def memory(config: MemoryConfig) -> None:
    """Compile a network with each upsampler, forward and with gradients, and print the memory that it takes."""
    if config.network.upsampler is not None:
        raise InputError("upsampler: has no effect beside upsamplers")
    check_int("batch_size", config.batch_size)
    pair("size", config.size)
    networks = {name: replace(config.network, upsampler=name) for name in config.upsamplers}
    rows = [{"upsampler": name, **_row(config, network)} for name, network in networks.items()]
    size = "{} x {}".format(*config.size)
    publish(config.out, rows, f"{markdown_table(rows)}\n\nGiB for {config.batch_size} of {size} pixels, {_WHAT}")


def _row(config: MemoryConfig, network: NetworkConfig) -> dict[str, Any]:
    model = nnx.eval_shape(lambda: Trained(network.build(config.num_classes, 0), 1))
    model.train()
    graph, params, rest = split_model(model)
    shape, loss = (config.batch_size, *config.size), loss_of(config.num_classes)
    batch = {"image": jax.ShapeDtypeStruct((*shape, 3), jnp.uint8), "labels": jax.ShapeDtypeStruct(shape, jnp.uint8)}

    def forward(params: nnx.State, rest: nnx.State, batch: Any) -> jax.Array:
        return nnx.merge(graph, params, rest, copy=True)(normalised(batch["image"]))

    def training(params: nnx.State, rest: nnx.State, batch: Any) -> jax.Array:
        return loss(nnx.merge(graph, params, rest, copy=True), batch)[0]

    functions: dict[str, Callable[..., Any]] = {"forward": forward, "with gradients": jax.value_and_grad(training)}
    row: dict[str, Any] = {"params (M)": parameters(model) / 1e6}
    for name, function in functions.items():
        row[name] = memory_of(jax.jit(function).lower(params, rest, batch).compile()) / 2**30
        print(f"{network.upsampler}, {name}: {row[name]:.2f} GiB", flush=True)
    return row
