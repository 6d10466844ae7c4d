"""Swin by all its namings: the same weights give the same module, whatever they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.interop.keys import flat_variables
from jaxup.models.backbones import Swin

SIZES = {"depths": (1, 2), "num_heads": (1, 2), "window_size": 3}
HUGGING_FACE, MMSEG = SIZES | {"embed_dim": 4}, SIZES | {"embed_dims": 4}


@pytest.fixture(scope="module")
def swin():
    """With other values in every array."""
    module = Swin(width=4, **SIZES, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), nnx.state(module))
    nnx.update(module, state)
    return module


def assert_same(found, expected):
    found, expected = flat_variables(found), flat_variables(expected)
    assert found.keys() == expected.keys()
    for path, x in found.items():
        np.testing.assert_array_equal(x[...], expected[path][...], err_msg=path)


def joined(tensors, query):
    """Queries, keys and values in one tensor, in the place of the queries."""
    parts = [tensors[query.replace("query", name)] for name in ("query", "key", "value")]
    return np.concatenate(parts)


def renamed(tensors, pairs, qkv):
    """Hugging Face's tensors by other names, in the order of the replacements."""
    found = {}
    for key, x in tensors.items():
        if ".key." in key or ".value." in key:
            continue
        x = joined(tensors, key) if ".query." in key else x
        for old, new in (*pairs, ("attention.self.query", qkv)):
            key = key.replace(old, new)
        found[key] = x
    return found


COMMON = [("encoder.", ""), ("embeddings.norm", "patch_embed.norm"), ("layernorm_before", "norm1")]
COMMON += [
    ("layernorm_after", "norm2"),
    ("hidden_states_norms.stage1", "norm0"),
    ("hidden_states_norms.stage2", "norm1"),
]
MICROSOFT = [
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    *COMMON,
    ("attention.output.dense", "attn.proj"),
    ("output.dense", "mlp.fc2"),
    ("intermediate.dense", "mlp.fc1"),
    ("attention.self.rel", "attn.rel"),
]
OF_MMSEG = [
    ("embeddings.patch_embeddings.projection", "patch_embed.projection"),
    *COMMON,
    ("layers.", "stages."),
    ("attention.output.dense", "attn.w_msa.proj"),
    ("output.dense", "ffn.layers.1"),
    ("intermediate.dense", "ffn.layers.0.0"),
    ("attention.self.rel", "attn.w_msa.rel"),
]


@pytest.mark.thorough
def test_hugging_face(swin):
    """MaskFormer's names differ in a prefix, the counting of norms, and a norm that nothing uses."""
    tensors = to_torch("SwinBackbone", swin, HUGGING_FACE)
    assert_same(from_torch("SwinBackbone", tensors, HUGGING_FACE), swin)
    inside = {f"model.{key}": x for key, x in tensors.items() if not key.startswith("hidden")}
    norms = {key.replace("stage1", "0").replace("stage2", "1"): x for key, x in tensors.items() if "stage" in key}
    unused = {f"model.layernorm.{n}": np.zeros(8, np.float32) for n in ("weight", "bias")}
    assert_same(from_torch("MaskFormerSwinBackbone", inside | norms | unused, HUGGING_FACE), swin)


def test_microsoft(swin):
    """Segmentation code, with buffers that nothing reads, also under the name of a network's backbone."""
    tensors = renamed(to_torch("SwinBackbone", swin, HUGGING_FACE), MICROSOFT, "attn.qkv")
    buffers = {f"layers.1.blocks.1.attn{name}": np.zeros((4, 9, 9)) for name in (".relative_position_index", "_mask")}
    assert_same(from_torch("SwinTransformer", tensors | buffers, MMSEG), swin)
    assert_same(from_torch("SwinTransformer", {f"backbone.{key}": x for key, x in tensors.items()}, MMSEG), swin)


