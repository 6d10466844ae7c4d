"""Vision encoders: against the official codes, their names, any size of image, and attention in parts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup.interop import OPERATORS, from_torch, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.models.backbones import VisionEncoder, make_backbone
from jaxup.models.backbones.encoder_layers import attend_in_parts
from jaxup.models.backbones.layers import attend
from jaxup.ops.steps import resize_in_steps
from tests import goldens
from tests.compare import assert_close
from tests.modules import abstract, random


@pytest.mark.parametrize("case", goldens.cases("encoders/*", quick=("clip_small_hf__80x48",)))
@pytest.mark.first(1, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


NAMES = {
    "dinov2_vits14_official": ("dinov2.DinoVisionTransformer", {}),
    "dinov2_vits14_reg_official": ("dinov2.DinoVisionTransformer", {"num_register_tokens": 4}),
    "dinov2_small_hf": ("Dinov2Model", {"hidden_size": 384, "num_attention_heads": 6}),
    "dinov2_with_registers_small_hf": ("Dinov2WithRegistersModel", {"hidden_size": 384, "num_attention_heads": 6}),
    "dinov2_small_timm": ("vit_small_patch14_dinov2", {}),
    "dinov3_vits16_official": ("dinov3.DinoVisionTransformer", {}),
    "dinov3_vits16_hf": ("DINOv3ViTModel", {"num_register_tokens": 4}),
    "dinov3_vits16plus_timm": ("vit_small_plus_patch16_dinov3", {}),
}


def official(operator, config):
    """A state dict with the right shapes, and the module without arrays."""
    module = nnx.eval_shape(lambda: OPERATORS[operator](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), nnx.state(module)))
    return to_torch(operator, module, config), module


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.first(2)
def test_names_of_published_files(name):
    """All of them, in their shapes; of blocks, those of the first, which the others repeat."""
    published = json.loads((goldens.shared("goldens") / "keymaps/state_dicts.json").read_text())[name]
    ours = {key: list(x.shape) for key, x in official(*NAMES[name])[0].items()}
    repeated = {key: shape for key, shape in ours.items() if not any(f".{i}." in f".{key}" for i in range(1, 12))}
    assert repeated == published
    assert len(ours) - len(repeated) == 11 * sum(".0." in f".{key}" for key in repeated)


@pytest.mark.parametrize("case", goldens.cases("encoders/*_hf__*", quick=("siglip_small_hf__48x80",)))
def test_round_trip(case):
    golden = goldens.load(case)
    operator = golden.meta["operator"].split()[0]
    module = from_torch(operator, golden.params, golden.config)
    back = to_torch(operator, module, golden.config)
    assert back.keys() == golden.params.keys()
    for key, x in back.items():
        np.testing.assert_array_equal(x, 0 * x if key.endswith("mask_token") else golden.params[key], err_msg=key)


def test_towers_without_their_prefix():
    tensors, _ = official("CLIPVisionModel", {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1})
    bare = {key.removeprefix("vision_model."): x for key, x in tensors.items()}
    assert len(bare) == len(tensors) and all(key.startswith("vision_model.") for key in tensors)
    config = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1}
    from_torch("CLIPVisionModel", bare | {"embeddings.position_ids": np.zeros((1, 50))}, config)


def test_gated_widths_of_larger_models():
    """DINOv2 g/14: 2/3 of four times the width, in one layer with the gate; H+ and 7B of DINOv3 are aligned."""
    dinov2 = {"embed_dim": 48, "depth": 1, "num_heads": 2, "ffn_layer": "swiglufused"}
    assert official("dinov2.DinoVisionTransformer", dinov2)[0]["blocks.0.mlp.w12.weight"].shape == (256, 48)
    hub = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "use_swiglu_ffn": True}
    assert official("Dinov2Model", hub)[0]["encoder.layer.0.mlp.weights_in.weight"].shape == (256, 48)
    dinov3 = {"embed_dim": 48, "depth": 1, "num_heads": 2, "ffn_layer": "swiglu64", "ffn_ratio": 3, "qkv_bias": False}
    tensors, _ = official("dinov3.DinoVisionTransformer", dinov3)
    assert tensors["blocks.0.mlp.w1.weight"].shape == (128, 48)
    assert not any(key.endswith(("qkv.bias", "bias_mask")) for key in tensors)


SMALL = dict(patch_size=8, width=12, depth=2, num_heads=3, hidden_features=16, image_size=16)
KINDS = {
    "dinov2": dict(num_registers=2),
    "dinov3": dict(rotary_base=100.0, attention_bias="query, value", gated=True, num_registers=1),
    "siglip": dict(class_token=False, attention_pool=True, layer_scale=False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.first(1)
def test_any_size(kind):
    """Down to one pixel; sides that are no multiples of the patch; maps of any block, and the vector of the image."""

    def run(image):
        encoder = VisionEncoder(**SMALL, **KINDS[kind], taps=(0, 1, 2), rngs=Shapes())
        assert encoder.features == (12,) * 3 and encoder.strides == (8,) * 3
        tokens, maps = encoder.encode(image)
        return encoder.pool(tokens), maps

    for height, width in ((1, 1), (20, 33), (16, 16)):
        pooled, maps = nnx.eval_shape(run, jnp.ones((2, height, width, 3), jnp.bfloat16))
        assert {y.shape for y in maps} == {(2, -(-height // 8), -(-width // 8), 12)}
        assert pooled.shape == (2, 12) and {y.dtype for y in (pooled, *maps)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.thorough
def test_attention_in_parts_is_attention(monkeypatch):
    """Also with its gradients; the last part is not full."""
    x = [random(2, 7, 6) * scale for scale in (1, 2, 3)]
    run = lambda f: jax.vjp(lambda *xs: f(*xs, heads=2), *x)  # noqa: E731
    monkeypatch.setattr("jaxup.models.backbones.encoder_layers._SCORE_BYTES", 4 * 2 * 2 * 7 * 3)
    (out, pull), (expected, other) = run(attend_in_parts), run(attend)
    assert_close(out, expected, 1e-6)
    assert_close(pull(out), other(out), 1e-5)


def test_steps_of_a_resizing():
    """Steps that follow from the sizes give what the sizes do."""
    from jaxup.ops import resize

    x = random(1, 5, 4, 2)
    expected = resize(x, size=(3, 7), method="bicubic", cubic_coefficient=-0.75)
    assert_close(resize_in_steps(jnp.asarray(x), size=(3, 7), steps=(5 / 3, 4 / 7)), expected, 1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(taps=(3,)), r"taps: expected numbers from 0 to 2, got \(3,\)"),
        (dict(position_resize="nearest"), "position_resize: expected one of"),
        (dict(activation="relu"), "activation: expected one of 'gelu', 'gelu_tanh', 'quick_gelu', got 'relu'"),
        (dict(attention_bias="key"), "attention_bias: expected one of"),
        (dict(image_size=20), "patch_size: expected a divisor of image_size = 20, got 8"),
        (dict(num_heads=6, rotary_base=100.0), "width: expected a multiple of 4"),
        (dict(normed="all"), "normed: expected one of"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        abstract(VisionEncoder, **(SMALL | options))


@pytest.mark.thorough
def test_weights_of_another_encoder():
    tensors, _ = official("CLIPVisionModel", {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1})
    with pytest.raises(ValueError, match="cls_token: missing"):
        from_torch("Dinov2Model", tensors, {})
    with pytest.raises(ValueError, match="pool: expected an encoder with a class token"):
        abstract(VisionEncoder, **SMALL, class_token=False).pool(jnp.ones((1, 4, 12)))
    with pytest.raises(ValueError, match="got 'dinov2_s16'"):
        make_backbone("dinov2_s16", rngs=nnx.Rngs(0))
