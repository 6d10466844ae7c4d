"""Depth from one image: FastDepth, whole and in stages, and Hu et al.'s network."""

from jaxup import losses
from tests.golden_cases.converted import Function, build, part, with_statistics


def fastdepth(inputs, params, config):
    """`kind` is the official class, `dec` the decoder."""
    config = config | {"decoder": config.get("dec")}
    operator = f"fastdepth.{config['kind']}"
    module = build(operator, params, config)
    return with_statistics(module(inputs["x"]), operator, module, config)


def hu(inputs, params, config):
    module = build("hu.model", params, config)
    return with_statistics(module(inputs["x"]), "hu.model", module, config)


def hu_loss(inputs, params, config):
    """Means over the batch."""
    maps = inputs["output"], inputs["depth"]
    terms = losses.hu_depth_terms(*maps, alpha=config["alpha"])
    terms["loss"] = losses.hu_depth_loss(*maps, alpha=config["alpha"])
    return {name: term.mean(keepdims=True) for name, term in terms.items()}


def stage(operator: str) -> Function:
    """A stage of a decoder with its doubling; the names of some files begin with "body."."""

    def run(inputs, params, config):
        prefix = "body." if all(name.startswith("body.") for name in params) else ""
        module = build(operator, part(params, prefix), config)
        found = with_statistics(module.enlarge(module(inputs["x"])), operator, module, config)
        return (found[0], {prefix + name: x for name, x in found[1].items()}) if isinstance(found, tuple) else found

    return run


STAGES = ("nnconv", "blconv", "deconv", "nnconvdw", "blconvdw", "deconvdw", "upconv", "upproj", "shuffle")

OPERATORS: dict[str, Function] = {
    "FastDepth network": fastdepth,
    "Hu et al. depth network": hu,
    "loss of Hu et al.": hu_loss,
    **{name: stage(f"fastdepth.{name}") for name in STAGES},
}
