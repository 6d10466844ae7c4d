"""The folder in which the command runs."""

import pytest

from tests.cli.depth_maps import DEPTH, GUIDE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with depth.png of 8 x 6 pixels and rgb.png of 32 x 24."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    monkeypatch.chdir(tmp_path)
    image.fromarray(GUIDE).save("rgb.png")
    image.fromarray(DEPTH).save("depth.png")
    return tmp_path
