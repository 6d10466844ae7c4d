"""Encoders and upsamplers of features by name, from files of any origin, folders, and the Hub without a network."""

import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

import jaxup
from jaxup.interop import OPERATORS, save_module, to_torch
from jaxup.interop.backbones import Shapes
from jaxup.interop.load import ENCODERS, FEATURE_UPSAMPLERS, HUB, name_of, statistics
from jaxup.interop.recognise import recognise
from jaxup.models import make_backbone
from jaxup.nn import NAF
from tests.modules import drawn

save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file

HF = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28, "patch_size": 14}
META = {"embed_dim": 64, "depth": 2, "num_heads": 1, "img_size": 28}
SMALL = {
    "dinov2.DinoVisionTransformer": META | {"num_register_tokens": 3},
    "dinov3.DinoVisionTransformer": META | {"ffn_layer": "swiglu", "ffn_ratio": 3, "patch_size": 16},
    "Dinov2Model": HF,
    "Dinov2WithRegistersModel": HF,
    "DINOv3ViTModel": HF | {"num_register_tokens": 4, "use_gated_mlp": True, "intermediate_size": 96},
    "CLIPVisionModel": HF,
    "SiglipVisionModel": HF,
    "vit_small_patch14_reg4_dinov2": {},
    "vit_small_plus_patch16_dinov3": {},
    "vit_base_patch16_dinov3_qkvb": {},
    "UPLiFT": {"channel": 8, "uplift": {"enc_share": True}},
    "NAF": {"dim": 64, "heads_rope": 4, "img_layers": 1},
    "JAFAR": {"qk_dim": 16, "v_dim": 8},
    "LoftUp": {"dim": 12, "n_freqs": 3, "num_layers": 1},
    "AnyUp": {"qk_dim": 16, "lfu_dim": 8, "kernel_size_lfu": 3},
}


def tensors_of(operator, config):
    """A state dict of zeros, which take no memory."""
    module = nnx.eval_shape(lambda: OPERATORS[operator](config)[0])
    nnx.update(module, jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), nnx.state(module)))
    return to_torch(operator, module, config), module


@pytest.mark.parametrize("operator", SMALL)
@pytest.mark.first(2)
def test_what_a_file_is_of(operator):
    """Its class, and arguments with which all shapes are right."""
    tensors, module = tensors_of(operator, SMALL[operator])
    found, config = recognise(tensors)
    assert found == operator
    again = nnx.eval_shape(lambda: OPERATORS[found](config)[0])
    assert jax.tree.map(np.shape, nnx.state(again)) == jax.tree.map(np.shape, nnx.state(module))
    assert recognise({f"a.{key}": x for key, x in tensors.items()}) is None


@pytest.fixture(scope="module")
def tower():
    """A small CLIP, and its tensors beside those of a text tower."""
    shapes, _ = tensors_of("CLIPVisionModel", HF)
    draw = np.random.default_rng(0).standard_normal
    tensors = {key: draw(x.shape).astype(np.float32) for key, x in shapes.items()}
    return tensors | {"text_model.a": np.zeros(2, np.float32), "logit_scale": np.float32([1])}


def same(module, tensors):
    back = to_torch("CLIPVisionModel", module, HF)
    return all(np.array_equal(x, tensors[key]) for key, x in back.items())


