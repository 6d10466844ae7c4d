"""Luma and chroma of RGB, as ITU-R BT.601 has them and the codes of several papers."""

import numpy as np

LUMA = (0.299, 0.587, 0.114)
YUV = np.array([LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)])
"""Rows are luma and both chromas; R, G and B are in 0 .. 1."""
