"""What every area's reader and writer of the Postgres database shares.

Columns are named, never `*`: a server goes on while a newer one adds columns beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeAlias

from psycopg import Cursor, sql
from psycopg.rows import DictRow

from flagd_server.storage.postgres_connections import Connection
from flagd_server.storage.rows import Row, to_json

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]


class PostgresRows:
    """Reads through a connection that the owner has put inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _rows(self, query: str, parameters: Parameters | None = None) -> list[Row]:
        return list(self._run(query, parameters).fetchall())

    def _run(self, statement: str, parameters: Parameters | None = None) -> Cursor[DictRow]:
        return self._connection.execute(statement, parameters)


class PostgresTable(PostgresRows):
    """Writes whole rows. The names of tables and columns are this package's own words.

    What the telemetry writes a row at a time is held until another statement comes, or the commit,
    and then sent as one: a message to the server and back costs more than the row.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._held_for = ""
        self._held: dict[object, Row] = {}

    def send_held(self) -> None:
        """Send what is held; to be called before the commit."""
        if self._held:
            rows, self._held = list(self._held.values()), {}
            self._add(self._held_for, rows)

    def _run(self, statement: str, parameters: Parameters | None = None) -> Cursor[DictRow]:
        self.send_held()
        return super()._run(statement, parameters)

    def _add(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement once for all rows, which it gets as one JSON array."""
        if rows:
            self._run(statement, [to_json(rows)])

    def _add_later(self, statement: str, key: object, row: Row) -> None:
        """Hold a row for a statement as `_add` runs; of one key the last is sent."""
        if statement != self._held_for:
            self.send_held()
            self._held_for = statement
        self._held[key] = row

    def _insert(self, table: str, row: Row) -> None:
        self._run(_insert(table, tuple(row)), row)

    def _upsert(self, table: str, row: Row, key: tuple[str, ...]) -> None:
        self._run(_upsert(table, tuple(row), key), row)

    def _update(self, table: str, key: Row, changes: Row) -> None:
        self._run(_update(table, tuple(key), tuple(changes)), {**changes, **key})

    def _delete(self, table: str, **key: Any) -> None:
        self._run(_delete(table, tuple(key)), key)


def select(record: type, table: str, **renamed: str) -> str:
    """Return the query for records of this type, up to its WHERE.

    Args:
        record: a dataclass whose fields are the columns.
        renamed: field → the column that holds it under another name.
    """
    columns = [
        sql.SQL("{} AS {}").format(sql.Identifier(renamed[name]), sql.Identifier(name))
        if name in renamed
        else sql.Identifier(name)
        for name in (field.name for field in fields(record))
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), sql.Identifier(table))
    return query.as_string()


@lru_cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(map(sql.Placeholder, columns)),
    )
    return statement.as_string()


@lru_cache
def _upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    replaced = [
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column))
        for column in columns
        if column not in key
    ]
    conflict = sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(
        sql.SQL(", ").join(map(sql.Identifier, key)), sql.SQL(", ").join(replaced)
    )
    return _insert(table, columns) + conflict.as_string()


@lru_cache
def _update(table: str, key: tuple[str, ...], changed: tuple[str, ...]) -> str:
    statement = sql.SQL("UPDATE {} SET {} WHERE {}").format(
        sql.Identifier(table), _equal(changed, ", "), _equal(key, " AND ")
    )
    return statement.as_string()


@lru_cache
def _delete(table: str, key: tuple[str, ...]) -> str:
    statement = sql.SQL("DELETE FROM {} WHERE {}").format(
        sql.Identifier(table), _equal(key, " AND ")
    )
    return statement.as_string()


def _equal(columns: tuple[str, ...], between: str) -> sql.Composed:
    return sql.SQL(between).join(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Placeholder(column))
        for column in columns
    )
