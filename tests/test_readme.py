"""The README's Python examples run, one after the other, and give the shapes that they state."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    names: dict = {}
    for line in "".join(blocks).splitlines():
        code, _, comment = line.partition("  # ")
        if code.endswith(".shape"):
            assert str(eval(code, names)) == comment
        else:
            exec(code, names)