@pytest.mark.thorough
def test_mmsegmentation(swin):
    """Its merging takes the pixels of a window as `torch.nn.Unfold` does: channel by channel, row by row."""
    tensors = renamed(to_torch("SwinBackbone", swin, HUGGING_FACE), OF_MMSEG, "attn.w_msa.qkv")
    rng = np.random.default_rng(1)
    scale, bias, weight = rng.normal(size=16), rng.normal(size=16), rng.normal(size=(8, 16))
    merge = {"norm.weight": scale, "norm.bias": bias, "reduction.weight": weight}
    tensors |= {f"stages.0.downsample.{key}": x.astype(np.float32) for key, x in merge.items()}
    found = from_torch("SwinTransformer", tensors, MMSEG)
    x = rng.normal(size=(1, 4, 6, 4)).astype(np.float32)
    unfolded = x.reshape(1, 2, 2, 3, 2, 4).transpose(0, 1, 3, 5, 2, 4).reshape(1, 2, 3, 16)
    centred = unfolded - unfolded.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias
    np.testing.assert_allclose(found.merges[0](x), normal @ weight.T, rtol=1e-4, atol=1e-4)
    back = to_torch("SwinTransformer", found, MMSEG)
    assert back.keys() == tensors.keys()
    for key, x in back.items():
        np.testing.assert_array_equal(x, tensors[key], err_msg=key)


@pytest.mark.slow
def test_classifiers():
    """Microsoft's and timm's have one norm; the places of the merging tell them apart."""
    name = "swin_tiny_patch4_window7_224"
    module, microsoft, timm = nnx.eval_shape(lambda: OPERATORS[name]({})[0]), *OPERATORS[name]({})[1:]
    assert [norm is None for norm in module.norms] == [True, True, True, False]
    assert sum(x.size for x in jax.tree.leaves(nnx.state(module))) == 28_288_354 - 769_000
    assert "layers.0.downsample.norm.weight" in microsoft and "layers.0.downsample.norm.weight" not in timm
    assert "layers.3.downsample.reduction.weight" in timm and {"head.weight", "norm.bias"} <= microsoft.keys()


@pytest.mark.slow
def test_one_window_is_not_shifted():
    """By Microsoft's classifiers and by Hugging Face's UperNet, else always; larger maps are alike."""
    always, large_only = (
        Swin(width=4, depths=(2,), num_heads=(1,), window_size=3, shift_one_window=shift, rngs=nnx.Rngs(0))
        for shift in (True, False)
    )
    for sides, same in (((12, 24), False), ((16, 24), True)):
        x = np.random.default_rng(0).normal(size=(1, *sides, 3)).astype(np.float32)
        assert np.allclose(always(x)[0], large_only(x)[0], atol=1e-5) == same


@pytest.mark.thorough
def test_upernet_of_hugging_face():
    """Backbone, head and auxiliary head, with the names of each by itself."""
    swin = {"embed_dim": 2, "depths": (1,) * 4, "num_heads": (1,) * 4, "window_size": 2}
    config = {"num_labels": 3, "hidden_size": 8, "pool_scales": (1, 2)}
    head = config | {"in_channels": (2, 4, 8, 16), "auxiliary": {"channels": 5}}
    config |= {"backbone_config": swin, "auxiliary_channels": 5}
    of_backbone, of_head = OPERATORS["SwinBackbone"](swin)[1], OPERATORS["UperNetHead"](head)[1]
    module, table = OPERATORS["UperNetForSemanticSegmentation"](config)
    assert table.keys() == {f"backbone.{key}" for key in of_backbone} | of_head.keys()
    tensors = to_torch("UperNetForSemanticSegmentation", module, config)
    assert_same(from_torch("UperNetForSemanticSegmentation", tensors, config), module)
    module.eval()
    shape = nnx.eval_shape(lambda x: module.outputs(x), jnp.ones((1, 33, 20, 3)))
    assert shape["logits"].shape == (1, 9, 5, 3) and shape["auxiliary"].shape == (1, 3, 2, 3)
    with pytest.raises(ValueError, match="model_type: expected one of 'swin', got 'convnext'"):
        from_torch("UperNetForSemanticSegmentation", {}, {"backbone_config": {"model_type": "convnext"}})


@pytest.mark.thorough
def test_upernet_of_mmsegmentation():
    backbone = MMSEG | {"type": "SwinTransformer", "depths": (1,) * 4, "num_heads": (1,) * 4}
    keys = OPERATORS["mmseg.UPerNet"]({"backbone": backbone, "decode_head": {"num_classes": 3, "channels": 8}})[
        1
    ].keys()
    assert {"backbone.stages.3.blocks.0.attn.w_msa.qkv.weight", "backbone.norm3.weight"} <= keys
    assert "decode_head.conv_seg.bias" in keys
