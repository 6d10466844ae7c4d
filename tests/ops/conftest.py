"""What the tests of operators share."""

import jax
import pytest


@pytest.fixture
def one_device(monkeypatch):
    """As on one device: tests have several, over which sums in loops may hang."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
