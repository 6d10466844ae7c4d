"""What is read for a batch, by name: for messages about samples that fail, hang, or give a loss that is not finite."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxup.files import InputError

_SHOWN = 20
_READ = threading.local()  # names that this thread read
_READING: dict[int, str] = {}  # by thread, what it reads just now


class Named:
    """A source whose samples are noted as they are read.

    Args:
        source: of samples with a "name", or with `name_of` their number, or known by their number.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        thread, what = threading.get_ident(), f"sample {index} of {type(self._source).__name__}"
        _READING[thread] = what
        try:
            sample = self._source[index]
        except InputError:  # names its file
            raise
        except Exception as error:
            raise InputError(f"{what}: cannot be read: {reason(error)}") from error
        finally:
            _READING.pop(thread, None)
        noted = getattr(_READ, "names", None)
        if noted is not None:
            noted.append(str(getattr(sample, "name", None) or getattr(self._source, "name_of", lambda _: what)(index)))
        return sample


@contextmanager
def noted() -> Iterator[list[str]]:
    """The names of the samples that this thread reads inside the block."""
    _READ.names = []
    try:
        yield _READ.names
    finally:
        _READ.names = None


def being_read() -> list[str]:
    """The samples that any thread reads just now."""
    return list(_READING.values())


def listed(names: Sequence[str]) -> str:
    """Names as one line, each once."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    return ", ".join(different[:_SHOWN]) + more


def reason(error: BaseException) -> str:
    """What an error says, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
