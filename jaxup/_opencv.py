"""What published code takes from OpenCV, on NumPy arrays of one image, without OpenCV."""

import numpy as np

from jaxup._checks import check_int, fail
from jaxup.ops.resize import _kernel_taps

_CUBIC = -0.75  # the coefficient of its cubic kernel


def resize_cubic(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as OpenCV's INTER_CUBIC: Keys' kernel with a = -0.75, half-pixel centres, borders repeated.

    Args:
        x: floating or uint8, [H, W] or [H, W, C].
        size: (height, width).

    Returns:
        The dtype of `x`; uint8 is rounded and clipped. Reduction has no antialiasing.

    Raises:
        ValueError: another number of axes or another type.

    Example:
        >>> resize_cubic(np.array([[0, 255]], np.uint8), (1, 4))
        array([[  0,  58, 197, 255]], dtype=uint8)

    Reference:
        Bradski, The OpenCV Library, 2000, `resize`; `jaxup.ops.resize` for other kinds and for gradients.
    """
    integer = x.dtype == np.uint8
    if x.ndim not in (2, 3) or not (integer or np.issubdtype(x.dtype, np.floating)):
        fail("x", "floating-point numbers or uint8 [H, W] or [H, W, C]", f"{x.dtype} {x.shape}")
    total = x.astype(np.float64) if integer else x
    for axis in (1, 0):
        n = x.shape[axis]
        place, weights = _kernel_taps(n, check_int("size", size[axis]), _CUBIC, align_corners=False, antialias=False)
        shape = (-1, *[1] * (x.ndim - 1 - axis))
        used = [(j, w.reshape(shape).astype(total.dtype)) for j, w in zip(place, weights, strict=True) if w.any()]
        total = sum(w * total.take(j.clip(0, n - 1), axis) for j, w in used)
    return np.floor(total + 0.5).clip(0, 255).astype(np.uint8) if integer else total


def resize_nearest(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as OpenCV's INTER_NEAREST: pixel floor(i n / m).

    Args:
        x: [H, W] or [H, W, C].
        size: (height, width).

    Returns:
        The dtype of `x`.

    Example:
        >>> resize_nearest(np.array([[1, 2, 3]]), (1, 2))
        array([[1, 2]])

    Reference:
        Bradski, The OpenCV Library, 2000, `resize`.
    """
    rows, columns = (np.arange(m) * n // m for n, m in zip(x.shape[:2], size, strict=True))
    picked: np.ndarray = x[rows[:, None], columns]
    return picked


def ellipse(size: int) -> np.ndarray:
    """OpenCV's elliptic structuring element.

    With r = size // 2, row r + d has the columns from r - w to r + w, w = round(sqrt(r^2 - d^2)), that there are.

    Args:
        size: of its sides; 1 is one pixel.

    Returns:
        bool [size, size].

    Raises:
        ValueError: a size below 1.

    Example:
        >>> ellipse(3).astype(int)
        array([[0, 1, 0],
               [1, 1, 1],
               [0, 1, 0]])

    Reference:
        Bradski, The OpenCV Library, 2000, `getStructuringElement`.
    """
    r = check_int("size", size) // 2
    i = np.arange(size)
    width = np.rint(r * np.sqrt((r * r - (i - r) ** 2) / max(r * r, 1)))
    inside: np.ndarray = np.abs(i - r) <= width[:, None]
    return inside


def eroded(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask eroded by an ellipse; what is outside of the image does not erode.

    Counts what is missing under each row of the element, which is one run, from sums along rows.
    """
    element = ellipse(size)
    height, width = mask.shape
    anchor = len(element) // 2
    padded = np.pad(~mask, [(anchor, anchor), (anchor, anchor)])
    sums = np.pad(np.cumsum(padded, axis=1, dtype=np.int32), [(0, 0), (1, 0)])
    missing = np.zeros(mask.shape, np.int32)
    for row, columns in enumerate(element):
        first, stop = np.flatnonzero(columns)[[0, -1]] + (0, 1)
        rows = sums[row : row + height]
        missing += rows[:, stop : stop + width] - rows[:, first : first + width]
    clear: np.ndarray = missing == 0
    return clear
