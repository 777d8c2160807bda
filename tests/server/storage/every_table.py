"""An SQLite database with rows in every table that its schema has, now and later."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from flagd_server.storage.transfer import LOCAL, SEEDED, Table

ROWS = 3
# What has to be written in another way somewhere between two databases.
_AWKWARD = "ü\t\\N \\. '\"%s\r\n\N{PILE OF POO}"


class _Column(NamedTuple):
    name: str
    type: str
    is_required: bool
    is_boolean: bool


def fill_every_table(path: Path, tables: Iterable[Table]) -> None:
    """Write `ROWS` rows into each table: the last with nothing where that may be.

    A value depends on the row's number and the column's type alone, so that references are right.

    Args:
        tables: as Postgres has them.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN")
    connection.execute("PRAGMA defer_foreign_keys = ON")
    for table in tables:
        if table.name not in LOCAL | SEEDED:
            columns = _columns(connection, table)
            names = ", ".join(f'"{column.name}"' for column in columns)
            places = ", ".join("?" * len(columns))
            connection.executemany(
                f'INSERT INTO "{table.name}" ({names}) VALUES ({places})',
                [[_value(column, number) for column in columns] for number in range(ROWS)],
            )
    connection.execute("UPDATE meta SET value = 42")
    connection.execute("COMMIT")
    connection.close()


def content_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of each table but the migrations', with their numbers where they have some.

    The sequence numbers of environments are left out: they are to change.
    """
    connection = sqlite3.connect(path)
    tables = connection.execute(
        "SELECT name, sql LIKE '%WITHOUT ROWID%' FROM sqlite_master WHERE type = 'table'"
    ).fetchall()
    content = {}
    for name, has_no_number in tables:
        if name in ("_sqlite_migrations", "sqlite_stat1"):
            continue
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')]
        chosen = [f'"{column}"' for column in columns if (name, column) != _SEQUENCE]
        # Rows with a key of text have a number too, by which nothing goes.
        number = [] if has_no_number or name not in _ORDERED else ["rowid"]
        content[name] = sorted(
            connection.execute(f'SELECT {", ".join(number + chosen)} FROM "{name}"').fetchall(),
            key=repr,
        )
    connection.close()
    return content


_SEQUENCE = ("environments", "sequence")
_ORDERED = ("tokens", "error_kinds", "evidence", "evidence_notes")
"""Tables whose rows are read in the order in which they were written."""


def _columns(connection: sqlite3.Connection, table: Table) -> list[_Column]:
    booleans = {column.name for column in table.columns if column.is_boolean}
    rows = connection.execute(f'PRAGMA table_info("{table.name}")').fetchall()
    return [
        _Column(name, kind, bool(required or in_key), name in booleans)
        for _, name, kind, required, _, in_key in rows
    ]


def _value(column: _Column, number: int) -> object:
    if number == ROWS - 1 and not column.is_required:
        return None
    if column.is_boolean:
        return number % 2
    if column.type == "INTEGER":
        return number + 1
    if column.type == "REAL":
        return number + 0.1
    if column.name in ("previous_hash", "hash"):  # of the audit: each is to follow the last
        return bytes([number + (column.name == "hash")]) * 32
    if column.type == "BLOB":
        return bytes([number, 0, 255, 92]) * 4
    assert column.type == "TEXT", column
    return f"{number} {_AWKWARD}"
