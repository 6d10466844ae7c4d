"""A strict reader of the few elements of MATLAB's MAT-files of version 5 to 7 that networks and label maps need.

Numbers, text, cells and structs are read; whatever else a file has (sparse, complex and object arrays, functions) stays
unread and is called by its name. Nothing is allocated before the file was seen to hold it, and at most `MAX_BYTES`.

Reference:
    MATLAB MAT-File Format, The MathWorks: level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**26  # of all variables, unpacked
_MOST, _DEEPEST = 2**16, 32  # arrays in a variable, and in each other
_EXPANSION = 1040  # bytes that deflate makes of one, at most
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_CELL, _STRUCT, _CHAR, _NUMERIC = 1, 2, 4, range(6, 16)
_OTHERS = {3: "an object", 5: "a sparse array", 16: "a function"}
_OPAQUE = 17  # an object of a class, which has no shape
_COMPLEX = 8  # a bit of an array's flags


@dataclass(frozen=True)
class Unread:
    """What stands for an array of a kind that is not read."""

    kind: str


def read_mat(path: Path, name: str) -> Any:
    """Read one variable.

    Args:
        path: a file of version 5 to 7.
        name: of the variable.

    Returns:
        Numbers as an array in the type that the file stores; text as str; a cell array as the list of its elements,
        column by column; a struct array as a list of dicts; other kinds as `Unread`.

    Raises:
        ValueError: another format, a damaged file, no such variable, or one that is too large.
    """
    left, found = MAX_BYTES, []
    with path.open("rb") as file:
        head = file.read(128)
        if len(head) < 128 or head[126:] not in (b"IM", b"MI"):
            raise ValueError("expected a MAT-file of version 5 to 7")
        order = "<" if head[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}II", tag.ljust(8, b"\0"))
            if size > left:
                raise ValueError(f"a variable of more than {MAX_BYTES} bytes")
            if len(tag) < 8 or size > path.stat().st_size - file.tell():
                raise ValueError("the file is cut off")
            stored = file.read(size)
            data = _unpacked(stored, order, left) if kind == _COMPRESSED else tag + stored
            left -= len(data)
            variable, value = _Elements(data, order).matrix(wanted=name)
            found.append(variable)
            if isinstance(value, Unread):
                raise ValueError(f"{name} is {value.kind}, which is not read")
            if variable == name:
                return value
    raise ValueError(f"expected a variable {name}, there are {', '.join(found) or 'none'}")


def _unpacked(stored: bytes, order: str, most: int) -> bytes:
    """A compressed element, of which the tag says the size."""
    inflate = zlib.decompressobj()
    try:
        tag = inflate.decompress(stored, 8)
        size = struct.unpack(f"{order}II", tag)[1]
        if size > min(most, _EXPANSION * len(stored)):
            raise ValueError(f"a compressed variable of {size} bytes")
        return tag + inflate.decompress(inflate.unconsumed_tail, max(size, 1))
    except (zlib.error, struct.error) as error:
        raise ValueError(f"a compressed variable is damaged: {error}") from error


def numbers_of(value: Any) -> np.ndarray:
    """The same value, if it is an array of numbers."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"expected numbers, got {value.kind if isinstance(value, Unread) else type(value).__name__}")
    return value


class _Elements:
    """The elements of a part of a file, one after the other; `count` is shared by all parts of a variable."""

    def __init__(self, data: bytes | memoryview, order: str, depth: int = 0, count: Iterator[int] | None = None):
        self.data, self.order, self.depth = memoryview(data), order, depth
        self.count = iter(range(_MOST)) if count is None else count

    def element(self, *kinds: int) -> tuple[int, memoryview]:
        """The next one, of one of these types: its type and content."""
        if len(self.data) < 8:
            raise ValueError("the file is cut off")
        first, size = struct.unpack(f"{self.order}II", self.data[:8])
        start, kind = 8, first
        if first >> 16:  # up to four bytes stand in the place of their number
            start, kind, size = 4, first & 0xFFFF, first >> 16
        if kind not in kinds or size > (4 if start == 4 else len(self.data) - 8):
            raise ValueError(f"an element of type {kind} and {size} bytes where one of {kinds} is expected")
        content = self.data[start : start + size]
        self.data = self.data[8 if start == 4 else 8 + -(-size // 8) * 8 :]
        return kind, content

    def integers(self, kind: int) -> list[int]:
        _, content = self.element(kind)
        return [int(n) for n in np.frombuffer(content, self.order + _NUMBERS[kind])]

    def matrix(self, wanted: str | None = None) -> tuple[str, Any]:
        """The next array: its name and value; without the value, if another name is wanted."""
        if self.depth > _DEEPEST or next(self.count, None) is None:
            raise ValueError(f"more than {_MOST} arrays, or more than {_DEEPEST} in each other")
        _, content = self.element(_MATRIX)
        if not content:
            return "", np.zeros((0, 0))
        inner = _Elements(content, self.order, self.depth + 1, self.count)
        flags = inner.integers(_UINT32)
        if flags and flags[0] & 0xFF == _OPAQUE:
            name = bytes(inner.element(_INT8)[1]).decode("latin-1")
            return name, Unread("an object of a class") if wanted in (None, name) else None
        shape = inner.integers(_INT32)
        name = bytes(inner.element(_INT8)[1]).decode("latin-1")
        if len(flags) != 2 or len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"{name}: an array of flags {flags} and shape {shape}")
        return name, inner._value(flags[0], shape) if wanted in (None, name) else None

    def _value(self, flags: int, shape: list[int]) -> Any:
        kind = flags & 0xFF
        if kind in _OTHERS or (flags >> 8) & _COMPLEX:
            return Unread(_OTHERS.get(kind, "complex numbers"))
        if kind == _CHAR:
            encoding, text = self.element(*_TEXT)
            wide = _TEXT[encoding] + {"<": "-le", ">": "-be"}[self.order] * (encoding in (4, 17, 18))
            return bytes(text).decode(wide, "replace")
        if kind in (_CELL, _STRUCT):
            fields = self._fields() if kind == _STRUCT else [""]
            count = math.prod(shape) if fields else 0
            if count * len(fields) * 8 > len(self.data):
                raise ValueError(f"fewer arrays than a shape of {shape} has")
            rows = [{field: self.matrix()[1] for field in fields} for _ in range(count)]
            return rows if kind == _STRUCT else [row[""] for row in rows]
        if kind not in _NUMERIC:
            raise ValueError(f"an array of unknown class {kind}")
        stored, content = self.element(*_NUMBERS)
        return np.frombuffer(content, self.order + _NUMBERS[stored]).reshape(shape, order="F")

    def _fields(self) -> list[str]:
        (length,) = self.integers(_INT32) or [0]
        names = bytes(self.element(_INT8)[1])
        if length < 1 or len(names) % length:
            raise ValueError(f"names of fields of {length} bytes each in {len(names)}")
        return [names[i : i + length].rstrip(b"\0").decode("latin-1") for i in range(0, len(names), length)]
