"""Builds the site: pages of the README and other texts, and the interface from its docstrings.

    python .github/site/build.py FOLDER

Fails where a public name of tests/api.lock is missing, a link leads nowhere, a signature is not readable, or anything
warns. Docstrings are plain text in Google's style: what Markdown would take for emphasis or for HTML is kept from it.
"""

import importlib
import inspect
import json
import re
import shutil
import sys
import types
import warnings
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pdoc.doc
import pdoc.docstrings
import pdoc.render
import pdoc.search
from pdoc.render_helpers import format_signature, to_html

from jaxup.nn import UPSAMPLERS

ROOT = Path(__file__).parents[2]
PUBLIC: Mapping[str, str] = json.loads((ROOT / "tests/api.lock").read_text())["names"]
SPACES = ["jaxup", *(name for name, kind in PUBLIC.items() if kind == "module")]
TEXTS = Path(".github/site/pages")
NOTEBOOK = Path(".github/notebooks/upsampler_in_a_network.ipynb")
MENU = {
    "Guide": [
        *(Path("README.md"), NOTEBOOK),
        *(TEXTS / f"{name}.md" for name in ("use", "command", "experiments", "gallery", "promises")),
    ],
    "Measured": [TEXTS / "measured.md", Path("experiments/RESULTS.md"), Path("experiments/BENCHMARKS.md")],
    "Project": [Path(".github/CONTRIBUTING.md")],
}
SOURCES = [source for sources in MENU.values() for source in sources]
KEPT = {"*": "\ue000", "<": "\ue001"}  # characters of docstrings that Markdown is not to see, and what it sees
SHORT = {  # how annotations and defaults print -> what one writes
    "jax.jaxlib._jax.Array": "jax.Array",
    "flax.nnx.rnglib.": "nnx.",
    "flax.nnx.module.": "nnx.",
    "flax.nnx.": "nnx.",
    "collections.abc.": "",
    "typing.": "",
}
UNREADABLE = re.compile(r"jaxlib|&lt;(class|function|object) .|\bat 0x[0-9a-f]+")


def address(source: Path) -> str:
    """The page that a text becomes."""
    return "index.html" if source.name == "README.md" else f"{source.stem.lower()}.html"


def text(source: Path) -> str:
    """A text as Markdown; of a notebook the cells and what they print."""
    content = (ROOT / source).read_text()
    if source.suffix != ".ipynb":
        return content
    parts = []
    for cell in json.loads(content)["cells"]:
        body = "".join(cell["source"])
        parts.append(body if cell["cell_type"] == "markdown" else f"```python\n{body}\n```")
        for output in cell.get("outputs", ()):
            parts.append("```text\n{}\n```".format("".join(output["text"]).strip()))
    return "\n\n".join(parts)


def title(source: Path) -> str:
    """The first heading."""
    return re.search(r"^# (.+)$", text(source), re.MULTILINE)[1]


def page(source: Path, out: Path) -> str:
    """A text as a page of the site; pictures that it shows are copied beside it."""
    html = to_html(text(source))
    toc = html.toc_html or ""
    pages = {(ROOT / text).resolve(): address(text) for text in SOURCES}

    def moved(match: re.Match[str]) -> str:
        attribute, link, anchor = match.groups(default="")
        target = (ROOT / source.parent / link).resolve()
        if target in pages:
            return f'{attribute}="{pages[target]}{anchor}"'
        if target.suffix in (".jpg", ".png") and target.is_file():
            shutil.copy(target, out)
            return f'{attribute}="{target.name}"'
        sys.exit(f"{source}: {link} is neither a page of the site nor a picture")

    html = re.sub(r"<td([^>]*)>(?=(?:(?!</td>).){60})", r'<td class="long"\1>', html)
    html = re.sub(r'(href|src)="([^":#]+)(#[^"]*)?"', moved, html)
    return pdoc.render.env.get_template("page.html.jinja2").render(title=title(source), html=html, toc=toc)


def linked(html: str, root: str) -> str:
    """Links names of the interface in code: `ops.sample`, `sample` where one namespace alone has it, and `sapa`."""
    last = [name.rpartition(".")[2] for name in PUBLIC]
    short = {name.rpartition(".")[2]: name for name in PUBLIC if last.count(name.rpartition(".")[2]) == 1}
    modules = {name: entry.module.__name__ for name, entry in UPSAMPLERS.items()}
    short |= {name: f"jaxup.nn.{module}" for name, module in modules.items() if module != "Resize"}

    def link(match: re.Match[str]) -> str:
        name = short.get(match[1], match[1] if match[1].startswith("jaxup.") else f"jaxup.{match[1]}")
        space, _, member = name.rpartition(".")
        if name not in PUBLIC or member.startswith("_"):
            return match[0]
        target = where(name) if PUBLIC[name] == "module" else f"{where(space)}#{member}"
        return f'<a href="{root}{target}">{match[0]}</a>'

    return re.sub(r"<code>((?:\w+\.)*\w+)</code>(?!</a>)", link, html)


