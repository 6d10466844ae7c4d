"""Whole networks of mmsegmentation and of CSAILVision: names, sizes, and the parts that are checked by values."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.interop.keys import flat_variables
from tests import goldens

RESNET = {"type": "ResNetV1c", "depth": 18, "dilations": (1, 1, 2, 4), "contract_dilation": True}
HEAD, AUXILIARY = {"num_classes": 4, "channels": 32}, {"channels": 16}


def shapes(operator, config):
    """The names and shapes of a state dict."""
    module = nnx.eval_shape(lambda: OPERATORS[operator](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), nnx.state(module)))
    return {name: x.shape for name, x in to_torch(operator, module, config).items()}


@pytest.mark.thorough
def test_pspnet():
    """The nested config of mmsegmentation gives what the flat one does, which the golden vectors check."""
    golden = goldens.load("pspnet/v1c_r18_c32__64x64_train")
    nested = {"backbone": RESNET, "decode_head": HEAD, "auxiliary_head": AUXILIARY}
    found, expected = (
        flat_variables(from_torch(operator, golden.params, config))
        for operator, config in (("mmseg.PSPNet", nested), ("PSPNet", golden.config))
    )
    assert found.keys() == expected.keys()
    for path, x in found.items():
        np.testing.assert_array_equal(x[...], expected[path][...], err_msg=path)
    with pytest.raises(ValueError, match=r"auxiliary_head.convs.0.conv.weight: unexpected"):
        from_torch("mmseg.PSPNet", golden.params, nested | {"auxiliary_head": None})


@pytest.mark.thorough
def test_upernet():
    """The head's names and shapes are those of the head by itself, and of all the 66.52 M parameters of ResNet-50's."""
    backbone = {"type": "ResNetV1c", "depth": 50}
    config = {"backbone": backbone, "decode_head": {"num_classes": 150}, "auxiliary_head": {"in_index": 2}}
    found = shapes("mmseg.UPerNet", config)
    alone = shapes("UPerHead", {"in_channels": (256, 512, 1024, 2048), "num_classes": 150})
    assert {f"decode_head.{name}": shape for name, shape in alone.items()}.items() <= found.items()
    assert found["auxiliary_head.convs.0.conv.weight"] == (256, 1024, 3, 3)
    assert found["backbone.layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    parameters = sum(np.prod(shape) for name, shape in found.items() if "running" not in name)
    assert parameters == 66_516_108


@pytest.mark.thorough
def test_semantic_fpn():
    config = {"backbone": {"type": "MixVisionTransformer", "num_heads": (1, 2, 5, 8), "num_layers": (1,) * 4}}
    config |= {"neck": {"out_channels": 16}, "decode_head": {"num_classes": 4, "channels": 8}}
    found = shapes("mmseg.SemanticFPN", config)
    neck = shapes("FPN", {"in_channels": (64, 128, 320, 512), "out_channels": 16, "num_outs": 4})
    head = shapes("FPNHead", {"in_channels": (16,) * 4, "num_classes": 4, "channels": 8})
    expected = {f"neck.{k}": v for k, v in neck.items()} | {f"decode_head.{k}": v for k, v in head.items()}
    assert {k: v for k, v in found.items() if not k.startswith("backbone.layers.")} == expected


@pytest.mark.thorough
def test_upernet_of_csail():
    """Encoder and decoder; the stem has three convolutions to 64, 64 and 128 channels."""
    found = shapes("SegmentationModule", {"encoder": "resnet18", "decoder": {"fpn_dim": 16, "num_class": 5}})
    alone = shapes("UPerNet", {"fpn_inplanes": (64, 128, 256, 512), "fpn_dim": 16, "num_class": 5})
    assert {f"decoder.{name}": shape for name, shape in alone.items()}.items() <= found.items()
    assert [found[f"encoder.conv{i}.weight"] for i in (1, 2, 3)] == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert found["encoder.bn3.running_var"] == (128,)
    assert found["encoder.layer1.0.downsample.0.weight"] == (64, 128, 1, 1)


def test_errors():
    config = {"backbone": RESNET, "decode_head": HEAD}
    with pytest.raises(ValueError, match="backbone type: expected one of 'ResNet', 'ResNetV1c'"):
        from_torch("mmseg.UPerNet", {}, config | {"backbone": {"type": "ConvNeXt"}})
    with pytest.raises(ValueError, match=r"auxiliary_head: expected .* got {'num_convs': 2}"):
        from_torch("mmseg.PSPNet", {}, config | {"auxiliary_head": {"num_convs": 2}})
    with pytest.raises(ValueError, match="encoder: expected one of 'resnet18'"):
        from_torch("SegmentationModule", {}, {"encoder": "hrnetv2", "decoder": {}})
