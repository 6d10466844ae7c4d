"""From the depth that is looked for to the depth that is given: the protocols of the literature."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from experiments.data.rgbd import RGBD
from jaxup._checks import check_choice, check_divides, check_int, fail

PROTOCOLS = ("grid", "bicubic", "djf", "noise")
_BORDER = 6  # pixels that DJF does not score
NOISE_VARIANCE = 0.005
"""Of the noise in depth from 0 to 1 (Kim et al., supplement, section 4.1)."""


def low_resolution(depth: np.ndarray, scale: int, protocol: str = "grid") -> np.ndarray:
    """Make the low-resolution depth from which the high-resolution one is to be recovered.

    "grid": y[i, j] = d[s*i + s//2, s*j + s//2], every s-th pixel. The papers leave the start open; the pixel
    at the centre of each s x s block is within half a pixel of where half-pixel resizing places the sample,
    so no method pays for a displacement. "djf": y[i, j] = d[s*i + s - 1, s*j + s - 1], the last pixel of each block, as
    the published numbers of DJF and of the classical methods beside it were made: half-pixel resizing places it (s-1)/2
    pixels too far up and left, which those numbers include, and 6 pixels at the borders do not count (`scored`).
    "bicubic": cubic convolution with a = -0.5 stretched by s
    (antialiased), as Pillow computes it. "noise": the depth itself; `normalised` adds the noise, whose size is relative
    to the depth's range.

    Args:
        depth: [H, W, 1] floating, finite; H and W multiples of `scale`.
        scale: Factor s, an integer.
        protocol: "grid" (attention-based upsampling), "djf" (DJF), "bicubic" (DKN), or "noise" (denoising), whose scale
            is 1.

    Returns:
        float32 [H/s, W/s, 1].

    Raises:
        ValueError: a scale that does not divide H and W, or an unknown protocol.

    Reference:
        Kundu et al., Attention-based Image Upsampling, section IV-A; Kim et al., Deformable Kernel Networks.
    """
    check_int("scale", scale)
    check_protocol(protocol, [scale])
    height, width = depth.shape[:2]
    check_divides("scale", scale, "the height", height)
    check_divides("scale", scale, "the width", width)
    depth = depth.astype(np.float32, copy=False)
    if protocol == "noise":
        return depth
    if protocol in ("grid", "djf"):
        start = scale // 2 if protocol == "grid" else scale - 1
        return depth[start::scale, start::scale]
    image = Image.fromarray(np.ascontiguousarray(depth[..., 0]))
    return np.asarray(image.resize((width // scale, height // scale), Image.Resampling.BICUBIC))[..., None]


def scored(valid: np.ndarray, protocol: str, border: int | None = None) -> np.ndarray:
    """The valid pixels [H, W, 1] that count: those no nearer to the borders than so many pixels.

    None: 6 for the protocol "djf", else 0.
    """
    border = (_BORDER if protocol == "djf" else 0) if border is None else border
    inner = np.zeros_like(valid)
    window = (slice(border, -border or None),) * 2
    inner[window] = valid[window]
    return inner


def check_protocol(protocol: str, scales: Sequence[int]) -> None:
    """Require a known protocol, and no other scale than 1 for noise."""
    check_choice("protocol", protocol, PROTOCOLS)
    if protocol == "noise" and set(scales) != {1}:
        fail("scales", "1 with the protocol noise", list(scales))


def crop_to_multiple(sample: RGBD, multiple: int) -> RGBD:
    """Cut rows at the bottom and columns at the right until height and width are multiples of `multiple`.

    Raises:
        ValueError: the image is smaller than `multiple` either way.
    """
    check_int("multiple", multiple)
    height, width = (n - n % multiple for n in sample.depth.shape[:2])
    if not (height and width):
        raise ValueError(
            f"multiple: expected at most the size of {sample.name}, "
            f"{sample.depth.shape[0]} x {sample.depth.shape[1]}, got {multiple}"
        )
    return sample.cut(slice(height), slice(width))
