"""Moves all content of one database to another, row by row, and checks what has arrived.

Of the two one is SQLite and the other Postgres: tables and columns bear the same names in both,
and a row is the same tuple of values. Where SQLite goes by the order of its rows, Postgres has a
number. The caller has a transaction open on either side, and commits only what this returns from.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from flagd_server.errors import StorageError

Value = None | int | float | str | bytes
Row = tuple[Value, ...]
OnProgress = Callable[[str, int, int], None]
"""(what is being worked on, how much of the whole is done, how much that is)."""

LOCAL = frozenset({"leadership"})
"""Tables that say something of the servers at work, and not of what they keep."""
SEEDED = frozenset({"meta"})
"""Tables in which the schema itself has written: what is there is replaced."""

_STEP = 500
"""Rows between two words of the progress."""
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Column:
    """A column, as Postgres has it.

    Attributes:
        is_number: it is numbered by the database; SQLite may have the number of the row instead.
    """

    name: str
    is_boolean: bool
    is_number: bool


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[Column, ...]

    @property
    def number(self) -> str | None:
        """The column that the database numbers."""
        return next((column.name for column in self.columns if column.is_number), None)


class Source(Protocol):
    """A database, in a transaction that sees one state of it."""

    def count(self, table: Table) -> int: ...
    def rows(self, table: Table) -> Iterator[Row]:
        """Yield its rows, in the order of their numbers where they have some."""
        ...

    def last_number(self, table: Table) -> int:
        """Return the highest number that was ever given to a row; 0 where none was."""
        ...


class Target(Source, Protocol):
    def clear(self, table: Table) -> None: ...
    def write(self, table: Table, rows: Iterable[Row]) -> None: ...
    def set_last_number(self, table: Table, number: int) -> None:
        """Have the next row that is written get a number above this one."""
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """A table that has arrived whole.

    Attributes:
        checksum: of its content, whatever the order of its rows; as hexadecimal digits.
    """

    table: str
    rows: int
    checksum: str


class _Content:
    """Counts rows and adds up their digests, so that their order does not matter."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = 0
        self._sum = 0
        self._source = rows

    def __iter__(self) -> Iterator[Row]:
        for row in self._source:
            self.rows += 1
            # Between Python's own values a repr is the same only where value and type are.
            digest = hashlib.sha256(repr(row).encode()).digest()
            self._sum = (self._sum + int.from_bytes(digest)) % _MODULUS
            yield row

    @property
    def checksum(self) -> str:
        return f"{self._sum:064x}"[:32]


class _Progress:
    """Each row counts twice: when it is written, and when it is read again."""

    def __init__(self, rows: int, on_progress: OnProgress) -> None:
        self._done = 0
        self._total = 2 * rows
        self._on_progress = on_progress

    def over(self, what: str, rows: Iterable[Row]) -> Iterator[Row]:
        self._on_progress(what, self._done, self._total)
        for row in rows:
            yield row
            self._done += 1
            if self._done % _STEP == 0:
                self._on_progress(what, self._done, self._total)
        self._on_progress(what, self._done, self._total)


def move(
    tables: Iterable[Table], source: Source, target: Target, on_progress: OnProgress
) -> list[Moved]:
    """Write everything of the source into the target, and read it there again.

    Args:
        tables: those of the databases, each after what it refers to.

    Raises:
        StorageError: the target is not empty, or what arrived is not what was sent.
    """
    moved = [table for table in tables if table.name not in LOCAL]
    for table in moved:
        if table.name in SEEDED:
            target.clear(table)
        elif target.count(table):
            raise StorageError(
                f"expected an empty database, but its table {table.name} has rows already;"
                " nothing was changed"
            )
    progress = _Progress(sum(source.count(table) for table in moved), on_progress)
    return [_move_table(table, source, target, progress) for table in moved]


def _move_table(table: Table, source: Source, target: Target, progress: _Progress) -> Moved:
    sent = _Content(progress.over(table.name, source.rows(table)))
    target.write(table, sent)
    if table.number is not None:
        target.set_last_number(table, source.last_number(table))
    arrived = _Content(progress.over(table.name, target.rows(table)))
    for _ in arrived:
        pass
    if (arrived.rows, arrived.checksum) != (sent.rows, sent.checksum):
        raise StorageError(
            f"the table {table.name} did not arrive as it was sent: {sent.rows} rows with checksum"
            f" {sent.checksum}, but {arrived.rows} with {arrived.checksum}; nothing was changed"
        )
    return Moved(table.name, sent.rows, sent.checksum)
