"""Around a matting network: trimaps, composition, and what official networks do to images before and after.

Functions of NumPy arrays of one image, without a batch axis. Images are uint8 [H, W, 3], alphas and trimaps uint8
[H, W]; in a trimap 0 is background, 255 foreground, and 128 unknown.
"""

import math

import numpy as np

from jaxup._checks import fail
from jaxup._opencv import eroded, resize_cubic, resize_nearest

__all__ = [
    "UNKNOWN",
    "a2u_alpha",
    "a2u_input",
    "clean_trimap",
    "compose",
    "covering_background",
    "indexnet_alpha",
    "indexnet_input",
    "trimap_by_distance",
    "trimap_by_erosion",
]

UNKNOWN = 128
"""The number of unknown pixels in a trimap."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def clean_trimap(trimap: np.ndarray) -> np.ndarray:
    """Make every value of a trimap that is neither 0 nor 255 unknown.

    Args:
        trimap: uint8 [H, W].

    Returns:
        uint8 [H, W] of 0, 128 and 255.

    Raises:
        ValueError: not uint8 [H, W].

    Example:
        >>> clean_trimap(np.array([[0, 127, 130, 255]], np.uint8))
        array([[  0, 128, 128, 255]], dtype=uint8)

    Reference:
        As the code of Dai et al., Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021.
    """
    _check_map("trimap", trimap)
    return np.where((trimap == 0) | (trimap == 255), trimap, np.uint8(UNKNOWN))


def trimap_by_distance(alpha: np.ndarray, *, radius: float) -> np.ndarray:
    """The trimap of IndexNet: unknown is what is within a distance of the pixels that are neither black nor white.

    Args:
        alpha: uint8 [H, W].
        radius: Euclidean, in pixels; in training an integer from 1 to 19.

    Returns:
        uint8 [H, W]: 128 within the radius, also of foreground pixels, elsewhere 255 where alpha is 255, and 0.

    Raises:
        ValueError: alpha is not uint8 [H, W], or the radius is negative.

    Example:
        >>> trimap_by_distance(np.array([[0, 0, 40, 255, 255]], np.uint8), radius=1)
        array([[  0, 128, 128, 128, 255]], dtype=uint8)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, 6.1, and its code.
    """
    from scipy import ndimage  # here, because it is slow to import

    _check_map("alpha", alpha)
    if not radius >= 0:
        fail("radius", "a number >= 0", repr(radius))
    trimap, partial = np.where(alpha == 255, np.uint8(255), np.uint8(0)), (alpha > 0) & (alpha < 255)
    if partial.any():
        trimap[ndimage.distance_transform_edt(~partial) <= radius] = UNKNOWN
    return trimap


def trimap_by_erosion(alpha: np.ndarray, *, foreground: int, background: int) -> np.ndarray:
    """The trimap of A2U: known is what is left of the pure foreground and background, eroded by two ellipses.

    Pixels outside of the image do not erode.

    Args:
        alpha: uint8 [H, W].
        foreground: size of the element that erodes the foreground, OpenCV's ellipse; in training 1 to 29.
        background: that of the background.

    Returns:
        uint8 [H, W] of 0, 128 and 255.

    Raises:
        ValueError: alpha is not uint8 [H, W], or a size is below 1.

    Example:
        >>> trimap_by_erosion(np.array([[0, 0, 40, 255, 255]], np.uint8), foreground=3, background=1)
        array([[  0,   0, 128, 128, 255]], dtype=uint8)

    Reference:
        The code of Dai et al., Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021.
    """
    _check_map("alpha", alpha)
    trimap = np.full(alpha.shape, UNKNOWN, np.uint8)
    trimap[eroded(alpha == 255, foreground)] = 255
    trimap[eroded(alpha == 0, background)] = 0
    return trimap


def covering_background(background: np.ndarray, *, size: tuple[int, int], reduce: bool = True) -> np.ndarray:
    """Resize a background until it covers a foreground, and cut it at the top left.

    It becomes ceil(h f) x ceil(w f), f = max(H / h, W / w), as 8-bit image by OpenCV's cubic interpolation.

    Args:
        background: uint8 [h, w, 3].
        size: (H, W) of the foreground.
        reduce: whether larger backgrounds are reduced, as the loaders do; Adobe's script cuts them as they are.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: not uint8 [h, w, 3].

    Example:
        >>> covering_background(np.full((2, 3, 3), 7, np.uint8), size=(4, 4)).shape
        (4, 4, 3)

    Reference:
        Xu et al., Deep Image Matting, CVPR 2017, and the composition script of its data set.
    """
    _check_image("background", background)
    factor = max(n / m for n, m in zip(size, background.shape[:2], strict=True))
    if factor > 1 or reduce:
        height, width = (math.ceil(n * factor) for n in background.shape[:2])
        background = resize_cubic(background, (height, width))
    return background[: size[0], : size[1]]


def compose(foreground: np.ndarray, background: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Compose an image, I = a F + (1 - a) B.

    Args:
        foreground: F, uint8 or floating [H, W, 3], 0 .. 255.
        background: B, of the same shape.
        alpha: 255 a, uint8 [H, W], or floating, 0 .. 255.

    Returns:
        float32 [H, W, 3], 0 .. 255. IndexNet stores it in 8 bits, truncated: `.astype(np.uint8)`; A2U does not.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> compose(np.full((1, 1, 3), 200, np.uint8), np.zeros((1, 1, 3), np.uint8), np.array([[51]], np.uint8))
        array([[[40., 40., 40.]]], dtype=float32)

    Reference:
        Porter and Duff, Compositing Digital Images, SIGGRAPH 1984.
    """
    for name, array, shape in (("background", background, foreground.shape), ("alpha", alpha, foreground.shape[:2])):
        if array.shape != shape:
            fail(name, f"shape {shape}", array.shape)
    a = alpha[..., None].astype(np.float32) / np.float32(255)
    return a * foreground.astype(np.float32) + (1 - a) * background.astype(np.float32)