def test_files_and_folders(tmp_path, tower):
    """Of both towers only the one of images; the description of a folder goes before what arrays tell."""
    save_file(tower, tmp_path / "model.safetensors")
    module = jaxup.load(tmp_path / "model.safetensors", taps=(0, 1))
    assert same(module, tower) and module.taps == (0, 1) and module.features == (64, 64)
    assert statistics(module)[0][0] == 0.48145466
    described = {"model_type": "clip", "vision_config": HF | {"hidden_act": "gelu", "num_attention_heads": 2}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    module = jaxup.load(tmp_path)
    assert same(module, tower) and module.num_heads == 2 and module.blocks[0].mlp.activation == "gelu"


def test_a_folder_in_parts(tmp_path, tower):
    keys = sorted(tower)
    parts = {"a.safetensors": keys[:5], "b.safetensors": keys[5:]}
    for name, part in parts.items():
        save_file({key: tower[key] for key in part}, tmp_path / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(jaxup.load(str(tmp_path)), tower)


def test_the_hub(tmp_path, monkeypatch, tower):
    """A file, a folder, and what goes wrong there is one line; nothing is fetched here."""
    save_file(tower, tmp_path / "model.safetensors")
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        if file == "other":
            raise OSError("offline:\n no such file in the cache")
        return str(tmp_path / "model.safetensors")

    hub = SimpleNamespace(hf_hub_download=download, snapshot_download=lambda name, allow_patterns: str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert same(jaxup.load("hf://some/where/in/model.safetensors"), tower)
    assert same(jaxup.load("hf://some/where"), tower)
    assert asked == [("some/where", "in/model.safetensors")]
    with pytest.raises(ValueError, match="got OSError: offline: no such file in the cache"):
        jaxup.load("hf://some/where/other")
    with pytest.raises(ValueError, match="hf://facebook/dinov2-small: expected weights of dinov2_s14, got those of an"):
        jaxup.load("dinov2_s14")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'hf://a/b: expected huggingface_hub installed: pip install "jaxup\[hub\]"'):
        jaxup.load("hf://a/b")
    with pytest.raises(ValueError, match="source: expected hf://owner/repository"):
        jaxup.load("hf://a")


def test_files_of_save_module(tmp_path):
    options = dict(features=16, kernel_size=3, depth=1)
    save_module(tmp_path / "naf.safetensors", drawn(NAF, **options)[0], options)
    assert isinstance(jaxup.load("naf", weights=tmp_path / "naf.safetensors"), NAF)
    with pytest.raises(ValueError, match=r"naf.safetensors: expected weights of jafar, got those of naf"):
        jaxup.load("jafar", weights=tmp_path / "naf.safetensors")


@pytest.mark.parametrize(
    "content, message",
    [
        ({"a.weight": np.zeros(2, np.float32)}, "expected weights of an encoder or upsampler of features, got"),
        ({"patch_embed.proj.weight": np.zeros(2, np.float32)}, "expected weights of an encoder or upsampler"),
        (
            {"patch_embed.proj.weight": np.zeros((384, 3, 14, 14), np.float32)},
            "expected the weights of vit_small_patch14",
        ),
        ({"sft_key.gamma.weight": np.zeros(2, np.float32)}, "expected weights of an encoder or upsampler"),
    ],
)
def test_other_files(tmp_path, content, message):
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message) as raised:
        jaxup.load(tmp_path / "a.safetensors")
    assert "\n" not in str(raised.value)


def test_errors(tmp_path, tower):
    with pytest.raises(ValueError, match="got 'dinov2_s16'; did you mean 'dinov3_s16'"):
        jaxup.load("dinov2_s16")
    with pytest.raises(ValueError, match="did you mean 'anyup'"):
        jaxup.load("any_up", weights="a.safetensors")
    with pytest.raises(ValueError, match="weights: expected a file of weights of anyup, which no hub has, got None"):
        jaxup.load("anyup")
    with pytest.raises(FileNotFoundError):
        jaxup.load("none.safetensors")
    with pytest.raises(ValueError, match=r"expected a folder with model.safetensors or pytorch_model.bin, got neither"):
        jaxup.load(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config.json: expected a JSON object, got \[1\]"):
        jaxup.load(tmp_path)
    save_file(tower, tmp_path / "tower.safetensors")
    with pytest.raises(ValueError, match=r"taps: expected numbers from 0 to 1, got \(2,\)"):
        jaxup.load(tmp_path / "tower.safetensors", taps=(2,))


@pytest.mark.thorough
def test_names():
    """Every name is that of its own encoder, and of no other."""
    for name in ("dinov2_s14", "dinov2_s14_reg", "dinov3_s16", "dinov3_s16plus", "siglip_b16", "clip_b32"):
        assert name_of(nnx.eval_shape(lambda name=name: make_backbone(name, rngs=Shapes()))) == name
    assert set(HUB) <= {*ENCODERS, *FEATURE_UPSAMPLERS}
