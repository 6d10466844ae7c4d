"""Training of one network."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.data.segmentation import IGNORED, Cached
from experiments.data.segmentation_batches import Augmentation, training_batches
from experiments.engine.checkpoint import has_checkpoint
from experiments.engine.config import RunConfig, open_run
from experiments.engine.optim import Decayed
from experiments.engine.train import Loss, fit
from experiments.engine.trained import Trained
from experiments.engine.weights import WeightsConfig
from experiments.segmentation import weights
from experiments.segmentation.data import DataConfig
from experiments.segmentation.networks import DEEPLAB, NetworkConfig, normalised
from jaxup.files import InputError
from jaxup.models.segmentation import class_targets, maskformer_loss
from jaxup.ops import resize

_AUXILIARY = 0.4  # the weight of the loss of auxiliary heads
_NORMED = {"segnet": "encoder", **dict.fromkeys(DEEPLAB, "backbone")}  # what holds the norms that can be fixed


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    run: RunConfig
    network: NetworkConfig = field(default=NetworkConfig())
    data: DataConfig = field(default=DataConfig())
    augmentation: Augmentation = field(default=Augmentation())
    batch_size: int = 16
    """Images in a batch."""
    optimizer: Decayed = field(default=Decayed())
    weights: WeightsConfig = field(default=WeightsConfig())
    fixed_norms: bool = False
    """The norms of segnet's encoder, or of deeplabv2's backbone, keep the statistics that came with its weights, as
    Index Networks and DeepLab's code have it."""
    targets: int | None = None
    """Of maskformer, how many classes of an image its loss has masks for, those with the most pixels; none: all classes
    of the data, each with a mask that may be empty."""

    @property
    def label(self) -> str:
        """What tables call its network."""
        return self.network.label

    def build(self) -> Trained:
        """Its network with the initial weights."""
        return self.trained(len(self.data.open("train").classes))

    def trained(self, classes: int) -> Trained:
        """The same, for so many classes."""
        fixed = (_NORMED[self.network.model],) if self.fixed_norms else ()
        return Trained(self.network.build(classes, self.run.seed), self.run.seed + 1, fixed)

    def check(self) -> None:
        """Refuses what cannot be trained."""
        self.network.check()
        if self.fixed_norms and self.network.model not in _NORMED:
            raise InputError(f"fixed_norms: has no effect on {self.network.model}")
        if self.targets is not None and self.network.model != "maskformer":
            raise InputError(f"targets: has no effect on {self.network.model}")
        if self.targets is not None and self.targets < 1:
            raise InputError(f"targets: expected an integer of at least 1, got {self.targets}")
        if self.fixed_norms and self.weights.backbone_weights is None:
            raise InputError("fixed_norms: expected backbone_weights, whose statistics they keep, or --no-fixed-norms")


def train(config: TrainConfig) -> nnx.Module:
    """Train a network; started again on the same run directory, it goes on where it stopped."""
    config.check()
    source = config.data.open("train")
    network = config.trained(len(source.classes))
    if not has_checkpoint(config.run.run_dir):
        weights.load(config.weights, network.network, config.network)
    open_run(config.run.run_dir, config)
    kept = Cached(source) if config.data.source in ("shapes", "camvid") else source
    batches = training_batches(kept, config.augmentation, batch_size=config.batch_size, seed=config.run.seed)
    loss, optimizer = loss_of(len(source.classes), config.targets), config.optimizer.build(config.run.steps)
    return fit(network, optimizer, loss, batches, config.run)


def loss_of(num_classes: int, targets: int | None = None) -> Loss:
    """The loss of a batch of "image" and "labels": cross entropy of all heads and scales, of MaskFormer that of the
    masks after each layer of its decoder, for `targets` classes of each image."""

    def loss(model: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs = model.outputs(normalised(batch["image"]))
        labels = batch["labels"].astype(jnp.int32)
        if "mask_logits" in outputs:
            classes, masks = class_targets(labels, num_classes=num_classes, targets=targets)
            layers = ({name: outputs[name] for name in ("class_logits", "mask_logits")}, *outputs["layers"])
            value = sum(maskformer_loss(**layer, classes=classes, masks=masks)["loss"] for layer in layers)
            return jnp.asarray(value), {"accuracy": _accuracy(_enlarged(outputs["logits"], labels), labels)}
        logits = _enlarged(outputs["logits"], labels)
        value = cross_entropy(logits, labels)
        if "auxiliary" in outputs:
            value += _AUXILIARY * cross_entropy(_enlarged(outputs["auxiliary"], labels), labels)
        for each in outputs.get("scales", ()):
            value += cross_entropy(_enlarged(each, labels), labels)
        return value, {"accuracy": _accuracy(logits, labels)}

    return loss


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over the pixels that count; 0 where there are none."""
    valid = labels != IGNORED
    chosen = jnp.take_along_axis(logits, jnp.where(valid, labels, 0)[..., None], axis=-1)[..., 0]
    each = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(jnp.where(valid, each, 0)) / _count(valid)


def _enlarged(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return resize(logits.astype(jnp.float32), size=labels.shape[1:], method="bilinear")


def _accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    valid = labels != IGNORED
    return jnp.sum(valid & (jnp.argmax(logits, -1) == labels)).astype(jnp.float32) / _count(valid)


def _count(valid: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
