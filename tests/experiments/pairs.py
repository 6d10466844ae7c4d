"""Small pairs of files, and what holds for every pair."""

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEPTH = RNG.integers(1, 60000, (12, 16), dtype=np.uint16)


def write_pair(folder, name="a", colour=COLOUR, depth=DEPTH, suffix="_depth.png"):
    Image.fromarray(colour).save(folder / f"{name}_rgb.png")
    if suffix.endswith(".png"):
        Image.fromarray(depth).save(folder / f"{name}{suffix}")
    elif suffix.endswith(".npy"):
        np.save(folder / f"{name}{suffix}", depth)
    else:
        np.savez(folder / f"{name}{suffix}", depth=depth, other=np.zeros(3))


def write_dpt(path, depth):
    """The format of MPI Sintel: tag, width, height, rows."""
    with path.open("wb") as file:
        for header in (np.float32(202021.25), np.int32(depth.shape[1]), np.int32(depth.shape[0])):
            file.write(header.tobytes())
        file.write(depth.astype("<f4").tobytes())


def assert_is_pair(sample):
    """The promises every source makes."""
    height, width = sample.depth.shape[:2]
    assert sample.guide.shape == (height, width, 3) and sample.guide.dtype == np.float32
    assert sample.depth.shape == sample.valid.shape == (height, width, 1)
    assert sample.depth.dtype == np.float32 and sample.valid.dtype == bool
    assert sample.guide.min() >= 0 and sample.guide.max() <= 1 and sample.guide.max() > 0.3
    assert np.isfinite(sample.depth).all() and sample.valid.any()
    levels = sample.guide * np.float32(255)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)
