"""What the subcommands share: their parser, checks of outputs, messages and progress."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from jaxup.files import InputError, depth_format, require

_PATIENCE = 2.0  # seconds between lines of a solver's steps

Show = Callable[[int, int], None]  # tiles done, tiles in all
FORCE = "overwrite FILE, but never an input; a link is replaced, what it points to stays as it is"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Without the usage."""
        raise InputError(message)


def tile_size(text: str) -> int:
    """The value of --tile."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of pixels, or 0, got {text!r}")
    return int(text)


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def check_out(out: Path, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a name of an output that cannot be written, exists, or is an input."""
    if depth_format(out) == "EXR":
        require("OpenEXR")
    check_path(out, force, inputs)


def check_path(out: Path, force: bool, inputs: Iterable[Path] = ()) -> None:
    """The same of any ending. Links and other names of an input are the input."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent}: no permission to write there")
    if out.is_dir():
        raise InputError(f"{out}: is a folder")
    for path in inputs:
        if path.resolve() == out.resolve() or (out.exists() and path.exists() and out.samefile(path)):
            raise InputError(f"{out}: is also an input, {path}")
    if not os.path.lexists(out):  # a link to nothing is something
        return
    if not out.is_symlink() and not out.is_file():
        raise InputError(f"{out}: is no regular file")
    if not force:
        raise InputError(f"{out}: exists already; --force overwrites it")


def keep_compiled(folder: Path) -> None:
    """Let JAX read compiled programs from a folder, and keep there what it compiles."""
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"{folder}: expected a folder to write to, for --cache")
    folder.mkdir(parents=True, exist_ok=True)
    import jax  # takes a second

    set_option: Callable[[str, object], None] = jax.config.update  # which has no types
    set_option("jax_compilation_cache_dir", str(folder.resolve()))
    set_option("jax_persistent_cache_min_compile_time_secs", 0)


@contextmanager
def progress(name: str, unit: str = "tile") -> Iterator[Show]:
    """A bar on a terminal, where rich is installed, and plain lines elsewhere; nothing for a single tile."""
    try:
        if not sys.stderr.isatty():
            raise ImportError
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield _print_tile if unit == "tile" else _print_step()
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_tile(done: int, total: int) -> None:
    if total > 1:
        print(f"tile {done}/{total}", file=sys.stderr, flush=True)


def _print_step() -> Show:
    """A line every few seconds: most solvers take less."""
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        if total > 1 and time.monotonic() - printed > _PATIENCE:
            printed = time.monotonic()
            print(f"step {done}/{total}", file=sys.stderr, flush=True)

    return show
