"""Depth maps and guides for the command, and how it is called."""

from pathlib import Path

import numpy as np

from jaxup.cli import main
from jaxup.cli.methods import LEARNED
from jaxup.files import write_depth
from tests.modules import drawn

RANDOM = np.random.default_rng(0)
GUIDE = RANDOM.integers(0, 256, (24, 32, 3)).astype(np.uint8)
DEPTH = RANDOM.integers(500, 4000, (6, 8)).astype(np.uint16)


def run(*arguments, depth="depth.png", guide="rgb.png", out="out.png"):
    return main(["upsample", depth, "--guide", guide, "-o", out, *arguments])


def stored(depth, name="depth.npy"):
    write_depth(Path(name), depth)
    return name


def sampled(true, height, width):
    """The pixel at the centre of each cell."""
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip((height, width), true.shape, strict=True))
    return true[np.ix_(rows, columns)]


def step(height, width, *, near=1000, far=3000, at=0.4):
    """Depth with one edge, and the grey guide of it."""
    right = np.arange(width)[None].repeat(height, 0) >= width * at
    return np.where(right, far, near), np.where(right, 200, 60).astype(np.uint8)[..., None].repeat(3, 2)


def refused(capsys, message, *arguments, **files):
    """Exit status 2, one line, no new file."""
    before = sorted(Path().iterdir())
    assert run(*arguments, **files) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert sorted(Path().iterdir()) == before


def small_network(name):
    options = {
        "attention": {"features": 8, "mixing_layers": 1, "widths": [4, 4]},
        "djf": {"widths": [4, 4], "joint_widths": [4, 4]},
        "dkn": {"widths": [4, 4]},
        "fdkn": {"widths": [4, 4]},
    }[name]
    return drawn(LEARNED[name], **options, deviation=0.3)[0], options
