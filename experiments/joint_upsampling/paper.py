"""The numbers of Kim et al., Deformable Kernel Networks, IJCV 2021, beside those in the docstrings of the presets."""

SALIENCY = {"bicubic": 0.8860, "guided filter": 0.8895, "SDF": 0.8851, "DJFR": 0.9248, "DKN": 0.9440, "FDKN": 0.9606}
"""Table 5 of the supplement: DUT-OMRON, 8x."""
DENOISING = {"guided filter": 5.34, "Yan et al.": 12.53, "SDF": 7.56, "DJF": 2.63, "DKN w/o residual": 2.46}
"""Section 4.1.1 of the supplement: RMSE in cm on NYU Depth v2."""
