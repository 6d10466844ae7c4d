"""The README's table of upsamplers says of each what its entry says; the other columns are measurements."""

import re
from pathlib import Path

import jax
import pytest
from flax import nnx

from jaxup.nn import UPSAMPLERS, make_upsampler

CHANNELS = 256  # of the maps in the measurements
NONE = "\N{EN DASH}"


def rows():
    text = Path(__file__).parents[2].joinpath("README.md").read_text()
    lines = [line for line in text.splitlines() if re.match(r"\| `\w+` +\|(.*\|){9}$", line)]
    return {cells[0].strip("`"): cells[1:] for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in lines)}


def test_every_upsampler_has_a_row():
    assert set(rows()) == set(UPSAMPLERS)


def test_every_upsampler_was_measured():
    """Time and memory, forward and with gradients, in those of the first row; networks are slower than cubics."""
    measured = {name: [float(figure) for figure in cells[3:7]] for name, cells in rows().items()}
    assert measured["deconvolution"] == [1, 1, 1, 1]
    assert all(figure >= 0 for figures in measured.values() for figure in figures)
    assert all(measured[name][0] > measured["bicubic"][0] for name in ("uplift", "naf", "jafar", "loftup"))


@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.first(8)
def test_what_follows_from_the_entry(name):
    guide, scales, parameters, *measured, paper, official = rows()[name]
    entry = UPSAMPLERS[name]
    channels = entry.guide_channels(CHANNELS)
    options = dict(in_features=CHANNELS, guide_features=channels, scale=2)
    module = nnx.eval_shape(lambda: make_upsampler(name, **options, rngs=nnx.Rngs(0)))
    assert guide == (str(channels) if entry.guided else NONE)
    assert scales == entry.allowed.short
    assert parameters == f"{sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param))):,}"
    assert (paper, official) == (entry.paper or NONE, entry.official or NONE)
    assert len(measured) == 4
