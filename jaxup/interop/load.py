"""Encoders and upsamplers of features from whatever holds their weights: files, folders, names, and the Hub."""

import difflib
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxup._checks import fail
from jaxup.interop import checkpoint, convert
from jaxup.interop.hub import fetch
from jaxup.interop.modules import is_module_file, load_module
from jaxup.interop.recognise import Tensors, inner, of_config, recognise
from jaxup.models.backbones import BACKBONES, VisionEncoder
from jaxup.nn import JAFAR, NAF, AnyUp, LoftUp, UPLiFT

ENCODERS = {name: dict(options) for name, (build, options) in BACKBONES.items() if build is VisionEncoder}
FEATURE_UPSAMPLERS: dict[str, type[nnx.Module]] = {
    "anyup": AnyUp,
    "uplift": UPLiFT,
    "naf": NAF,
    "jafar": JAFAR,
    "loftup": LoftUp,
}
# Where weights of a name are, if no others are given.
HUB = {
    **{f"dinov2_{s}14": f"hf://facebook/dinov2-{n}" for s, n in (("s", "small"), ("b", "base"), ("l", "large"))},
    **{
        f"dinov2_{s}14_reg": f"hf://facebook/dinov2-with-registers-{n}"
        for s, n in (("s", "small"), ("b", "base"), ("l", "large"))
    },
    **{
        f"dinov3_{name}": f"hf://facebook/dinov3-vit{name}-pretrain-lvd1689m"
        for name in ("s16", "s16plus", "b16", "l16")
    },
    "siglip_b16": "hf://google/siglip-base-patch16-224",
    "clip_b16": "hf://openai/clip-vit-base-patch16",
    "clip_b32": "hf://openai/clip-vit-base-patch32",
    "clip_l14": "hf://openai/clip-vit-large-patch14",
    "uplift": "hf://UPLiFT-upsampler/uplift_dinov2-s14/uplift_dinov2-s14.safetensors",
}
_LARGEST = 2**20  # bytes of a description


def load(
    source: str | Path, *, weights: str | Path | None = None, taps: tuple[int, ...] | None = None, dtype: Any = None
) -> nnx.Module:
    """An encoder or an upsampler of features with its weights, ready for use.

    Args:
        source: a name ("dinov2_s14", "anyup"); a file of weights, official, of Hugging Face, of timm or of
            `save_module`, whose arrays tell what they are of; a folder with Hugging Face's config.json and its weights;
            or "hf://owner/repository" or "hf://owner/repository/file", through huggingface_hub.
        weights: for a name, a file, a folder or hf://... with them; none: where they are published, on the Hub.
        taps: of an encoder, the blocks whose maps it returns; none: the last.
        dtype: the type in which layers compute; none: float32.

    Returns:
        The module in evaluation mode: a `VisionEncoder`, called `module(x)`, or an upsampler, `module(x, guide)`.

    Raises:
        ValueError: an unknown name, weights of something else than the name, a file that is damaged or has no such
            weights, or a package that is needed and not installed.
        OSError: a file cannot be read.

    Example:
        >>> load("dinov2_s14", weights="dinov2_vits14_pretrain.pth").strides  # doctest: +SKIP
        (14,)

    Reference:
        The classes name the papers, https://huggingface.co/docs/huggingface_hub the Hub.
    """
    name = str(source)
    options = {"dtype": jnp.float32 if dtype is None else dtype}
    if name in ENCODERS or name in FEATURE_UPSAMPLERS:
        if weights is None and name not in HUB:
            fail("weights", f"a file of weights of {name}, which no hub has", None)
        module = _read(HUB[name] if weights is None else weights, options)
        _check_name(name, module, weights)
    elif weights is not None:
        _unknown(name)
    else:
        if not name.startswith("hf://") and not Path(name).exists() and not Path(name).suffix and "/" not in name:
            _unknown(name)
        module = _read(source, options)
    if taps is not None and isinstance(module, VisionEncoder):
        _tap(module, taps)
    evaluated: Any = module.eval  # which has no types
    evaluated()
    return module


def _tap(module: VisionEncoder, taps: tuple[int, ...]) -> None:
    depth, width = len(module.blocks), module.embed.out_features
    if not set(taps) <= set(range(depth + 1)):
        fail("taps", f"numbers from 0 to {depth}", taps)
    module.taps, module.features, module.strides = tuple(taps), (width,) * len(taps), (module.patch_size,) * len(taps)


def _unknown(name: str) -> None:
    known = [*ENCODERS, *FEATURE_UPSAMPLERS]
    near = f"{name!r}; did you mean {difflib.get_close_matches(name, known, 1, 0.0)[0]!r}?"
    fail("source", "a file, a folder, hf://owner/repository or one of " + ", ".join(known), near)


