"""The README's Python example runs, and gives the shapes that it states."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {}
    for line in block.splitlines():
        code, _, comment = line.partition("  # ")
        if code.endswith(".shape"):
            assert str(eval(code, names)) == comment
        else:
            exec(code, names)
