"""Every official state dict among the golden vectors goes in and comes back as it was."""

import json

import numpy as np
import pytest

from jaxup import interop
from jaxup.interop.convert import _build
from jaxup.interop.keys import Unused, flat_variables, write
from tests import goldens


def official_cases():
    """The cases of operators that have a converter, with parameters; one that skips where the folder is absent."""
    try:
        files = sorted(goldens.shared("goldens").glob("*/*.npz"))
    except pytest.skip.Exception:
        return ["no/folder"]
    cases = []
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            operator = json.loads(str(arrays["meta"])).get("operator")
            partial = "weights_" in file.stem  # a state dict in several files
            if not partial and operator in interop.OPERATORS and any(key.startswith("param/") for key in arrays.files):
                cases.append(f"{file.parent.name}/{file.stem}")
    return cases


def parts(entry):
    return entry if isinstance(entry, tuple) else (entry,)


@pytest.mark.slow  # every module is built, and its initial values are compiled
@pytest.mark.parametrize("case", official_cases())
def test_round_trip(case):
    """But for tensors without any effect, which come back as zeros."""
    golden = goldens.load(case)
    module = interop.from_torch(golden.meta["operator"], golden.params, golden.config)
    tables = _build(golden.meta["operator"], golden.config)[1:]
    table = max(tables, key=lambda table: len(table.keys() & golden.params.keys()))
    back = write(table, flat_variables(module), constants=True)
    whole = [name for name, entry in table.items() if not any(isinstance(part, Unused) for part in parts(entry))]
    assert whole
    for name in whole:
        np.testing.assert_array_equal(back[name], golden.params[name], err_msg=name)
