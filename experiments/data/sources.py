"""Sources of examples: sequences of no given length in memory, as all tasks have them."""

from typing import Generic, Protocol, TypeVar

from jaxup.files import InputError

_Example_co = TypeVar("_Example_co", covariant=True)
_Example = TypeVar("_Example")


class Source(Protocol[_Example_co]):
    """A sequence of examples, read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> _Example_co: ...


class Cached(Generic[_Example]):
    """Keeps the examples of a source in memory after their first use."""

    def __init__(self, source: Source[_Example]):
        self.source = source
        self._kept: dict[int, _Example] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> _Example:
        index = range(len(self))[index]
        if index not in self._kept:
            self._kept[index] = self.source[index]
        return self._kept[index]


class First(Generic[_Example]):
    """The first `count` examples of a source, which errors call by `name`.

    Raises:
        InputError: there are fewer, or the count is below 1.
    """

    name = "images"

    def __init__(self, source: Source[_Example], count: int):
        if not 1 <= count <= len(source):
            raise InputError(f"{self.name}: expected 1 to {len(source)}, as many as there are, got {count}")
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> _Example:
        return self.source[range(self.count)[index]]
