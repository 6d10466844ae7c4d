"""Vision encoders under their official names, those of Hugging Face and those of timm."""

import jax.numpy as jnp

from tests.golden_cases.converted import Function, build


def official(operator: str, tables: bool = False) -> Function:
    """Meta's code: normalised tokens, and maps of the blocks with the indices 2, 5 and 8."""

    def run(inputs, params, config):
        module = build(operator, params, config)
        hidden, grid = module.hidden(inputs["x"])
        found = {f"block{i}_normed": module.patches(hidden[i + 1], grid) for i in (2, 8)}
        tokens = module.normalised(hidden[-1])
        found |= {"patches": module.patches(hidden[-1], grid), "cls": tokens[:, 0], "prenorm": hidden[-1]}
        found |= {"block5_raw": module.patches(hidden[6], grid, raw=True)}
        if tables:
            sin, cos = (jnp.tile(t, (1, 2)) for t in module.rotation(grid))
            found |= {"registers": tokens[:, 1:5], "rope_sin": sin, "rope_cos": cos}
        return _as_inputs(found, inputs)

    return run


def timm(inputs, params, config):
    module = build(config["arch"], params, config)
    hidden, grid = module.hidden(inputs["x"])
    prefix = module.normalised(hidden[-1])[:, : hidden[-1].shape[1] - grid[0] * grid[1]]
    found = {"patches": module.patches(hidden[-1], grid), "prefix": prefix}
    return _as_inputs(found | {"block5_raw": module.patches(hidden[6], grid, raw=True)}, inputs)


def hugging_face(operator: str) -> Function:
    """Its hidden states are those without the last norm; of CLIP, the last one, too."""

    def run(inputs, params, config):
        module = build(operator, params, config)
        hidden, _ = module.hidden(inputs["x"])
        depth = len(module.blocks)
        last, (patches,) = module.encode(inputs["x"])
        found = {"last_hidden_state": last, "patches": patches, "embeddings": hidden[0]}
        found |= {f"hidden{n}": hidden[n] for n in (depth // 2, depth)}
        return _as_inputs(found | {"pooler_output": module.pool(last)}, inputs)

    return run


def _as_inputs(found, inputs):
    return {name: y.astype(inputs["x"].dtype) for name, y in found.items()}


HUGGING_FACE = (
    "CLIPVisionModel",
    "DINOv3ViTModel",
    "Dinov2Model",
    "Dinov2WithRegistersModel",
    "SiglipVisionModel",
)

OPERATORS: dict[str, Function] = {
    "DINOv2 ViT-S/14 (official names)": official("dinov2.DinoVisionTransformer"),
    "DINOv3 ViT-S/16 (official names)": official("dinov3.DinoVisionTransformer", tables=True),
    **{f"{name} (Hugging Face hub names)": hugging_face(name) for name in HUGGING_FACE},
    "timm vit_small_patch14_dinov2": timm,
    "timm vit_small_plus_patch16_dinov3": timm,
}
