"""Backbones by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flax import nnx

from jaxup._checks import check_choice
from jaxup.models.backbones.densenet import DenseNet
from jaxup.models.backbones.encoders import VisionEncoder
from jaxup.models.backbones.mit import MiT
from jaxup.models.backbones.mobilenet import MobileNetV1
from jaxup.models.backbones.mobilenet_v2 import LITE0_STAGES, MobileNetV2
from jaxup.models.backbones.resnet import ResNet
from jaxup.models.backbones.senet import SENet
from jaxup.models.backbones.swin import Swin
from jaxup.models.backbones.vgg import VGG
from jaxup.models.backbones.vit import ViT

_MIT = (64, 128, 320, 512)
_LITE = dict(stages=LITE0_STAGES, padding="same", momentum=0.99, epsilon=1e-3)
_SMALL: dict[str, Any] = dict(width=384, num_heads=6, hidden_features=1536)
_BASE: dict[str, Any] = dict(width=768, num_heads=12, hidden_features=3072)
_LARGE: dict[str, Any] = dict(width=1024, num_heads=16, hidden_features=4096, depth=24)
_SIZES = {"s": _SMALL, "b": _BASE, "l": _LARGE}
_REGISTERS = dict(num_registers=4, position_resize="bicubic-antialias")
_DINOV3: dict[str, Any] = dict(
    patch_size=16, image_size=16, num_registers=4, rotary_base=100.0, attention_bias="query, value", epsilon=1e-5
)
_TOWER: dict[str, Any] = dict(image_size=224, position_resize="bicubic", layer_scale=False)
_SIGLIP = _TOWER | dict(activation="gelu_tanh", class_token=False, attention_pool=True)
_CLIP = _TOWER | dict(activation="quick_gelu", patch_bias=False, first_norm=True, normed="class", epsilon=1e-5)

BACKBONES: Mapping[str, tuple[Callable[..., nnx.Module], Mapping[str, Any]]] = MappingProxyType(
    {
        **{f"resnet{depth}": (ResNet, dict(depth=depth)) for depth in (18, 34, 50, 101, 152)},
        "senet154": (SENet, {}),
        "densenet161": (DenseNet, {}),
        "vgg16_bn": (VGG, {}),
        "mobilenet_v1": (MobileNetV1, {}),
        "mobilenet_v2": (MobileNetV2, {}),
        "efficientnet_lite0": (MobileNetV2, _LITE),
        "vit_ti": (ViT, dict(width=192, num_heads=3)),
        "vit_s": (ViT, dict(width=384, num_heads=6)),
        "vit_b": (ViT, dict(width=768, num_heads=12)),
        "vit_l": (ViT, dict(width=1024, num_heads=16, depth=24)),
        "mit_b0": (MiT, dict(widths=(32, 64, 160, 256), depths=(2, 2, 2, 2))),
        "mit_b1": (MiT, dict(widths=_MIT, depths=(2, 2, 2, 2))),
        "mit_b2": (MiT, dict(widths=_MIT, depths=(3, 4, 6, 3))),
        "mit_b3": (MiT, dict(widths=_MIT, depths=(3, 4, 18, 3))),
        "mit_b4": (MiT, dict(widths=_MIT, depths=(3, 8, 27, 3))),
        "mit_b5": (MiT, dict(widths=_MIT, depths=(3, 6, 40, 3))),
        "swin_t": (Swin, dict(width=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)),
        "swin_s": (Swin, dict(width=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), window_size=7)),
        "swin_b": (Swin, dict(width=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12)),
        "swin_l": (Swin, dict(width=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12)),
        **{f"dinov2_{name}14": (VisionEncoder, size) for name, size in _SIZES.items()},
        **{f"dinov2_{name}14_reg": (VisionEncoder, size | _REGISTERS) for name, size in _SIZES.items()},
        **{f"dinov3_{name}16": (VisionEncoder, size | _DINOV3) for name, size in _SIZES.items()},
        "dinov3_s16plus": (VisionEncoder, _SMALL | _DINOV3 | dict(gated=True)),
        "siglip_b16": (VisionEncoder, _BASE | _SIGLIP | dict(patch_size=16)),
        "clip_b16": (VisionEncoder, _BASE | _CLIP | dict(patch_size=16)),
        "clip_b32": (VisionEncoder, _BASE | _CLIP | dict(patch_size=32)),
        "clip_l14": (VisionEncoder, _LARGE | _CLIP),
    }
)
"""Backbones of `make_backbone`: their class and its options. Swin-B and -L have the windows of MaskFormer, 12."""


def make_backbone(name: str, *, rngs: nnx.Rngs, **options: Any) -> Any:
    """Build a backbone by name.

    Every backbone is called `maps = backbone(x)` with an image [B, H, W, Cin] of any size, and has the channels
    `backbone.features` and the strides `backbone.strides` of its maps, fine to coarse.

    Args:
        name: a key of `BACKBONES`: "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "senet154",
            "densenet161", "vgg16_bn", "mobilenet_v1", "mobilenet_v2", "efficientnet_lite0", "vit_ti", "vit_s", "vit_b",
            "vit_l", "mit_b0" to "mit_b5", "swin_t", "swin_s", "swin_b", "swin_l", "dinov2_s14", "dinov2_b14",
            "dinov2_l14", each with "_reg", too, "dinov3_s16", "dinov3_s16plus", "dinov3_b16", "dinov3_l16",
            "siglip_b16", "clip_b16", "clip_b32" or "clip_l14".
        options: of the class, in the place of those that belong to the name.
        rngs: source of the initial parameters.

    Returns:
        The backbone, in training mode as any new module.

    Raises:
        ValueError: an unknown name, or a wrong option.

    Example:
        >>> backbone = nnx.eval_shape(lambda: make_backbone("mobilenet_v2", output_stride=8, rngs=nnx.Rngs(0)))
        >>> backbone.features, backbone.strides
        ((16, 24, 32, 96, 320), (2, 4, 8, 8, 8))

    Reference:
        The classes name the papers.
    """
    check_choice("name", name, BACKBONES)
    build, usual = BACKBONES[name]
    return build(**{**usual, **options}, rngs=rngs)