def _read(source: str | Path, options: dict[str, Any]) -> nnx.Module:
    path = fetch(str(source)) if str(source).startswith("hf://") else Path(source)
    if path.is_dir():
        config, tensors = _folder(path)
        found = of_config(config) or recognise(tensors)
    else:
        if is_module_file(path):
            return load_module(path)
        tensors = checkpoint.load_checkpoint(path)
        found = None
        try:
            tensors, found = inner(tensors)
        except (LookupError, TypeError, ValueError) as error:  # where it looks for a tensor and its shape
            fail(str(source), "weights of an encoder or upsampler of features", f"{type(error).__name__}: {error}")
    if found is None:
        fail(str(source), "weights of an encoder or upsampler of features", checkpoint.one_line(sorted(tensors)[:3]))
    operator, config = found
    depth = config.get("num_hidden_layers", 0)
    if isinstance(depth, int) and depth > len(tensors):
        fail(str(source), f"no more blocks than the {len(tensors)} arrays", depth)
    used = {key: x for key, x in tensors.items() if operator not in _TOWERS or key.startswith("vision_model.")}
    try:
        return convert.from_torch(operator, used or tensors, config | options)
    except ValueError as error:
        first, *rest = str(error).splitlines()[1:] or [str(error)]
        more = f", and {len(rest)} more differences" if rest else ""
        return fail(str(source), f"the weights of {operator}", f"{first.strip()}{more}")


_TOWERS = {"CLIPVisionModel", "SiglipVisionModel"}


def _folder(path: Path) -> tuple[dict[str, Any], Tensors]:
    """The description and the tensors of a folder as Hugging Face has it."""
    config = _json(path / "config.json") if (path / "config.json").is_file() else {}
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return config, checkpoint.load_checkpoint(path / name)
        if (path / f"{name}.index.json").is_file():
            parts = [checkpoint.load_checkpoint(part) for part in _parts(path / f"{name}.index.json")]
            return config, {key: x for part in parts for key, x in part.items()}
    return fail(str(path), "a folder with model.safetensors or pytorch_model.bin", "neither")


def _parts(index: Path) -> list[Path]:
    """The files of an index, which lie beside it."""
    files = _json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        fail(str(index), "an entry weight_map: the file of each array", checkpoint.one_line(repr(files)))
    there = {path.name: path for path in index.parent.iterdir() if path.is_file()}
    missing = [name for name in map(str, files.values()) if name not in there]
    if missing:
        fail(str(index), "files beside it", checkpoint.one_line(repr(missing[0])))
    return [there[name] for name in sorted(set(map(str, files.values())))]


def _json(path: Path) -> dict[str, Any]:
    text = path.read_bytes()[: _LARGEST + 1]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = error
    return found if isinstance(found, dict) else fail(str(path), "a JSON object", checkpoint.one_line(repr(found)))


def _check_name(name: str, module: nnx.Module, weights: Any) -> None:
    origin = HUB.get(name) if weights is None else str(weights)
    if name in FEATURE_UPSAMPLERS:
        if not isinstance(module, FEATURE_UPSAMPLERS[name]):
            fail(str(origin), f"weights of {name}", f"those of {name_of(module)}")
    elif name_of(module) != name:
        fail(str(origin), f"weights of {name}", f"those of {name_of(module)}")


def name_of(module: nnx.Module) -> str:
    """The name of an encoder or upsampler, or what it is where none of the names fits."""
    if not isinstance(module, VisionEncoder):
        return next((n for n, kind in FEATURE_UPSAMPLERS.items() if type(module) is kind), type(module).__name__)
    for name, options in ENCODERS.items():
        if _signature(**options) == _signature_of(module):
            return name
    blocks, channels, patch = len(module.blocks), module.embed.out_features, module.patch_size
    return f"an encoder of {blocks} blocks, {channels} channels, patches of {patch}"


def _signature(
    *,
    patch_size: int = 14,
    width: int = 384,
    depth: int = 12,
    hidden_features: int = 1536,
    gated: bool = False,
    num_registers: int = 0,
    rotary_base: float | None = None,
    attention_pool: bool = False,
    normed: str = "tokens",
    **_: Any,
) -> tuple[Any, ...]:
    rotary = rotary_base is not None
    return patch_size, width, depth, hidden_features, gated, num_registers, rotary, attention_pool, normed


def _signature_of(module: VisionEncoder) -> tuple[Any, ...]:
    mlp = module.blocks[0].mlp
    return _signature(
        patch_size=module.patch_size,
        width=module.embed.out_features,
        depth=len(module.blocks),
        hidden_features=mlp.expand.out_features,
        gated=mlp.gate is not None,
        num_registers=0 if module.registers is None else module.registers.get_value().shape[0],
        rotary_base=module.rotary_base,
        attention_pool=module.attention_pool is not None,
        normed=module.normed,
    )


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5,) * 3, (0.5,) * 3)


def statistics(encoder: VisionEncoder) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the colours, 0 .. 1, by which images of an encoder are normalised."""
    return _HALF if encoder.attention_pool is not None else _CLIP if encoder.normed == "class" else IMAGENET
