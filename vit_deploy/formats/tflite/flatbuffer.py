"""Tables of a flatbuffer, read in place."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing import Self  # since Python 3.11, and devices have 3.10

Kind = TypeVar("Kind", bound="Table")


@dataclass(frozen=True)
class Table:
    """One table of a flatbuffer; its fields are told apart by their position in the schema.

    Args:
        data: all bytes of the file.
        position: the offset of the table in the bytes.
    """

    data: Any
    position: int

    @classmethod
    def of(cls, table: Table) -> Self:
        """Another table, such as one of a union, taken for one of this kind."""
        return cls(table.data, table.position)

    def _number(self, kind: str, position: int) -> int:
        return int(struct.unpack_from("<" + kind, self.data, position)[0])

    def field(self, index: int) -> int:
        """Where the content of a field, or the reference to it, starts; zero where it is absent."""
        vtable = self.position - self._number("i", self.position)
        if 4 + 2 * index >= self._number("H", vtable):
            return 0
        offset = self._number("H", vtable + 4 + 2 * index)
        return self.position + offset if offset else 0

    def number(self, index: int, kind: str) -> int:
        """A scalar field by its `struct` letter; zero where it is absent."""
        field = self.field(index)
        return self._number(kind, field) if field else 0

    def target(self, index: int) -> int:
        """Where the table, vector or string in a field starts; zero where it is absent."""
        field = self.field(index)
        return field + self._number("I", field) if field else 0

    def table(self, index: int, kind: type[Kind]) -> Kind | None:
        """The table in a field."""
        target = self.target(index)
        return kind(self.data, target) if target else None

    def tables(self, index: int, kind: type[Kind]) -> list[Kind]:
        """The tables of a vector."""
        start = self.target(index)
        if not start:
            return []
        slots = range(start + 4, start + 4 + 4 * self._number("I", start), 4)
        return [kind(self.data, slot + self._number("I", slot)) for slot in slots]

    def view(self, index: int) -> Any:
        """A vector of bytes, not copied where `data` is a memory view."""
        start = self.target(index)
        return self.data[start + 4 : start + 4 + self._number("I", start)] if start else b""

    def text(self, index: int) -> str:
        """A string."""
        return bytes(self.view(index)).decode()

    def numbers(self, index: int, kind: str) -> list[int]:
        """A vector of integers."""
        return list(self._vector(index, kind))

    def floats(self, index: int) -> list[float]:
        """A vector of 32-bit floats."""
        return list(self._vector(index, "f"))

    def _vector(self, index: int, kind: str) -> tuple[Any, ...]:
        start = self.target(index)
        count = self._number("I", start) if start else 0
        return struct.unpack_from(f"<{count}{kind}", self.data, start + 4) if count else ()
