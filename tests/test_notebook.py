"""The notebook: it has the form that Jupyter wants, its cells run, and the network in it learns."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / ".github/notebooks/upsampler_in_a_network.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_form():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    identities = [cell["id"] for cell in cells()]
    assert len(set(identities)) == len(identities)
    assert all(re.fullmatch(r"[\w-]{1,64}", identity) for identity in identities)
    for cell in cells():
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | code
        assert all(output["output_type"] == "stream" for output in cell.get("outputs", ()))


@pytest.mark.thorough
def test_the_cells_run_and_the_network_learns():
    pytest.importorskip("optax")
    source = "\n\n".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code")
    source, count = re.subn(r"(?m)^steps = \d+$", "steps = 20", re.sub(r"(?m)^%.*$", "", source))
    assert count == 1
    names = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(source, names)
    losses = names["losses"]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])
    assert set(names["results"]) == {"bilinear", "dysample", "carafe"}
    assert all(0 < score < 1 for score in names["results"].values())
