"""Upsamplers on the features of a frozen backbone: each with a linear probe, compared at stride 4."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.engine.checkpoint import split_model
from experiments.engine.config import MAY_DIFFER, RunConfig, open_run
from experiments.engine.processes import for_each
from experiments.engine.report import markdown_table, publish
from experiments.engine.runs import parameters
from experiments.engine.stopping import locked
from experiments.segmentation.data import DataConfig
from experiments.segmentation.features import STRIDES, Backbone, Features, class_shares, features
from jaxup import metrics
from jaxup._checks import check_choice
from jaxup._writing import write_file
from jaxup.files import InputError
from jaxup.models.segmentation import Upsampling
from jaxup.nn import UPSAMPLERS, initializers
from jaxup.ops import resize

Row = dict[str, Any]
_TARGET = STRIDES[0]
# Maps and guides differ in channels; AnyUp's usual 128 channels would take longer than all others together.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"max_unpool": {"holistic": True}, "anyup": {"qk_features": 32}}


@dataclass(frozen=True)
class FrozenConfig:
    """Which features, which upsamplers, and how they are trained."""

    run: RunConfig
    data: DataConfig = field(default=DataConfig())
    backbone: Backbone = "efficientnet-lite0"
    """With its weights of ImageNet, which the extra `efficientnet` brings; or a narrow one with random weights."""
    features_dir: Path | None = field(default=None, metadata=MAY_DIFFER)
    """Where features are kept, for several runs. None: in the run directory."""
    upsamplers: tuple[str, ...] = field(default=(), metadata=MAY_DIFFER)
    """Names of `jaxup.nn.UPSAMPLERS`; none: all."""
    strides: tuple[int, ...] = field(default=(16,), metadata=MAY_DIFFER)
    """Of the maps that are upsampled to stride 4, a table for each: 8, 16 or 32. A map has the coarser ones beside it,
    enlarged bilinearly."""
    seeds: int = field(default=3, metadata=MAY_DIFFER)
    """How many trainings of each, with seeds from `seed` on."""
    width: int = 32
    """Channels to which maps are reduced, linearly, before they are upsampled."""
    batch_size: int = 8
    """Images in a batch."""
    learning_rate: float = 2e-3
    """Of AdamW, after a warm-up of a twentieth of the steps; it falls to zero along a cosine."""
    weight_decay: float = 1e-2
    """Of AdamW."""

    def check(self) -> None:
        """Refuses what cannot be trained."""
        for name in self.upsamplers:
            check_choice("upsamplers", name, UPSAMPLERS)
        for stride in self.strides:
            check_choice("strides", stride, STRIDES[1:])
        for name, value in (("seeds", self.seeds), ("width", self.width), ("batch_size", self.batch_size)):
            if value < 1:
                raise InputError(f"{name}: expected at least 1, got {value}")
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate: expected a number above 0, got {self.learning_rate}")


class Probe(nnx.Module):
    """Linear to `width` channels, the upsampler to stride 4, and linear to classes."""

    def __init__(self, name: str, stride: int, channels: Mapping[int, int], width: int, classes: int, rngs: nnx.Rngs):
        at = STRIDES.index(stride)
        finer, own = STRIDES[:at], STRIDES[at:]
        layer: dict[str, Any] = dict(kernel_init=initializers.lecun_normal(), rngs=rngs)
        self.reduce = nnx.Linear(sum(channels[s] for s in own), width, **layer)
        self.upsample = Upsampling(
            name,
            in_features=width,
            guides=[channels[s] for s in finer],
            scale=stride // _TARGET,
            image_features=3,
            options=_OPTIONS,
            rngs=rngs,
        )
        self.classify = nnx.Linear(width, classes, **layer)
        self.finer, self.own = finer, own

    def __call__(self, maps: Mapping[int, jax.Array], images: jax.Array) -> jax.Array:
        """Logits at stride 4; layers see float32."""
        guides = [maps[s].astype(jnp.float32) for s in self.finer]
        size = maps[self.own[0]].shape[1:3]
        joined = [resize(maps[s].astype(jnp.float32), size=size, method="bilinear") for s in self.own]
        x = self.reduce(jnp.concatenate(joined, axis=-1))
        return self.classify(self.upsample(x, guides, images.astype(jnp.float32) / 255))


class Program(NamedTuple):
    """The compiled training step and evaluation of a row, which all seeds share."""

    step: Any
    evaluate: Any
    bytes: int


def frozen(config: FrozenConfig) -> None:
    """Compare upsamplers on the features of a frozen backbone: a linear probe each, several seeds."""
    config.check()
    run_dir = config.run.run_dir
    open_run(run_dir, config)
    with locked(run_dir):
        _compare(config)


def _compare(config: FrozenConfig) -> None:
    run_dir = config.run.run_dir
    train, test = features(config.data, config.backbone, config.features_dir or run_dir / "features")
    arrays = _on_device(train)
    asked = [(name, stride) for stride in config.strides for name in config.upsamplers or UPSAMPLERS]
    found = for_each(len(asked), lambda n: list(_rows(config, *asked[n], arrays, train, test)))
    rows = [row for each in found for row in each]
    publish(run_dir, rows, _table(rows))


def _on_device(train: Features) -> dict[str, Any]:
    """What training reads, on the device once for all rows: maps, images, and the shares of the classes in cells."""
    return {
        "maps": {stride: jnp.asarray(y) for stride, y in train.maps.items()},
        "images": jnp.asarray(train.images),
        "shares": jnp.asarray(class_shares(train.labels, train.num_classes, _TARGET)),
    }


def _rows(
    config: FrozenConfig, name: str, stride: int, arrays: dict[str, Any], train: Features, test: Features
) -> Iterator[Row]:
    """The results of all seeds; what was trained before is only read."""
    program: Program | None = None
    for seed in range(config.run.seed, config.run.seed + config.seeds):
        path = config.run.run_dir / "rows" / f"{name}-{stride}-{seed}-{config.run.steps}.json"
        if not path.is_file():
            probe = _probe(config, name, stride, train, seed)
            if program is None:
                program = _compiled(config, probe, arrays, train.num_classes)
            row: Row = {"upsampler": name, "stride": stride}
            row |= _trained(config, program, probe, arrays, seed, test)
            print(f"{name}, stride {stride}, seed {seed}: mIoU {row['mIoU']:.4f}, bIoU {row['bIoU']:.4f}, ", end="")
            print(f"{1000 * row['s/step']:.0f} ms a step", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, f"{json.dumps(row)}\n".encode())
        yield json.loads(path.read_text())


def _probe(config: FrozenConfig, name: str, stride: int, train: Features, seed: int) -> Probe:
    channels = {s: y.shape[-1] for s, y in train.maps.items()}
    return Probe(name, stride, channels, config.width, train.num_classes, nnx.Rngs(seed))


def _optimizer(config: FrozenConfig) -> optax.GradientTransformation:
    steps = config.run.steps
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, max(1, steps // 20), max(2, steps))
    return optax.adamw(rate, weight_decay=config.weight_decay)


def _compiled(config: FrozenConfig, probe: Probe, arrays: dict[str, Any], classes: int) -> Program:
    optimizer = _optimizer(config)
    probe.train()
    graph, params, rest = split_model(probe)
    probe.eval()
    evaluation_graph = split_model(probe)[0]

    def loss(params: nnx.State, rest: nnx.State, batch: dict[str, Any]) -> tuple[jax.Array, nnx.State]:
        model = nnx.merge(graph, params, rest, copy=True)
        shares = batch["shares"].astype(jnp.float32)
        scores = jax.nn.log_softmax(model(batch["maps"], batch["images"]))
        return -jnp.sum(shares * scores) / jnp.maximum(jnp.sum(shares), 1), split_model(model)[2]

    def step(state: Any, arrays: dict[str, Any], chosen: jax.Array) -> tuple[Any, jax.Array]:
        params, rest, optimizer_state = state
        batch = jax.tree.map(lambda array: array[chosen], arrays)
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return (optax.apply_updates(params, updates), rest, optimizer_state), value

    def evaluate(params: nnx.State, rest: nnx.State, maps: Any, images: jax.Array, labels: jax.Array) -> Any:
        logits = nnx.merge(evaluation_graph, params, rest, copy=True)(maps, images)
        height, width = labels.shape[1:]
        logits = resize(logits, size=images.shape[1:3], method="bilinear")[:, :height, :width]
        found = jnp.argmax(logits, -1)
        return (
            metrics.confusion_matrix(found, labels, num_classes=classes),
            metrics.boundary_areas(found, labels, num_classes=classes),
        )

    state = params, rest, jax.jit(optimizer.init)(params)
    compiled = jax.jit(step, donate_argnums=0).lower(state, arrays, jnp.zeros(config.batch_size, jnp.int32)).compile()
    memory = compiled.memory_analysis()
    return Program(compiled, jax.jit(evaluate), memory.temp_size_in_bytes if memory else 0)


def _trained(
    config: FrozenConfig, program: Program, probe: Probe, arrays: dict[str, Any], seed: int, test: Features
) -> Row:
    """Trains one probe and scores it."""
    _, params, rest = split_model(probe)
    with jax.numpy_dtype_promotion("standard"):
        state = jax.tree.map(jnp.copy, (params, rest)) + (jax.jit(_optimizer(config).init)(params),)
    order, times, losses = _order(len(arrays["images"]), config, seed), [], []
    for number, chosen in enumerate(order):
        start = time.perf_counter()
        state, value = program.step(state, arrays, chosen)
        losses.append(float(value))
        times.append(time.perf_counter() - start)
        if not math.isfinite(losses[-1]):
            raise InputError(f"{probe.upsample}: the loss of step {number + 1} is {losses[-1]}")
    row: Row = {"seed": seed} | _scores(program, state, test)
    late = losses[-max(1, len(losses) // 10) :]
    row |= {"loss": float(np.mean(late)), "s/step": float(np.median(times)), "MiB": program.bytes / 2**20}
    return row | {"parameters": parameters(probe.upsample)}


def _order(count: int, config: FrozenConfig, seed: int) -> Iterator[np.ndarray]:
    """Batches of numbers of images, shuffled anew each epoch."""
    rng, left = np.random.default_rng(seed), np.zeros(0, np.int32)
    for _ in range(config.run.steps):
        while len(left) < config.batch_size:
            left = np.concatenate([left, rng.permutation(count).astype(np.int32)])
        yield left[: config.batch_size]
        left = left[config.batch_size :]


def _scores(program: Program, state: Any, test: Features) -> Row:
    """Of the test images at their own size."""
    confusion, areas = np.zeros(()), np.zeros(())
    for first in range(0, len(test.labels), 8):
        part = slice(first, first + 8)
        maps = {s: y[part] for s, y in test.maps.items()}
        counts = program.evaluate(state[0], state[1], maps, test.images[part], test.labels[part])
        confusion, areas = confusion + np.asarray(counts[0]), areas + np.asarray(counts[1])
    scores, boundary = metrics.class_scores(confusion), metrics.boundary_iou(areas)
    per_class = [None if np.isnan(value) else float(value) for value in scores["IoU"]]
    means = {name: float(scores[name]) for name in ("mIoU", "mAcc", "aAcc")}
    return means | {"bIoU": float(np.nanmean(boundary)), "IoU": per_class}


def _table(rows: list[Row]) -> str:
    """Means and standard deviations over the seeds, a table for each stride."""
    texts = []
    for stride in dict.fromkeys(row["stride"] for row in rows):
        lines = []
        for name in dict.fromkeys(row["upsampler"] for row in rows):
            found = [row for row in rows if (row["upsampler"], row["stride"]) == (name, stride)]
            line = {"upsampler": name, "guide": UPSAMPLERS[name].guide}
            for score in ("mIoU", "bIoU", "mAcc"):
                values = [100 * row[score] for row in found]
                spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
                line[score] = f"{np.mean(values):.2f}{spread}"
            line |= {"parameters": found[0]["parameters"], "ms/step": 1000 * min(row["s/step"] for row in found)}
            lines.append(line | {"MiB": found[0]["MiB"]})
        seeds = len({row["seed"] for row in rows})
        head = f"Stride {stride} to {_TARGET}, per cent, mean and standard deviation of {seeds} seeds"
        texts.append(f"{head}\n\n{markdown_table(lines, digits=3)}")
    return "\n\n".join(texts)
