"""The backbones against the official codes: whole ones with gradients, parts of larger networks by values."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import from_torch, to_torch
from tests import goldens
from tests.golden_cases.converted import part

# The others take a minute together.
QUICK = {"upernet/csail_mobilenetv2__d8"}
WHOLE = [case for kind in ("backbones/*", "vit/*", "upernet/csail_mobilenetv2*") for case in goldens.cases(kind)]


def marked(cases, quick):
    """Those that are not quick are left to the nightly run."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("case", marked(WHOLE, QUICK))
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


def built(case, operator, config, prefix):
    """A part of a network, and its table's tensors."""
    golden = goldens.load(case)
    tensors = part(golden.params, prefix)
    module = from_torch(operator, tensors, config)
    module.train() if golden.config["mode"] == "train" else module.eval()
    return golden, tensors, module


def check_part(case, operator, config, outputs, prefix):
    """The outputs of a part of a network by values: what the rest adds to its gradients is not there."""
    golden, _, module = built(case, operator, config, prefix)
    graph, state = nnx.split(module)
    run = jax.jit(lambda state, x: outputs(nnx.merge(graph, state, copy=True), x))
    found = run(state, jnp.asarray(golden.inputs["x"]))
    goldens.check_values(replace(golden, outputs={name: golden.outputs[name] for name in found}), found)


def stages(module, x, name="c{}"):
    return {name.format(i + 1): y for i, y in enumerate(module(x)[-4:])}


SEGMENTER = {"image_size": (64, 64), "n_layers": 12, "d_model": 384, "n_heads": 6}
MMSEG = {"img_size": 64, "embed_dims": 384, "num_heads": 6}


@pytest.mark.parametrize("case", marked(["40x56_pad", "64x64"], {"40x56_pad"}))
def test_vit_of_segmenter(case):
    outputs = lambda module, x: {"tokens": module.encode(x)[0]}  # noqa: E731
    check_part(f"segmenter/official_linear_vit_s__{case}", "segm.VisionTransformer", SEGMENTER, outputs, "encoder.")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["40x72_resize", "64x64"])
def test_vit_of_mmseg(case):
    outputs = lambda module, x: {"feat": module(x)[-1]}  # noqa: E731
    check_part(f"segmenter/mmseg_fcn_vit_s__{case}", "VisionTransformer", MMSEG, outputs, "backbone.")


HEADS = {"num_layers": (2, 2, 2, 2), "num_heads": (1, 2, 5, 8)}
SEGFORMER = {
    "nv_b0": ("mit_b0", {}, "backbone."),
    "mm_b0": ("MixVisionTransformer", HEADS | {"embed_dims": 32}, "backbone."),
    "mm_b1": ("MixVisionTransformer", HEADS | {"embed_dims": 64}, "backbone."),
    "hf_b0": ("SegformerModel", {}, "segformer."),
    "hf_b1": ("SegformerModel", {"hidden_sizes": (64, 128, 320, 512)}, "segformer."),
}
MIT_CASES = [case.split("/")[1] for case in goldens.cases("segformer/*")]


@pytest.mark.parametrize("case", marked(MIT_CASES, {"mm_b0__32x64_eps"}))
def test_mit(case):
    """The cases "eps" have so small activations that each of the three pairs of epsilons gives other values."""
    operator, config, prefix = SEGFORMER[case.split("__")[0]]
    check_part(f"segformer/{case}", operator, config, stages, prefix)


MASKFORMER = {"resnet__64x96": "ResNetBackbone", "swin__64x64": "MaskFormerSwinBackbone"}


@pytest.mark.parametrize("case", MASKFORMER)
def test_backbones_of_maskformer(case):
    config = goldens.load(f"maskformer/{case}").config["backbone"]
    check_part(f"maskformer/{case}", MASKFORMER[case], config, stages, "model.pixel_level_module.encoder.")


@pytest.mark.slow
@pytest.mark.parametrize("case", goldens.cases("pspnet/*"))
def test_backbones_of_pspnet(case):
    config = goldens.load(case).config
    operator = "ResNetV1c" if config["stem"] == "v1c" else "ResNet"
    check_part(case, operator, config, partial(stages, name="layer{}"), "backbone.")


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


@pytest.mark.parametrize("case", marked(TABLES, {"segformer/mm_b0__32x64_eps"}))
def test_round_trip(case):
    operator, config, prefix = TABLES[case]
    config = goldens.load(case).config["backbone"] if config is None else config
    _, tensors, module = built(case, operator, config, prefix)
    back = to_torch(operator, module, config)
    assert back.keys() == {name for name in tensors if not name.startswith("head.") or "num_classes" in config}
    for name, x in back.items():
        np.testing.assert_array_equal(x, 0 * x if name.startswith("model.layernorm") else tensors[name], err_msg=name)
