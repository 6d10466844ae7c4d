"""Pictures of features: their three strongest directions as colours, and how similar they are to those of a pixel."""

import numpy as np

_DARK, _BRIGHT = np.array([0.10, 0.05, 0.30]), np.array([1.0, 0.93, 0.55])


def colours(fine: np.ndarray, fitted: np.ndarray | None = None) -> np.ndarray:
    """Principal components of features as colours.

    Args:
        fine: [H, W, C].
        fitted: [h, w, C], what the components are of; none: fine itself.

    Returns:
        uint8 [H, W, 3]: the first three, each from its least to its largest value; a component that does not vary is
        grey.
    """
    found = components(fine, fine if fitted is None else fitted)
    return np.stack([_eight_bits(found[..., i]) for i in range(3)], axis=-1)


def components(fine: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The first three principal components of `fitted` [h, w, C] in fine [H, W, C]: [H, W, 3], zeros where C < 3."""
    source = np.asarray(fitted, np.float64).reshape(-1, fine.shape[2])
    mean = source.mean(0)
    _, vectors = np.linalg.eigh((source - mean).T @ (source - mean))
    basis = vectors[:, ::-1][:, :3]
    signs = np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])  # of two that are as good, always one
    basis, mean = (basis * signs).astype(np.float32), mean.astype(np.float32)
    found = np.stack([(row - mean) @ basis for row in fine])  # without a copy of all features
    return np.concatenate([found, np.zeros((*found.shape[:2], 3 - found.shape[2]), found.dtype)], axis=2)


def similarity(fine: np.ndarray, row: int, column: int) -> np.ndarray:
    """Cosine of all features with those of a pixel, from dark to bright, uint8 [H, W, 3]; the pixel is marked."""
    length = np.sqrt(np.einsum("hwc,hwc->hw", fine, fine))
    cosine = fine @ fine[row, column] / np.maximum(length * length[row, column], 1e-12)
    level = _eight_bits(cosine)[..., None] / 255
    picture: np.ndarray = np.rint(255 * (_DARK + level * (_BRIGHT - _DARK))).astype(np.uint8)
    radius = max(1, max(fine.shape[:2]) // 150)
    picture[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = (230, 30, 30)
    return picture


def _eight_bits(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if high - low <= 1e-12 * max(1.0, abs(low), abs(high)):
        return np.full(values.shape, 128, np.uint8)
    scaled: np.ndarray = np.rint(255 * (values - low) / (high - low)).astype(np.uint8)
    return scaled
