"""Columns: many short values as a few blocks of memory, so that a data set's size is hardly felt beside a network's."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Texts:
    """Texts, kept as the bytes of one and the places where each ends: a third of the memory of a tuple.

    >>> texts = Texts(["a.jpg", "b/c.jpg"])
    >>> len(texts), texts[1], list(texts)
    (2, 'b/c.jpg', ['a.jpg', 'b/c.jpg'])
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._content, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._content += text.encode(errors="surrogatepass")  # a file name may hold what is no text
        self._ends.append(len(self._content))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        if not 0 <= place < len(self):
            raise IndexError(f"there are {len(self)} texts, but got place {place}.")
        return self._content[self._ends[place] : self._ends[place + 1]].decode(errors="surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return column_schema(cls, handler(str))


def column_schema(column: type[Any], item: CoreSchema) -> CoreSchema:
    """Return how pydantic reads and writes a column: as a JSON array, of which one item is made at a time."""
    items = core_schema.generator_schema(item)
    return core_schema.union_schema(
        [core_schema.is_instance_schema(column), core_schema.no_info_after_validator_function(column, items)],
        mode="left_to_right",
        serialization=core_schema.plain_serializer_function_ser_schema(iter, return_schema=items),
    )
