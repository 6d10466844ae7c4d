"""What the papers have on Composition-1k: Index Networks' Tables 4 to 6, and the repository of A2U matting."""

from typing import Any

from experiments.matting.networks import NetworkConfig

ERRORS = ("SAD", "MSE", "Grad", "Conn")

# SAD, MSE, Grad and Conn as printed; "-" where the paper has none, or its text is lost.
_RESULTS = """
B1 60.0 .020 39.9 61.3
B2 60.2 .020 41.6 61.4
B3 54.6 .017 36.7 55.3
B4 122.4 .100 161.2 130.1
B5 60.7 .021 40.0 61.9
B6 78.6 .031 101.6 82.5
B7 58.0 .021 39.0 59.5
B8 57.1 .019 36.7 57.0
B9 56.0 .017 38.9 55.9
B10 54.7 .017 34.3 54.7
B11 54.9 .017 33.8 55.2
B11-1.4 55.6 .016 36.4 55.7
B11-carafe 50.2 .015 27.9 50.0
HMI 56.5 .021 33.0 56.4
holistic 55.1 .018 32.1 -
holistic-nl 50.6 .015 27.9 -
holistic-nl-c 49.5 .015 25.6 -
modelwise_o2o 57.3 .017 37.3 -
modelwise_o2o-nl 52.4 .016 30.1 -
modelwise_o2o-nl-c 59.1 .018 39.0 -
shared_o2o 48.9 .014 26.2 -
shared_o2o-nl 51.1 .016 30.2 -
shared_o2o-nl-c 56.0 .016 37.5 -
unshared_o2o 50.3 .015 33.7 -
unshared_o2o-nl 50.6 .016 26.5 -
unshared_o2o-nl-c 50.2 .016 26.8 -
m2o 51.0 .015 33.7 -
m2o-nl 48.9 .015 32.1 -
m2o-nl-c 45.8 .013 25.9 43.7
m2o-nl-c-sigmoid 52.7 .016 29.3 52.4
m2o-nl-c-softmax 51.6 .015 29.2 51.6
m2o-nl-c-softmax+sigmoid 57.3 .016 43.5 57.3
A2U 32.10 .0078 16.33 29.00
A2U-unshared 31.87 .0075 14.25 29.17
"""

# Parameters, of index networks those beside B11's, and 2^30 multiply-adds for 224 x 224 pixels.
_COSTS = """
B3 130.55M 32.34
B11 3.75M 4.08
B11-1.4 8.86M 7.61
B11-carafe 4.06M 5.01
HMI 3.75M 4.08
holistic +4.99K 4.09
holistic-nl +0.26M 4.22
holistic-nl-c +1.04M 4.61
modelwise_o2o +16 4.08
modelwise_o2o-nl +56 4.08
modelwise_o2o-nl-c +152 4.08
shared_o2o +80 4.08
shared_o2o-nl +280 4.08
shared_o2o-nl-c +760 4.08
unshared_o2o +4.99K 4.09
unshared_o2o-nl +17.47K 4.10
unshared_o2o-nl-c +47.42K 4.15
m2o +0.52M 4.34
m2o-nl +1.30M 4.73
m2o-nl-c +4.40M 6.30
"""


def _table(text: str) -> dict[str, tuple[str, ...]]:
    lines = (line.split() for line in text.strip().splitlines())
    return {name: tuple("" if value == "-" else value for value in values) for name, *values in lines}


RESULTS = _table(_RESULTS)
"""Errors by network."""
COSTS = _table(_COSTS)
"""Parameters and GFLOPs by network."""


def paper_errors(config: NetworkConfig) -> dict[str, Any]:
    """The columns of errors, empty where the paper has no such row."""
    return dict(zip((f"paper {name}" for name in ERRORS), RESULTS.get(config.model, ("",) * 4), strict=True))


def paper_costs(config: NetworkConfig) -> dict[str, Any]:
    """The columns of costs, empty where the paper has none, and for other widths or backbones than the paper's."""
    same = config.width == 1 and config.backbone is None
    costs = COSTS.get(config.model, ("", "")) if same else ("", "")
    return dict(zip(("params. paper", "GFLOPs paper"), costs, strict=True))
