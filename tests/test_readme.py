"""The README's Python examples run, one after the other, and give the shapes that they state."""

import ast
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    source, names = "".join(blocks), {}
    for statement in ast.parse(source).body:
        code = ast.get_source_segment(source, statement)
        if code.endswith(".shape"):
            comment = source.splitlines()[statement.end_lineno - 1].partition("  # ")[2]
            assert str(eval(code, names)) == comment
        else:
            exec(code, names)
