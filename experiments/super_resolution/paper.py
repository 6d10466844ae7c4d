"""The numbers of Kundu et al., Attention-based Image Upsampling, Tables IV and V."""

from collections.abc import Mapping

SCALES = (2, 4, 8)

RESULTS: Mapping[str, Mapping[tuple[str, str], tuple[float, float, float]]] = {
    "paper, T91 + General100": {
        ("attention", "BSDS100"): (33.22, 27.84, 24.72),
        ("deconvolution", "BSDS100"): (33.19, 27.76, 24.60),
        ("attention", "Set5"): (36.88, 30.66, 25.56),
        ("deconvolution", "Set5"): (36.86, 30.44, 25.42),
        ("attention", "Set14"): (32.52, 27.48, 23.87),
        ("deconvolution", "Set14"): (32.52, 27.37, 23.81),
    },
    "paper, BSDS200": {
        ("attention", "BSDS100"): (33.28, 27.82, 24.80),
        ("deconvolution", "BSDS100"): (33.25, 27.78, 24.74),
        ("attention", "Set5"): (36.84, 30.51, 25.43),
        ("deconvolution", "Set5"): (36.86, 30.41, 25.34),
        ("attention", "Set14"): (32.51, 27.45, 23.87),
        ("deconvolution", "Set14"): (32.48, 27.37, 23.82),
    },
}
"""PSNR by training set, then by upsampler and test set, at `SCALES` (Tables IV and V)."""
