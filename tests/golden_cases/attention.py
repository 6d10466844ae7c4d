"""Attention-based upsampling, and AnyUp."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from jaxup import ops
from jaxup.ops.window_attend import window_bounds
from tests.golden_cases.converted import Function, build, converted


def attention(inputs, params, config):
    query, key, value = inputs["q"], inputs["k"], inputs["v"]
    scale, heads = config["scale"], config["heads"]
    if config["form"] == "self":
        query = ops.resize(query, scale=scale, method="bilinear")
    positions = (params["px"], params["py"]) if "px" in params else None
    attend = partial(ops.attention_upsample, scale=scale, kernel_size=config["kernel_size"], scaled=config["scaled"])
    if config.get("pos_split") != "per_head":
        return attend(query, key, value, positions=positions, num_heads=heads)
    split = [jnp.split(x, heads, axis=-1) for x in (query, key, value, *positions)]
    return jnp.concatenate([attend(*maps, positions=tables) for *maps, tables in _by_head(split)], axis=-1)


def _by_head(split):
    for query, key, value, px, py in zip(*split, strict=True):
        yield query, key, value, (px, py)


def projected_attention(inputs, params, config):
    x = inputs["x"]
    guide = x if config["form"] == "self" else inputs["guide"]
    maps = {"q": (guide, "wq"), "k": (guide, "wk"), "v": (x, "wv")}
    return attention({k: y @ params[w].astype(y.dtype) for k, (y, w) in maps.items()}, params, config)


def anyup(inputs, params, config):
    size = config.get("output_size")
    module = build("AnyUp", params, config)
    return module(inputs["features"], inputs["image"], size=None if size is None else tuple(size))


def window_mask(inputs, params, config):
    sizes = zip(config["high_res"], config["low_res"], strict=True)
    rows, cols = (window_bounds(high, low, config["ratio"]) for high, low in sizes)
    allowed = [
        (bounds[:, :1] <= np.arange(low)) & (np.arange(low) < bounds[:, 1:])
        for bounds, low in zip((rows, cols), config["low_res"], strict=True)
    ]
    shape = (*config["high_res"], 2)
    return {
        "allowed": allowed[0][:, None, :, None] & allowed[1][None, :, None, :],
        "bounds": np.concatenate([np.broadcast_to(rows[:, None], shape), np.broadcast_to(cols, shape)], axis=-1),
    }


OPERATORS: dict[str, Function] = {
    "attention-based upsampling": attention,
    "attention-based upsampling with linear projections": projected_attention,
    "AnyUp": anyup,
    "LearnedFeatureUnification": converted("LearnedFeatureUnification", "features"),
    "window mask": window_mask,
}
