"""Networks that predict masks, MaskFormer and its loss; and TransUNet."""

import jax.numpy as jnp

from jaxup.models.segmentation import maskformer_loss, match_targets
from tests.golden_cases.converted import Function, build, with_statistics


def maskformer(inputs, params, config):
    name = "MaskFormerForInstanceSegmentation"
    module = build(name, params, config)
    outputs = module.outputs(inputs["x"])
    features = {f"c{i + 1}": y for i, y in enumerate(outputs["features"])}
    found = features | {
        "pixel": outputs["pixels"],
        "queries": outputs["queries"],
        "class_queries_logits": outputs["class_logits"],
        "masks_queries_logits": outputs["mask_logits"],
    }
    return with_statistics(found, name, module, config)


def loss(inputs, params, config):
    """Targets of different numbers, filled up to the largest one; a match lists its queries in their order."""
    logits = inputs["class_logits"], inputs["mask_logits"]
    images = range(len(logits[0]))
    counts = [len(inputs[f"class_labels{i}"]) for i in images]
    missing = [max(counts) - n for n in counts]
    classes = [jnp.pad(inputs[f"class_labels{i}"], (0, missing[i]), constant_values=-1) for i in images]
    masks = [jnp.pad(inputs[f"mask_labels{i}"].transpose(1, 2, 0), ((0, 0), (0, 0), (0, missing[i]))) for i in images]
    targets = jnp.stack(classes), jnp.stack(masks)
    queries = match_targets(*logits, *targets, **{f"{k}_cost": config[f"cost_{k}"] for k in ("class", "mask", "dice")})
    weights = config["weights"]
    losses = maskformer_loss(
        *logits,
        *targets,
        class_weight=weights["loss_cross_entropy"],
        mask_weight=weights["loss_mask"],
        dice_weight=weights["loss_dice"],
        none_weight=config["eos_coef"],
    )
    names = {"loss": "loss", "cross_entropy": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
    found = {names[k]: y.reshape(1) for k, y in losses.items()}
    for i, n in enumerate(counts):
        order = jnp.argsort(queries[i, :n])
        found[f"match{i}"] = jnp.stack([queries[i, order], order])
    return found


def transunet(inputs, params, config):
    module = build("TransUNet", params, config)
    outputs = module.outputs(inputs["x"])
    skips = {f"skip{i}": y for i, y in enumerate(outputs["features"])}
    found = {"tokens": outputs["tokens"], "logits": outputs["logits"]} | skips
    return with_statistics(found, "TransUNet", module, config)


OPERATORS: dict[str, Function] = {
    "MaskFormerForInstanceSegmentation": maskformer,
    "MaskFormerLoss": loss,
    "TransUNet": transunet,
}
