"""Damaged files: a seeded fuzzer that changes a small valid file and asks a loader to read it or to refuse it.

A loader passes where each file is read, or refused with a `ValueError` of one line, within a time and with few
allocations. What would end the process shows itself: pytest prints the stack, and the file is left where it was.
"""

import faulthandler
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SECONDS, HANGS = 5.0, 300.0  # of CPU time that a file may take; of time after which a hang ends the process
Make = Callable[[Path], Path]
Load = Callable[[Path], Any]


def mutations(sample: bytes, count: int, seed: int) -> Iterator[bytes]:
    """So many changed versions of a file, the same for each seed; every second one has more than one change."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(sample)
        for _ in range(1 if number % 2 else 1 + rng.integers(4)):
            data = _CHANGES[rng.integers(len(_CHANGES))](data, rng) or bytearray(1)
        yield bytes(data)


def fuzz(make: Make, load: Load, folder: Path, count: int, seed: int = 0, most: int = 2**26) -> int:
    """Ask a loader to read `count` damaged versions of what `make` writes; how many of them it read.

    Args:
        make: writes a valid file into a folder, and returns its path.
        load: the loader.
        folder: an empty one.
        count: of files.
        seed: of the changes.
        most: bytes that NumPy and Python may allocate at once.
    """
    path = make(folder)
    sample = path.read_bytes()
    load(path)
    read = 0
    tracemalloc.start()
    try:
        for number, data in enumerate(mutations(sample, count, seed)):
            path.write_bytes(data)
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            tracemalloc.reset_peak()
            faulthandler.dump_traceback_later(HANGS, exit=True)
            try:
                load(path)
                read += 1
            except ValueError as error:
                assert "\n" not in str(error), f"file {number} of seed {seed}: {error!r}"
            except Exception as error:
                raise AssertionError(f"file {number} of seed {seed}: {error!r}") from error
            finally:
                faulthandler.cancel_dump_traceback_later()
            allocated, seconds = tracemalloc.get_traced_memory()[1] - before, time.process_time() - start
            assert allocated <= most, f"file {number} of seed {seed}: {allocated} bytes allocated"
            assert seconds <= SECONDS, f"file {number} of seed {seed}: {seconds} seconds"
    finally:
        tracemalloc.stop()
    path.write_bytes(sample)
    load(path)  # what was refused left nothing behind
    return read


def other_tensors(tensors: Mapping[str, Any], count: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """So many state dicts in which some tensors are missing, of another shape, or have other names.

    All are zeros, which take no memory whatever their shape.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shapes = {key: tuple(x.shape) for key, x in tensors.items()}
        for _ in range(1 + rng.integers(3)):
            key = str(rng.choice(list(shapes)))
            match rng.integers(4):
                case 0:
                    del shapes[key]
                case 1:
                    shapes = {other: shape for other, shape in shapes.items() if rng.random() < 0.5} or {key: (1,)}
                case 2:
                    at = int(rng.integers(len(key)))
                    shapes[key[:at] + str(rng.choice(["", "0", ".", "x"])) + key[at + 1 :]] = shapes.pop(key)
                case _:
                    shapes[key] = _other_shape(shapes[key], rng)
            if not shapes:
                break
        yield {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


def _other_shape(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    if not shape or rng.random() < 0.25:
        return tuple(rng.integers(0, 4, rng.integers(6)).tolist())
    axis = int(rng.integers(len(shape)))
    size = int(rng.choice([0, 1, shape[axis] + 1, 2 * shape[axis], 2**20]))
    return (*shape[:axis], size, *shape[axis + 1 :])


def _span(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """A part of a file, short ones as often as long ones, and more often than not near its beginning."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 256)
    start = int(rng.integers(reach))
    return start, start + int(2 ** rng.uniform(0, np.log2(len(data) - start + 1)))


def _flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    data[_span(data, rng)[0]] ^= 1 << rng.integers(8)
    return data


def _any_byte(data: bytearray, rng: np.random.Generator) -> bytearray:
    data[_span(data, rng)[0]] = rng.integers(256)
    return data


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: _span(data, rng)[0]]


def _removed(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def _doubled(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = _span(data, rng)
    return data[:stop] + data[start:]


def _moved(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = _span(data, rng)
    at = int(rng.integers(len(data)))
    data[at : at + stop - start] = data[start:stop]
    return data


def _filled(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = _span(data, rng)
    data[start:stop] = bytes([rng.choice([0, 255])]) * (stop - start)
    return data


def _length(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A number of 1 to 8 bytes becomes another, as it would be for a length: extreme, or near what it was."""
    size = int(rng.choice([1, 2, 4, 8]))
    start = _span(data, rng)[0]
    order = rng.choice(["little", "big"])
    was = int.from_bytes(data[start : start + size], order)
    top = 256**size
    now = rng.choice(np.array([0, 1, top - 1, top // 2, top // 2 - 1, was + 1, was - 1, 2 * was, was // 2], object))
    data[start : start + size] = (int(now) % top).to_bytes(size, order)
    return data


def _digit(data: bytearray, rng: np.random.Generator) -> bytearray:
    """What is written in digits becomes longer: sizes in headers that are text."""
    digits = [at for at, byte in enumerate(data[:512]) if 48 <= byte < 58]
    if not digits:
        return _flip(data, rng)
    at = int(rng.choice(digits))
    return data[:at] + bytes(rng.choice([b"", b"9", b"99999", b"-1", b"0", b"1e9", b"\0"])) + data[at + 1 :]


_CHANGES = (_flip, _any_byte, _cut, _removed, _doubled, _moved, _filled, _length, _length, _digit)
