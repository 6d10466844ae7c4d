"""Matting networks against the official code, and their tables both ways."""

import re

import pytest

from jaxup.interop import from_torch
from tests import goldens
from tests.models.segmentation.networks import check_round_trip
from tests.registry.examples import marked

CASES = goldens.cases("indexnet_matting/*")
OFTEN = ("b10_unet__os32_noaspp", "b2_refinenet__os32", "o2o_nl__os32_noaspp_dsconv")
NIGHTLY = {case for case in CASES if not case.endswith(OFTEN)}


@pytest.mark.parametrize("case", marked(CASES, (), NIGHTLY))
@pytest.mark.first(0, 1)
def test_golden(case):
    goldens.check(goldens.load(case), half=False)


def operator(case):
    return "hlvgg16" if "vgg16" in case else "hlmobilenetv2"


@pytest.mark.thorough
@pytest.mark.parametrize("case", marked(CASES, {"indexnet_matting/o2o_nl__os32_noaspp_dsconv"}, NIGHTLY))
def test_round_trip(case):
    golden = goldens.load(case)
    check_round_trip(operator(case), golden.params, golden.config)


@pytest.mark.parametrize(
    ("entry", "value", "choices"),
    [
        ("decoder", "segnet", "'indexnet', 'unet_style', 'deeplabv3+', 'refinenet'"),
        ("conv_operator", "conv", "'std_conv', 'dep_sep_conv'"),
        ("indexnet", "modelwise", "'holistic', 'depthwise'"),
        ("index_mode", "o2m", "'o2o', 'm2o'"),
        ("output_stride", 4, "8, 16, 32"),
    ],
)
def test_errors(entry, value, choices):
    with pytest.raises(ValueError, match=re.escape(f"{entry}: expected one of {choices}, got {value!r}")):
        from_torch("hlmobilenetv2", {}, {entry: value})
