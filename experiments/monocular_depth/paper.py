"""What Index Networks has on NYU Depth v2: its Tables 10 and 11."""

from typing import Any

from experiments.monocular_depth.networks import NetworkConfig

# Parameters, or those that are added to FastDepth's, multiply-adds in 2^30 for 224 x 224, rms in metres, delta 1.
_FASTDEPTH = """
nnconv5            3.96M    0.69  0.567 0.781
p-nnconv5          3.96M    1.01  0.577 0.778
carafe             4.31M    1.63  0.558 0.790
p-carafe           4.31M    1.96  0.571 0.782
holistic           +31.23K  1.03  0.566 0.784
holistic-nl        +11.17M  2.65  0.565 0.786
holistic-nl-c      +44.62M  7.53  0.559 0.787
modelwise_o2o      +16      1.02  0.569 0.778
modelwise_o2o-nl   +56      1.02  0.568 0.785
modelwise_o2o-nl-c +152     1.02  0.564 0.786
shared_o2o         +80      1.02  0.562 0.783
shared_o2o-nl      +280     1.02  0.565 0.786
shared_o2o-nl-c    +760     1.02  0.567 0.783
unshared_o2o       +31.23K  1.03  0.556 0.789
unshared_o2o-nl    +0.11M   1.06  0.564 0.786
unshared_o2o-nl-c  +0.30M   1.16  0.562 0.788
m2o                +22.30M  4.27  0.563 0.783
m2o-nl             +55.78M  9.15  0.562 0.786
m2o-nl-c           +189.57M 28.67 0.565 0.787
"""

# rms, rel, log10, deltas.
_HU = """
hu          0.558 0.129 0.055 0.837 0.968 0.992
hu-indexnet 0.554 0.128 0.054 0.843 0.968 0.992
"""

COLUMNS = ("parameters", "GFLOPs", "rms", "rel", "log10", "delta1", "delta2", "delta3")


def _values() -> dict[str, dict[str, str]]:
    found = {}
    for prefix, rows, columns in (
        ("fastdepth-", _FASTDEPTH, ("parameters", "GFLOPs", "rms", "delta1")),
        ("", _HU, ("rms", "rel", "log10", "delta1", "delta2", "delta3")),
    ):
        for line in rows.strip().splitlines():
            name, *cells = line.split()
            found[prefix + name] = dict(zip(columns, cells, strict=True))
    return found


RESULTS = _values()
"""Model -> what is printed, by column; parameters with + are in addition to fastdepth-nnconv5's."""


def paper_cells(config: NetworkConfig) -> dict[str, Any]:
    """The columns of the paper, empty where it has no such row."""
    known = RESULTS.get(config.model, {}) if config.published else {}
    return {f"paper {name}": known.get(name, "") for name in COLUMNS}