def indexnet_input(image: np.ndarray, trimap: np.ndarray, *, multiple: int = 32, plus_one: bool = False) -> np.ndarray:
    """What IndexNet's code gives to its networks: colours and trimap, resized to the next multiples of 32.

    Colours, less the mean and by the deviation of ImageNet, are resized by OpenCV's cubic interpolation, and the trimap
    / 255 by the nearest pixel.

    Args:
        image: uint8 [H, W, 3].
        trimap: uint8 [H, W].
        multiple: of the sizes.
        plus_one: whether they are these multiples and 1, as for DeepLabv3+ and RefineNet.

    Returns:
        float32 [H', W', 4].

    Raises:
        ValueError: not uint8 of these shapes.

    Example:
        >>> indexnet_input(np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), np.uint8)).shape
        (32, 64, 4)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, and its code.
    """
    x = _network_input(image, trimap)
    height, width = (-(-n // multiple) * multiple + plus_one for n in trimap.shape)
    parts = resize_cubic(x[..., :3], (height, width)), resize_nearest(x[..., 3:], (height, width))
    return np.concatenate(parts, axis=2)


def indexnet_alpha(output: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """The matte of IndexNet's code: the output resized back, clipped, and what the trimap knows taken from there.

    Args:
        output: of the network, floating [H', W'].
        trimap: uint8 [H, W]; what is not 128 is the alpha, as it is.

    Returns:
        float32 [H, W], 0 .. 255. The code stores it truncated: `.astype(np.uint8)`.

    Raises:
        ValueError: an array is not of two axes, or the trimap is not uint8.

    Example:
        >>> indexnet_alpha(np.full((2, 2), 0.6, np.float32), np.array([[0, 128, 255]], np.uint8))
        array([[  0., 153., 255.]], dtype=float32)

    Reference:
        Lu et al., Index Networks, TPAMI 2020, and its code.
    """
    _check_map("trimap", trimap)
    return _with_known(resize_cubic(output.astype(np.float32), trimap.shape), trimap)


def a2u_input(image: np.ndarray, trimap: np.ndarray, *, multiple: int = 16) -> np.ndarray:
    """What A2U's code gives to its network: colours and trimap, mirrored at the bottom and right up to multiples of 16.

    Args:
        image: uint8 [H, W, 3]; less the mean and by the deviation of ImageNet.
        trimap: uint8 [H, W]; every value but 0 and 255 is unknown.
        multiple: of the sizes.

    Returns:
        float32 [H', W', 4].

    Raises:
        ValueError: not uint8 of these shapes.

    Example:
        >>> a2u_input(np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), np.uint8)).shape
        (32, 48, 4)

    Reference:
        Dai et al., Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021, and its code.
    """
    x = _network_input(image, clean_trimap(trimap))
    return np.pad(x, [*((0, -n % multiple) for n in trimap.shape), (0, 0)], mode="reflect")


def a2u_alpha(output: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """The matte of A2U's code: the output cut, clipped, and what the trimap knows taken from there.

    Args:
        output: of the network, floating [H', W'].
        trimap: uint8 [H, W]; every value but 0 and 255 is unknown.

    Returns:
        float32 [H, W], 0 .. 255. The code stores it truncated: `.astype(np.uint8)`.

    Raises:
        ValueError: the output is smaller than the trimap, or this is not uint8 [H, W].

    Example:
        >>> a2u_alpha(np.full((2, 4), 0.6, np.float32), np.array([[0, 128, 255]], np.uint8))
        array([[  0., 153., 255.]], dtype=float32)

    Reference:
        Dai et al., Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021, and its code.
    """
    trimap = clean_trimap(trimap)
    height, width = trimap.shape
    if output.ndim != 2 or output.shape[0] < height or output.shape[1] < width:
        fail("output", f"at least [{height}, {width}]", f"shape {output.shape}")
    return _with_known(output[:height, :width].astype(np.float32), trimap)


def _network_input(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    _check_image("image", image)
    _check_map("trimap", trimap)
    if image.shape[:2] != trimap.shape:
        fail("trimap", f"shape {image.shape[:2]} as the image", f"shape {trimap.shape}")
    x = np.concatenate([image, trimap[..., None]], axis=2).astype(np.float32) / np.float32(255)
    x[..., :3] = (x[..., :3] - MEAN) / STD
    return x


def _with_known(alpha: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    return np.where(trimap == UNKNOWN, np.float32(255) * alpha.clip(0, 1), trimap.astype(np.float32))


def _check_image(name: str, x: np.ndarray) -> None:
    if x.ndim != 3 or x.shape[2] != 3 or x.dtype != np.uint8 or x.size == 0:
        fail(name, "uint8 [H, W, 3]", f"{x.dtype} {list(x.shape)}")


def _check_map(name: str, x: np.ndarray) -> None:
    if x.ndim != 2 or x.dtype != np.uint8 or x.size == 0:
        fail(name, "uint8 [H, W]", f"{x.dtype} {list(x.shape)}")
