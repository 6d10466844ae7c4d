"""The README and the pages of the site: their Python examples run, and what they link to is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob(".github/site/pages/*.md"))]
each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)


def examples(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_there_are_examples():
    assert {path.stem for path in TEXTS if examples(path)} == {"README", "use"}


@pytest.mark.parametrize("path", [path for path in TEXTS if examples(path)], ids=lambda path: path.stem)
def test_the_examples_run(path):
    """One after the other; they give the shapes that they state."""
    source, names = "".join(examples(path)), {}
    for statement in ast.parse(source).body:
        code = ast.get_source_segment(source, statement)
        if code.endswith(".shape"):
            comment = source.splitlines()[statement.end_lineno - 1].partition("  # ")[2]
            assert str(eval(code, names)) == comment
        else:
            exec(code, names)


@each_text
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^):#]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).is_file()] == []


def test_every_page_is_reached_from_the_readme():
    pages = [str(path.relative_to(ROOT)) for path in TEXTS[1:]]
    assert [page for page in pages if f"]({page})" not in TEXTS[0].read_text()] == []


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in ROOT.glob(".github/pictures/*")}
    assert sizes and max(sizes.values()) < 150_000
