"""Operators that sample at fractional positions: DySample, DKN, FDKN."""

from jaxup import models
from tests.golden_cases.converted import Function, build, converted, with_statistics


def deformable(operator: str) -> Function:
    """The official images have their channels in the order B, G, R."""

    def run(inputs, params, config):
        module = build(operator, params, config)
        outputs = module(inputs["depth"], inputs["image"][..., ::-1])
        return with_statistics(outputs, operator, module, config)

    return run


def stream(inputs, params, config):
    module = build("Kernel_FDKN", params, config)
    outputs = dict(zip(("weight", "offset"), module(inputs["x"]), strict=True))
    return with_statistics(outputs, "Kernel_FDKN", module, config)


def cells(inputs, params, config):
    """What the streams of FDKN see."""
    x = inputs["x"][..., ::-1]
    return models.dkn._to_cells(models.dkn._luminance(x) if x.shape[-1] == 3 else x)


OPERATORS: dict[str, Function] = {
    "DySample": converted("DySample", "x"),
    "DKN": deformable("DKN"),
    "FDKN": deformable("FDKN"),
    "Kernel_FDKN": stream,
    "resample_data": cells,
}