def where(space: str) -> str:
    """The page of a namespace."""
    return space.replace(".", "/") + ".html"


def docstring(convert: Any) -> Any:
    """Google's sections as Markdown, in which mathematics stays as it is; doctests need no help."""

    def converted(docstring: str, docformat: str, source_file: Path | None) -> str:
        lines = [
            line if line.lstrip().startswith((">>>", "...")) else line.translate(str.maketrans(KEPT))
            for line in docstring.splitlines()
        ]
        return convert("\n".join(lines), docformat, source_file)

    return converted


def signature(signature: inspect.Signature, colon: bool) -> str:
    """A signature with types and defaults as one writes them."""
    plain = [
        p.replace(annotation=_annotation(p.annotation), default=_default(p.default))
        for p in signature.parameters.values()
    ]
    return format_signature(
        signature.replace(parameters=plain, return_annotation=_annotation(signature.return_annotation)), colon
    )


def _default(default: Any) -> Any:
    return default if default is inspect.Parameter.empty else _Name(getattr(default, "__name__", repr(default)))


def _annotation(annotation: Any) -> Any:
    if annotation is inspect.Signature.empty:
        return annotation
    printed = str(annotation) if isinstance(annotation, types.GenericAlias) else inspect.formatannotation(annotation)
    for long, short in SHORT.items():
        printed = printed.replace(long, short)
    return _Name(printed)


class _Name(str):
    """Prints without quotes."""

    __repr__ = str.__str__


def finish(path: Path, html: str, root: str = "") -> None:
    """Writes a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(restored(linked(html, root)))


def restored(html: str) -> str:
    """With the characters that were kept from Markdown; JSON writes these as escapes."""
    for character, kept in KEPT.items():
        for found in (kept, json.dumps(kept)[1:-1]):
            html = html.replace(found, "&lt;" if character == "<" else character)
    return html


class _Page(HTMLParser):
    """Anchors and links of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links = set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keeps what is linked, or can be."""
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links |= {found[key] for key in ("href", "src") if found.get(key)}


def faults(out: Path) -> list[str]:
    """What is wrong with the pages: names that are missing, links that lead nowhere, signatures that cannot be read."""
    pages = {path.resolve(): _Page(path) for path in out.rglob("*.html")}
    found = []
    for name, kind in PUBLIC.items():
        space, _, member = name.rpartition(".")
        if kind == "module":
            space, member = name, ""
        target = pages.get((out / where(space)).resolve())
        if target is None or (member and member not in target.anchors):
            found.append(f"{name} is not on the site")
    for path, content in pages.items():
        for link in sorted(content.links):
            file, _, anchor = unquote(link).partition("#")
            if ":" in file:  # another site, or data
                continue
            target = (path.parent / file).resolve() if file else path
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                found.append(f"{path.name}: {link} leads nowhere")
        found += [f"{path.name}: {match[0]}" for match in UNREADABLE.finditer(path.read_text())]
    return found


def imported(name: str) -> types.ModuleType:
    """A module with all of its public names in it: pdoc does not ask for those that are imported when they are used."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        setattr(module, public, getattr(module, public))
    return module


def main() -> None:
    """Builds all of it into the folder that is named."""
    warnings.simplefilter("error")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    pdoc.docstrings.convert = docstring(pdoc.docstrings.convert)
    pdoc.render.env.filters["format_signature"] = pdoc.search.format_signature = signature
    pdoc.render.env.globals["spaces"] = SPACES
    pdoc.render.env.globals["menu"] = {
        group: [(title(source), address(source)) for source in sources] for group, sources in MENU.items()
    }
    pdoc.render.configure(docformat="google", template_directory=ROOT / ".github/site/templates")
    for source in SOURCES:
        finish(out / address(source), page(source, out))
    modules = {name: pdoc.doc.Module(imported(name)) for name in SPACES}
    for name, module in modules.items():
        finish(out / where(name), pdoc.render.html_module(module, modules), "../" * name.count("."))
    (out / "search.js").write_text(restored(pdoc.render.search_index(modules)))
    if found := faults(out):
        sys.exit("\n".join(found))
    print(f"{len(PUBLIC)} names on {len(modules)} pages, {len(SOURCES)} others: {out}/index.html")


if __name__ == "__main__":
    main()
