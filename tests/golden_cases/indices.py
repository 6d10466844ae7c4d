"""Operators with one source cell and an index per pixel: IndexNet, max unpooling."""

from jaxup import ops
from tests.golden_cases.converted import Function, build, converted, part, with_statistics

BLOCKS = {"holistic": "HolisticIndexBlock", "o2o": "DepthwiseO2OIndexBlock", "m2o": "DepthwiseM2OIndexBlock"}


def index_block(operator: str) -> Function:
    def run(inputs, params, config):
        module = build(operator, params, config)
        index = module(inputs["x"])
        return with_statistics({"idx_en": index.encoder, "idx_de": index.decoder}, operator, module, config)

    return run


def indexed_pooling(inputs, params, config):
    x = inputs["x"]
    index = build(BLOCKS[config["indexnet"]], part(params, "index."), config)(x)
    return {
        "indexed": index.encoder * x,
        "pooled": ops.indexed_pool(x, index.encoder),
        "idx_de": index.decoder,
    }


def stage(inputs, params, config):
    """What was pooled goes straight back into the decoder's block, with the indexed map."""
    maps, weights = indexed_pooling(inputs, params, config), part(params, "decoder.")
    separable = "dconv.3.weight" in weights
    decoder = {
        "inp": 2 * config["inp"],
        "oup": weights["dconv.3.weight" if separable else "dconv.0.weight"].shape[0],
        "conv_operator": "dep_sep_conv" if separable else "std_conv",
        "kernel_size": config["decoder_kernel_size"],
        "mode": config["mode"],
    }
    y = build("IndexedUpsamlping", weights, decoder)(maps["pooled"], maps["indexed"], maps["idx_de"])
    return {"pooled": maps["pooled"], "y": y}


def max_pooling(inputs, params, config):
    values, indices = ops.max_pool(inputs["x"], scale=config["stride"])
    unpooled = ops.max_unpool(inputs.get("z", values), indices, size=tuple(config["output_size"]))
    return {"pooled": values, "indices": indices.astype(values.dtype), "unpooled": unpooled}


OPERATORS: dict[str, Function] = {
    **{name: index_block(name) for name in BLOCKS.values()},
    "IndexedPooling": indexed_pooling,
    "IndexedUpsamlping": converted("IndexedUpsamlping", "l_encode", "l_low", "indices"),
    "index block + indexed pooling + indexed upsampling": stage,
    "ASPP": converted("ASPP", "x"),
    "max pooling with indices, max unpooling": max_pooling,
}
