"""An SQLite database as the source or the target of a transfer."""

import sqlite3
from collections.abc import Iterable, Iterator

from flagd_server.errors import StorageError
from flagd_server.storage.transfer import LOCAL, Column, Row, Table


class SqliteContent:
    """All of a database, on a connection that has a transaction open. See `transfer.Target`."""

    def __init__(self, connection: sqlite3.Connection, tables: Iterable[Table]) -> None:
        """Args:
        tables: those of the other side.

        Raises:
            StorageError: it has others.
        """
        self._connection = connection
        here = self._columns()
        there = {table.name: table for table in tables}
        for name in here.keys() ^ there.keys():
            if name not in LOCAL:
                raise StorageError(f"only one of the databases has a table {name}")
        for name, columns in here.items():
            if name not in LOCAL:
                _check_columns(there[name], columns)
        self._here = here

    def count(self, table: Table) -> int:
        return self._integer(_select("count(*)", table))

    def rows(self, table: Table) -> Iterator[Row]:
        query = _select(self._list(table), table)
        if table.number is not None:
            query += f" ORDER BY {self._expression(table, table.number)}"
        return self._connection.execute(query)

    def last_number(self, table: Table) -> int:
        assert table.number is not None
        number = self._expression(table, table.number)
        highest = self._integer(_select(f"coalesce(max({number}), 0)", table))
        # Of tables that never give a number twice SQLite keeps the highest, deleted rows' too.
        kept = self._integer(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", table.name
        )
        return max(highest, kept)

    def clear(self, table: Table) -> None:
        self._connection.execute(f"DELETE FROM {_quoted(table.name)}")  # noqa: S608

    def write(self, table: Table, rows: Iterable[Row]) -> None:
        places = ", ".join("?" * len(table.columns))
        self._connection.executemany(
            f"INSERT INTO {_quoted(table.name)} ({self._list(table)}) VALUES ({places})",  # noqa: S608
            rows,
        )

    def set_last_number(self, table: Table, number: int) -> None:
        numbers_once = self._integer(
            "SELECT count(*) FROM sqlite_master WHERE name = ? AND sql LIKE '%AUTOINCREMENT%'",
            table.name,
        )
        if numbers_once:  # else the next number is one above the highest there is
            self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
            self._connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, number)
            )

    def _list(self, table: Table) -> str:
        return ", ".join(self._expression(table, column.name) for column in table.columns)

    def _expression(self, table: Table, column: str) -> str:
        return _quoted(column) if column in self._here[table.name] else "rowid"

    def _columns(self) -> dict[str, list[str]]:
        tables = self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name != '_sqlite_migrations'"
        ).fetchall()
        return {
            name: [
                column
                for (column,) in self._connection.execute(
                    "SELECT name FROM pragma_table_info(?)", (name,)
                )
            ]
            for (name,) in tables
        }

    def _integer(self, query: str, *parameters: str) -> int:
        [value] = self._connection.execute(query, parameters).fetchone()
        return int(value)


def _check_columns(table: Table, columns: list[str]) -> None:
    expected = {column.name for column in table.columns if not _may_be_rowid(column, columns)}
    if set(columns) != expected:
        differ = ", ".join(sorted(set(columns) ^ expected))
        raise StorageError(f"only one of the databases has in its table {table.name}: {differ}")


def _may_be_rowid(column: Column, columns: list[str]) -> bool:
    return column.is_number and column.name not in columns


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _select(columns: str, table: Table) -> str:
    # Names are those of the schema; none comes from outside.
    return f"SELECT {columns} FROM {_quoted(table.name)}"  # noqa: S608
