"""A strict reader of the few fields of Caffe's `.caffemodel` files that hold weights.

Such a file is a protocol buffer: fields of a number and a type, some of which are messages with fields of their own. A
network, its layers, their arrays and the shapes of these are read, so nothing is deeper than four messages; all else
is stepped over. Arrays are views of the file, of which at most `MAX_BYTES` are read.

Reference:
    Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, 2014: NetParameter, LayerParameter,
    V1LayerParameter, BlobProto, BlobShape. Protocol Buffers: Encoding.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_BYTES = 2**26
_MOST, _AXES = 2**16, 32  # fields in a file, and axes of an array
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LAYERS = {100: (1, 7), 2: (4, 6)}  # field of a network -> fields of the name and the arrays of its layers, new and old
_DATA = {5: (_FIXED32, "<f4"), 8: (_FIXED64, "<f8")}
_SHAPE, _OLD_SHAPE = 7, (1, 2, 3, 4)


class Layer(NamedTuple):
    """A layer's name and its arrays, filters before biases."""

    name: str
    blobs: list[np.ndarray]


def read_caffemodel(path: Path) -> list[Layer]:
    """Read all layers that have arrays.

    Raises:
        ValueError: another format, a damaged file, or one that is too large.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    count, layers = iter(range(_MOST)), []
    for number, kind, part in _fields(memoryview(path.read_bytes()), count):
        if number in _LAYERS:
            layers.append(_layer(_message(kind, part), *_LAYERS[number], count))
    return [layer for layer in layers if layer.blobs]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to ten bytes of seven bits, and where it ends."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise ValueError("a number without an end")


def _fields(data: memoryview, count: Iterator[int]) -> Iterator[tuple[int, int, memoryview]]:
    """The number, type and bytes of each field; `count` is shared by all messages of a file."""
    at = 0
    while at < len(data):
        if next(count, None) is None:
            raise ValueError(f"more than {_MOST} fields")
        tag, start = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, start)
        elif kind == _BYTES or kind in _SIZES:
            size, start = _varint(data, start) if kind == _BYTES else (_SIZES[kind], start)
            at = start + size
        else:
            raise ValueError(f"a field of type {kind}")
        if tag < 8 or at > len(data):
            raise ValueError("a field without a number" if tag < 8 else "the file is cut off")
        yield tag >> 3, kind, data[start:at]


def _message(kind: int, part: memoryview) -> memoryview:
    if kind != _BYTES:
        raise ValueError(f"a field of type {kind} where bytes are expected")
    return part


def _layer(data: memoryview, name_field: int, blobs_field: int, count: Iterator[int]) -> Layer:
    name, blobs = "", []
    for number, kind, part in _fields(data, count):
        if number == name_field:
            name = bytes(_message(kind, part)).decode()
        elif number == blobs_field:
            blobs.append(_blob(_message(kind, part), count))
    return Layer(name, blobs)


def _blob(data: memoryview, count: Iterator[int]) -> np.ndarray:
    """An array of float32 or float64, packed or number by number; older files have its shape in four fields."""
    shape: list[int] | None = None
    old: dict[int, int] = {}
    parts: list[np.ndarray] = []
    for number, kind, part in _fields(data, count):
        if number in _DATA:
            single, dtype = _DATA[number]
            if kind not in (_BYTES, single) or len(part) % _SIZES[single]:
                raise ValueError(f"{len(part)} bytes of type {kind} where numbers are expected")
            parts.append(np.frombuffer(part, dtype))
        elif number == _SHAPE:
            shape = _axes(_message(kind, part), count)
        elif number in _OLD_SHAPE and kind == _VARINT:
            old[number] = _varint(part, 0)[0]
    values = np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.zeros(0, np.float32)
    if shape is None:
        shape = [old.get(number, 0) for number in _OLD_SHAPE] if old else [values.size]
    if math.prod(shape) != values.size:
        raise ValueError(f"{values.size} numbers for an array of shape {shape}")
    return values.reshape(shape)


def _axes(data: memoryview, count: Iterator[int]) -> list[int]:
    axes: list[int] = []
    for number, kind, part in _fields(data, count):
        at = 0
        while number == 1 and kind in (_BYTES, _VARINT) and at < len(part):
            axis, at = _varint(part, at)
            axes.append(axis)
            if len(axes) > _AXES:
                raise ValueError(f"an array of more than {_AXES} axes")
    return axes
