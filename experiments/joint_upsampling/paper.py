"""The numbers of Kundu et al., Attention-based Image Upsampling, and Kim et al., Deformable Kernel Networks, IJCV 2021.

Depth upsampling is measured under different protocols, see `experiments.data.degrade`, and numbers under one say
nothing of another. DKN's networks had bicubically reduced depth, and the attention network every s-th pixel. The rows
of other methods were taken over from DJF's tables, where low-resolution depth was the last pixel of each block: for DJF
itself, for bicubic, as our own numbers show, and for MRF and the guided filter, which stay close to that. Of the others
it is not known under which protocol they were made; joint bilateral, FGI and FBS are too good for this one.
"""

from collections.abc import Mapping

Scales = Mapping[str, tuple[float, ...]]

SCALES = (4, 8, 16)
UNITS = {"middlebury": "grey levels", "lu": "grey levels", "nyu": "cm", "sintel": "grey levels"}
"""Of the data sets in `DEPTH`: NYU has 449 test pairs, Middlebury 30, Lu 6, Sintel 864."""

_COLUMNS = tuple(UNITS)
_DJF = """
bicubic          4.44 7.58 11.87  5.07 9.22 14.27  8.16 14.22 22.32  6.54 8.80 12.17
MRF              4.26 7.43 11.80  4.90 9.03 14.19  7.84 13.98 22.20  8.81 11.77 15.75
guided filter    4.01 7.22 11.70  4.87 8.85 14.09  7.32 13.62 22.03  6.10 8.22 11.22
DJF              2.14 3.77 6.12   2.54 4.71 7.66   3.54 6.20 10.21   5.51 7.52 10.63
DJFR             1.98 3.61 6.07   2.22 4.54 7.48   3.38 5.86 10.11   5.50 7.43 10.48
"""
_UNKNOWN = """
joint bilateral  2.44 3.81 6.13   2.99 5.06 7.51   4.07 8.29 13.35   5.88 7.63 10.97
TGV              3.39 5.41 12.03  4.48 7.58 17.46  6.98 11.23 28.13  32.01 36.78 43.89
Park             2.82 4.08 7.26   4.09 6.19 10.14  5.21 9.56 18.10   9.28 12.22 16.51
SDF              3.14 5.03 8.83   4.65 7.53 11.52  5.27 12.31 19.24  6.52 7.98 11.36
FBS              2.58 4.19 7.30   3.03 5.77 8.48   4.29 8.94 14.59   11.96 12.29 13.08
FGI              3.24 4.60 6.74   4.68 6.32 9.25   6.43 9.52 14.13   6.29 8.24 11.01
DMSG             1.88 3.45 6.28   2.30 4.17 7.22   3.02 5.38 9.17    5.32 7.24 10.11
"""
_DKN = """
FDKN w/o guide     1.07 2.23 5.09  0.85 1.90 5.33  2.05 4.10 8.10  3.31 5.08 8.51
DKN w/o guide      1.12 2.13 5.00  0.90 1.83 4.99  2.11 4.00 8.24  3.40 4.90 8.18
FDKN w/o residual  1.12 2.23 4.52  0.85 2.19 5.15  1.88 3.67 7.13  3.38 5.02 7.74
DKN w/o residual   1.26 2.16 4.32  0.99 2.21 5.12  1.66 3.36 6.78  3.36 4.82 7.48
FDKN               1.08 2.17 4.50  0.82 2.10 5.05  1.86 3.58 6.96  3.36 4.96 7.74
DKN                1.23 2.12 4.24  0.96 2.16 5.11  1.62 3.26 6.51  3.30 4.77 7.59
"""


def _values(table: str) -> dict[str, Scales]:
    """Data set -> method -> RMSE at `SCALES`."""
    found: dict[str, dict[str, tuple[float, ...]]] = {name: {} for name in _COLUMNS}
    for line in table.strip().splitlines():
        method, *cells = line.rsplit(maxsplit=12)
        for i, name in enumerate(_COLUMNS):
            found[name][method.strip()] = tuple(map(float, cells[3 * i : 3 * i + 3]))
    return {name: dict(methods) for name, methods in found.items()}


