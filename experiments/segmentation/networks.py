"""Which network, and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.engine import runs
from jaxup._checks import check_choice
from jaxup.files import InputError
from jaxup.models import segmentation
from jaxup.models.backbones import MiT, ResNet

DEEPLAB = {
    "deeplabv2": "bilinear",
    "deeplabv2-crf": "bilinear",
    "deeplabv2-dgf": "dgf",
    "deeplabv2-fdkn": "fdkn",
}
"""The rows of DKN's Table 6, and what enlarges the logits of each; a CRF comes after the network, in evaluation."""
NETWORKS: Mapping[str, Callable[..., Any]] = {
    "segformer": segmentation.SegFormer,
    "segmenter": segmentation.Segmenter,
    "pspnet": segmentation.PSPNet,
    "semantic-fpn": segmentation.SemanticFPN,
    "upernet": segmentation.UperNet,
    "segnet": segmentation.SegNet,
    "maskformer": segmentation.MaskFormer,
    "transunet": segmentation.TransUNet,
    **dict.fromkeys(DEEPLAB, segmentation.DeepLabV2),
}
_WITHOUT_BACKBONE = ("segnet", "transunet")
_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "segformer"
    """segformer, segmenter, pspnet, semantic-fpn, upernet, segnet, maskformer, transunet; deeplabv2, the same with a
    deep guided filter or FDKN on its logits, deeplabv2-dgf and -fdkn, or tested with a dense CRF, deeplabv2-crf."""
    backbone: str | None = None
    """mit_b0 to mit_b5 for segformer; vit_ti, vit_s, vit_b, vit_l for segmenter; swin_t to swin_l or resnet50 for
    maskformer; resnet18 to resnet101 or mobilenet_v2 for the others, but segnet and transunet, which have theirs; a
    resnet for deeplabv2. None: mit_b0, vit_s, swin_t, resnet50, resnet101. tiny: a SegFormer or DeepLab for tests."""
    upsampler: str | None = None
    """A name of `jaxup.nn.UPSAMPLERS`, of segnet max-unpool, carafe, or a family of index networks; None: what the
    network is published with."""
    fusion_upsampler: str | None = None
    """Of upernet, where its levels are fused; None: as `upsampler`."""

    def check(self) -> None:
        """Refuses what is not there."""
        check_choice("model", self.model, NETWORKS)
        if self.backbone is not None and self.model in _WITHOUT_BACKBONE:
            raise InputError(f"backbone: has no effect on {self.model}")
        if self.upsampler is not None and self.model in DEEPLAB:
            raise InputError(f"upsampler: has no effect on {self.model}, there are {', '.join(DEEPLAB)}")
        if self.fusion_upsampler is not None and self.model != "upernet":
            raise InputError(f"fusion_upsampler: has no effect on {self.model}")

    def build(self, num_classes: int, seed: int) -> Any:
        """The network with its initial weights."""
        self.check()
        rngs, options = nnx.Rngs(seed), dict[str, Any]()
        if self.backbone == "tiny" and self.model == "segformer":
            options = {"backbone": _tiny(rngs), "features": 16}
        elif self.backbone == "tiny" and self.model in DEEPLAB:
            options = {"backbone": _tiny_resnet(rngs), "dilations": (1, 2)}
        elif self.backbone is not None:
            options = {"backbone": self.backbone}
        if self.model == "segnet":
            options["decoder"] = "reduce_first"  # as Index Networks has it
        if self.model in DEEPLAB:
            options["upsampler"] = DEEPLAB[self.model]
        chosen = {"upsampler": self.upsampler, "fusion_upsampler": self.fusion_upsampler}
        options |= {key: value for key, value in chosen.items() if value is not None}
        return NETWORKS[self.model](num_classes, **options, rngs=rngs)

    @property
    def label(self) -> str:
        """What tables call it."""
        parts = (self.model, self.backbone, self.upsampler, self.fusion_upsampler)
        return ", ".join(part for part in parts if part is not None)


def _tiny(rngs: nnx.Rngs) -> MiT:
    return MiT(widths=(8, 8, 10, 16), depths=(1, 1, 1, 1), embed_epsilon=1e-6, rngs=rngs)


def _tiny_resnet(rngs: nnx.Rngs) -> ResNet:
    sizes: dict[str, Any] = dict(depth=(1, 1, 1, 1), bottleneck=True, widths=(8, 8, 16, 16), stem_features=8)
    return ResNet(**sizes, output_stride=8, contract_dilation=False, style="caffe", rngs=rngs)


def normalised(images: jax.Array) -> jax.Array:
    """Colours of 0 to 255 with the mean and deviation of ImageNet, float32."""
    mean, deviation = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (_MEAN, _DEVIATION))
    return (jnp.asarray(images).astype(jnp.float32) - mean) / deviation


def halved(images: jax.Array) -> jax.Array:
    """Colours of 0 to 255 as -1 to 1, float32: what Segmenter's checkpoints were trained with."""
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1


def centred(images: jax.Array) -> jax.Array:
    """Colours of 0 to 255 minus their mean, float32: what checkpoints of DeepLab-v2 were trained with."""
    mean = jnp.asarray((122.675, 116.669, 104.008), jnp.float32).reshape(1, 1, 1, 3)
    return jnp.asarray(images).astype(jnp.float32) - mean


def costs(config: NetworkConfig, num_classes: int, size: tuple[int, int]) -> dict[str, Any]:
    """Parameters in millions, and 10^9 multiply-adds for an image of this size: see `runs.costs`."""
    parameters, multiply_adds = runs.costs(lambda: config.build(num_classes, 0), (1, *size, 3))
    return {"params (M)": parameters / 1e6, "GMACs": multiply_adds / 1e9}
