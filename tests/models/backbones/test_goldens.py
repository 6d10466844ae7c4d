"""The backbones against the official codes, and their tables both ways; whole networks are in their own tests."""

import numpy as np
import pytest

from jaxup.interop import from_torch, to_torch
from tests import goldens
from tests.golden_cases.converted import part
from tests.registry.examples import marked

NIGHTLY = {"backbones/mobilenet_v2__96x96_train"}
WHOLE = [case for kind in ("backbones/*", "vit/*", "upernet/csail_mobilenetv2*") for case in goldens.cases(kind)]


@pytest.mark.thorough
@pytest.mark.parametrize("case", marked(WHOLE, set(WHOLE) - NIGHTLY, NIGHTLY))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


def built(case, operator, config, prefix):
    """A part of a network, and its table's tensors."""
    golden = goldens.load(case)
    tensors = part(golden.params, prefix)
    module = from_torch(operator, tensors, config)
    module.train() if golden.config["mode"] == "train" else module.eval()
    return golden, tensors, module


SEGMENTER = {"image_size": (64, 64), "n_layers": 12, "d_model": 384, "n_heads": 6}
MMSEG = {"img_size": 64, "embed_dims": 384, "num_heads": 6}


HEADS = {"num_layers": (2, 2, 2, 2), "num_heads": (1, 2, 5, 8)}
SEGFORMER = {
    "nv_b0": ("mit_b0", {}, "backbone."),
    "mm_b0": ("MixVisionTransformer", HEADS | {"embed_dims": 32}, "backbone."),
    "mm_b1": ("MixVisionTransformer", HEADS | {"embed_dims": 64}, "backbone."),
    "hf_b0": ("SegformerModel", {}, "segformer."),
    "hf_b1": ("SegformerModel", {"hidden_sizes": (64, 128, 320, 512)}, "segformer."),
}
MASKFORMER = {"resnet__64x96": "ResNetBackbone", "swin__64x64": "MaskFormerSwinBackbone"}


# Every table once; the networks are cut where the official arguments allow it.
TABLES = {
    "backbones/resnet18__64x64": ("resnet18", {"num_classes": 5}, ""),
    "pspnet/v1c_r18_c32__64x64_train": ("ResNetV1c", {"depth": 18, "dilations": (1, 1, 2, 4)}, "backbone."),
    "backbones/vgg16_bn__64x64": ("vgg16_bn", {}, ""),
    "backbones/mobilenet_v2__64x64": ("mobilenet_v2", {"num_classes": 5}, ""),
    "backbones/timm_mobilenetv2_100__64x64": ("mobilenetv2_100", {"num_classes": 5}, ""),
    "upernet/csail_mobilenetv2__d8": ("MobileNetV2Dilated", {}, ""),
    "vit/timm_ti__64x64": ("vit_tiny_patch16_224", {"img_size": 64, "num_classes": 7}, ""),
    "segmenter/official_linear_vit_s__64x64": ("segm.VisionTransformer", SEGMENTER, "encoder."),
    "segmenter/mmseg_fcn_vit_s__64x64": ("VisionTransformer", MMSEG, "backbone."),
    **{f"segformer/{name}__32x64_eps": SEGFORMER[name] for name in ("nv_b0", "mm_b0", "hf_b0")},
    **{f"maskformer/{case}": (name, None, "model.pixel_level_module.encoder.") for case, name in MASKFORMER.items()},
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", marked(TABLES, {"segformer/mm_b0__32x64_eps"}))
def test_round_trip(case):
    operator, config, prefix = TABLES[case]
    config = goldens.load(case).config["backbone"] if config is None else config
    _, tensors, module = built(case, operator, config, prefix)
    back = to_torch(operator, module, config)
    assert back.keys() == {name for name in tensors if not name.startswith("head.") or "num_classes" in config}
    for name, x in back.items():
        np.testing.assert_array_equal(x, 0 * x if name.startswith("model.layernorm") else tensors[name], err_msg=name)
