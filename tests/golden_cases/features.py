"""Upsamplers of features under an image: UPLiFT, NAF, JAFAR, LoftUp."""

from jaxup.ops.neighbourhood import neighbourhood_attend
from tests.golden_cases.converted import Function, build, with_statistics


def uplift(inputs, params, config):
    module = build("UPLiFT", params, config)
    image, x = inputs["image"], inputs["feat"]
    count, size = config["iters"], config.get("outsize")
    if size is not None:
        module.steps = count
        return {"y": module(x, image, size=size if isinstance(size, int) else tuple(size))}
    names = sorted((name for name in inputs if name.startswith("noise")), key=lambda name: int(name[5:]))
    steps = module.doublings(x, image, count, noise=[inputs[name] for name in names] or None)
    outputs = {f"step{i + 1}": y for i, y in enumerate(steps)}
    return with_statistics(outputs, "UPLiFT", module, config)


def image_encoder(inputs, params, config):
    maps = build("uplift.Encoder", params, config)(inputs["image"])
    return {f"level{i}": y.astype(inputs["image"].dtype) for i, y in enumerate(maps)}


def attender(inputs, params, config):
    return build("LocalAttender", params, config)(inputs["guide"], inputs["value"]).astype(inputs["value"].dtype)


def naf(inputs, params, config):
    module, image, size = build("NAF", params, config), inputs["image"], tuple(config["output_size"])
    guide = module.encode(image, size=size).astype(image.dtype)
    return {"guide": guide, "y": module(inputs["feat"], image, size=size)}


def naf_core(inputs, params, config):
    q, k, v = (inputs[name] for name in "qkv")
    return neighbourhood_attend(q, k, v, kernel_size=config["kernel_size"], num_heads=config["num_heads"])


def jafar(inputs, params, config):
    module = build("JAFAR", params, config)
    return module(inputs["feat"], inputs["image"], size=tuple(config["output_size"]))


def loftup(inputs, params, config):
    module = build("LoftUp", params, config)
    image = inputs["image"]
    outputs = {"fourier": module.describe(image).astype(image.dtype), "y": module(inputs["feat"], image)}
    return with_statistics(outputs, "LoftUp", module, config)


OPERATORS: dict[str, Function] = {
    "UPLiFT": uplift,
    "UPLiFT image encoder": image_encoder,
    "UPLiFT LocalAttender": attender,
    "NAF": naf,
    "NAF CrossAttention": naf_core,
    "JAFAR": jafar,
    "LoftUp": loftup,
}
