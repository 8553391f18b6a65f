"""Many rows in little memory: held compressed, a few dozen bytes each, where objects take kilobytes.

>>> candidates = read(folder / "candidates.jsonl", Candidate)
>>> len(candidates), candidates[0].stage, [row.text for row in candidates[::1000]]
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from culturellm_utils.records import Row, rows_of

T = TypeVar("T", bound=Row)
#: Rows that are compressed, and read, together.
BLOCK = 512


class Packed(Sequence[T]):
    """Rows of one model, to be read like a list and added to at the end. Rows are frozen, so it plays no part that each
    reading makes them anew. Read them in order where you can: a row alone costs as much as its block."""

    def __init__(self, model: type[T], rows: Iterable[T] = ()) -> None:
        self._model = model
        self._blocks: list[bytes] = []
        self._starts: list[int] = []  # the place of each block's first row
        self._closed = 0  # rows in blocks
        self._open: list[T] = []  # rows that are not yet in one
        self._read: tuple[int, list[T]] = (-1, [])  # a block's number, and its rows
        self.extend(rows)

    def append(self, row: T) -> None:
        """Add a row."""
        self._open.append(row)
        if len(self._open) == BLOCK:
            self._close()

    def extend(self, rows: Iterable[T]) -> None:
        """Add rows one by one, or the blocks of others that are packed."""
        if isinstance(rows, Packed) and rows._model is self._model:
            self._close()
            self._starts += [self._closed + start for start in rows._starts]
            self._blocks += rows._blocks
            self._closed += rows._closed
            rows = [*rows._open]
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return self._closed + len(self._open)

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        if place >= self._closed:
            return self._open[place - self._closed]
        number = bisect_right(self._starts, place) - 1
        return self._block(number)[place - self._starts[number]]

    def __iter__(self) -> Iterator[T]:
        for number in range(len(self._blocks)):
            yield from self._block(number)
        yield from self._open

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Sequence) and len(self) == len(other)
                and all(mine == theirs for mine, theirs in zip(self, other, strict=True)))

    def __repr__(self) -> str:
        return f"<{len(self):,} packed rows: {self._model.__name__}>"

    def _close(self) -> None:
        if self._open:
            self._starts.append(self._closed)
            self._blocks.append(zlib.compress(_lists(self._model).dump_json(self._open), 1))
            self._closed += len(self._open)
            self._open = []

    def _block(self, number: int) -> list[T]:
        if self._read[0] != number:
            self._read = number, _lists(self._model).validate_json(zlib.decompress(self._blocks[number]))
        return self._read[1]


@cache
def _lists(model: type[T]) -> TypeAdapter[list[T]]:
    return TypeAdapter(list[model])


def read(path: Path | str, model: type[T]) -> Packed[T]:
    """The rows of a JSON Lines file. Raises what :func:`culturellm_utils.records.read_rows` raises."""
    return Packed(model, rows_of(path, model))