DEPTH: Mapping[str, Mapping[str, Scales]] = {
    "djf": _values(_DJF),
    "bicubic": _values(_DKN),
    "grid": {"nyu": {"SA_M2_F32": (2.64, 5.01, 8.63)}},
    "unknown": _values(_UNKNOWN),
}
"""Protocol -> data set -> method -> RMSE at `SCALES` (Kim et al., Table 2; the attention network: Kundu et al., Table
II, where FDKN has 2.65, 5.02 and 8.69)."""


def published(source: str, protocol: str) -> tuple[Mapping[str, tuple[str, ...]], str]:
    """What stands beside our numbers, by method at `SCALES`, and what that is.

    For a data set of the papers, what was made under the same protocol or, with a question mark, under one that is not
    known; for any other, all on NYU Depth v2.
    """
    if source in UNITS:
        tables = {p: DEPTH[p].get(source, {}) for p in (protocol, "unknown")}
        what = f"{UNITS[source]}, whole test set, protocol {protocol}; ?: protocol not known"
    else:
        tables = {p: table["nyu"] for p, table in DEPTH.items()}
        what = "cm, on NYU Depth v2, each method under its own protocol; ?: not known which"
    printed = {
        method: tuple(f"{value:.2f}{'?' if p == 'unknown' else ''}" for value in values)
        for p, table in tables.items()
        for method, values in table.items()
    }
    return printed, what


_TABLE_4 = """
weights from RGB                          5.92/6.05 5.52/5.73 5.43/5.67 5.59/5.74 5.82/5.81 6.21/5.99
weights from depth                        5.24/5.30 4.36/4.47 4.09/4.24 4.09/4.17 4.11/4.18 4.15/4.21
weights from both                         5.03/5.14 3.90/4.16 3.48/3.80 3.32/3.66 3.33/3.66 3.39/3.72
weights and offsets from RGB              5.37/5.18 5.38/5.09 5.40/5.07
weights and offsets from depth            4.06/4.13 4.09/4.13 4.13/4.14
weights and offsets from both             3.36/3.67 3.32/3.65 3.33/3.66
weights and offsets from both, residual   3.26/3.58 3.21/3.53 3.19/3.52
"""


def _ablation() -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {"DKN": {}, "FDKN": {}}
    for line in _TABLE_4.strip().splitlines():
        row, _, cells = line.partition("  ")
        for size, pair in zip((3, 5, 7, 15, 19, 25), cells.split(), strict=False):
            for model, value in zip(found, pair.split("/"), strict=True):
                found[model].setdefault(f"{size} x {size}", {})[row] = value
    return found


ABLATION = _ablation()
"""Model -> k x k -> row -> RMSE in cm on NYU Depth v2 at 8x (Kim et al., Table 4)."""

STREAMS = {"receptive field of 23 x 23": "5.00", "dilated convolutions": "4.30"}
"""The same for DKN of 3 x 3 with other streams (section 4.3)."""

SECONDS = {
    **{"MRF": 0.69, "guided filter": 0.14, "joint bilateral": 0.31, "TGV": 33, "Park": 18, "SDF": 25, "FBS": 0.37},
    **{"FGI": 0.24, "DMSG": 0.04, "DJFR": 0.01, "DKN w/o guide": 0.09, "FDKN w/o guide": 0.01, "DKN": 0.17},
    "FDKN": 0.01,
}
"""Seconds for an image of 640 x 480, of FBS and what stands before it on one core of an Intel i5 at 3.3 GHz, as of FGI,
of the networks on an Nvidia Titan XP (Kim et al., Table 3)."""

SALIENCY = {"bicubic": 0.8860, "guided filter": 0.8895, "SDF": 0.8851, "DJFR": 0.9248, "DKN": 0.9440, "FDKN": 0.9606}
"""Weighted F-measure of 5168 maps of DUT-OMRON at 8x (Kim et al., supplement, Table 5)."""

DENOISING = {"guided filter": 5.34, "Yan et al.": 12.53, "SDF": 7.56, "DJF": 2.63, "DKN w/o residual": 2.46}
"""RMSE in cm on NYU Depth v2 with noise (Kim et al., supplement, section 4.1.1)."""
