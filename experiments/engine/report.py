"""Results for people: Markdown tables with the paper's numbers, printed and saved."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine.processes import first_alone, is_first
from experiments.engine.stopping import held
from jaxup._writing import write_file
from jaxup.files import InputError

Row = Mapping[str, Any]
_UNFINISHED = ".unfinished"


def markdown_table(rows: Sequence[Row], columns: Sequence[str] | None = None, *, digits: int = 4) -> str:
    """Formats rows as a Markdown table that is also readable as plain text.

    Args:
        rows: one mapping per line; a column that is missing gives an empty cell.
        columns: keys of the rows, in order; they are the headings. None: those of the first row.
        digits: significant digits of floating-point numbers.

    Returns:
        The table, without a newline at its end. Columns of numbers are aligned to the right.

    Example:
        >>> rows = [{"method": "bicubic", "4x": 1.23456}, {"method": "ours", "4x": 0.5}]
        >>> print(markdown_table(rows, ["method", "4x"]))
        | method  |     4x |
        | :------ | -----: |
        | bicubic |  1.235 |
        | ours    | 0.5000 |
    """
    columns = list(rows[0]) if columns is None else columns
    cells = [[_cell(row.get(column, ""), digits) for column in columns] for row in rows]
    numeric = [_is_numeric([row.get(column, "") for row in rows]) for column in columns]
    widths = [max(3, *(len(line[i]) for line in [list(columns), *cells])) for i in range(len(columns))]
    rule = ["-" * (w - 1) + ":" if right else ":" + "-" * (w - 1) for w, right in zip(widths, numeric, strict=True)]

    def line(values: Sequence[str]) -> str:
        aligned = zip(values, widths, numeric, strict=True)
        return "| " + " | ".join(v.rjust(w) if right else v.ljust(w) for v, w, right in aligned) + " |"

    return "\n".join([line(columns), line(rule), *(line(row) for row in cells)])


def _is_numeric(values: Sequence[Any]) -> bool:
    filled = [value for value in values if value != ""]
    return bool(filled) and not any(isinstance(value, str) for value in filled)


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:#.{digits}g}".removesuffix(".")
    return str(value).replace("|", "\\|")


def beside_paper(rows: Sequence[Row], paper: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Puts the paper's columns beside ours, and the methods that only the paper has below.

    Args:
        rows: with the key "method" and numbers.
        paper: by column of the rows, by method: what the paper has, as printed.

    Returns:
        Rows with a column "paper" after each of these columns.

    Example:
        >>> rows = beside_paper([{"method": "bicubic", "8x": 7.0}], {"8x": {"bicubic": "7.58", "MRF": "7.43"}})
        >>> print(markdown_table(rows, digits=3))
        | method  |   8x | paper |
        | :------ | ---: | :---- |
        | bicubic | 7.00 | 7.58  |
        | MRF     |      | 7.43  |
    """
    ours = [row["method"] for row in rows]
    others = dict.fromkeys(name for column in paper.values() for name in column if name not in ours)
    result = []
    for row in [*rows, *({"method": name} for name in others)]:
        cells: dict[str, Any] = {}
        for column in rows[0]:
            cells[column] = row.get(column, "")
            if column in paper:
                heading = "paper" if len(paper) == 1 else f"paper {column}"
                cells[heading] = paper[column].get(row["method"], "")
        result.append(cells)
    return result


def publish(out: Path | None, results: Any, text: str) -> None:
    """Prints the tables, and writes them to a directory, if there is one."""
    if is_first():
        print(text, flush=True)
    if out is not None:
        save_results(out, results, text)


def check_out(out: Path | None, pictures: bool = False) -> None:
    """Refuses a directory for results that exists, but for one that a killed command left, and pictures without one."""
    if pictures and out is None:
        raise InputError("pictures: expected a directory for them, --out")
    if out is not None and os.path.lexists(out) and not (out / _UNFINISHED).is_file():
        raise InputError(f"{out}: exists already")


def leaves_results(command: Callable[[Any], None]) -> Callable[[Any], None]:
    """A command whose results, if it is killed before it has all of them, do not stand in its way the next time.

    Args:
        command: of a configuration with "out", which may be None, and perhaps "pictures"; or with an `Output`.

    Returns:
        The command, which refuses a directory that exists; while it runs, the file `.unfinished` is in there.
    """

    @functools.wraps(command)
    def run(config: Any) -> None:
        asked = getattr(config, "output", config)
        with contextlib.ExitStack() as stack:
            first_alone(lambda: stack.enter_context(_claimed(asked.out, getattr(asked, "pictures", False))))
            command(config)

    return run


@contextlib.contextmanager
def _claimed(out: Path | None, pictures: bool) -> Iterator[None]:
    """A directory, unfinished until the end of the block; without one if there was an error and nothing is in it."""
    check_out(out, pictures)
    if out is None:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with held(out / _UNFINISHED, f"{out}: another process is writing there"):
        try:
            yield
        except BaseException:
            if [entry.name for entry in out.iterdir()] == [_UNFINISHED]:
                (out / _UNFINISHED).unlink()
                out.rmdir()
            raise
        (out / _UNFINISHED).unlink()


@dataclass(frozen=True)
class Output:
    """What a comparison leaves behind."""

    out: Path | None = None
    """Directory for table.md and results.json, which must not exist yet; none: the table is only printed."""
    pictures: bool = False
    """Write pictures of what each network makes to `out`."""

    @property
    def folder(self) -> Path | None:
        """Of the pictures, if there are to be any."""
        return self.out if self.pictures else None


def save_results(directory: Path, results: Any, text: str) -> None:
    """Writes results.json and table.md."""
    if not is_first():
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_file(directory / "results.json", f"{json.dumps(results, indent=2)}\n".encode())
    write_file(directory / "table.md", f"{text}\n".encode())
