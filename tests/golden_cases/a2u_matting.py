"""A2U matting, the whole network."""

from tests.golden_cases.converted import Function, converted

OPERATORS: dict[str, Function] = {"A2U matting (ResNet-34)": converted("resnetmat", "x")}
