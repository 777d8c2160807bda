"""A Postgres database as the source or the target of a transfer."""

from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter

from psycopg import sql
from psycopg.rows import tuple_row

from flagd_server.storage.postgres_connections import Connection, translated
from flagd_server.storage.transfer import Column, Row, Table

_COLUMNS = """
    SELECT table_name, column_name, data_type = 'boolean', is_identity = 'YES'
    FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name != 'schema_steps'
    ORDER BY table_name, ordinal_position
"""
_REFERENCES = """
    SELECT source.relname, target.relname FROM pg_constraint AS reference
    JOIN pg_class AS source ON source.oid = reference.conrelid
    JOIN pg_class AS target ON target.oid = reference.confrelid
    WHERE reference.contype = 'f'
        AND reference.connamespace = current_schema()::regnamespace
"""
_LAST_NUMBER = """
    SELECT coalesce(last_value, 0) FROM pg_sequences
    WHERE format('%%I.%%I', schemaname, sequencename) = pg_get_serial_sequence(%s, %s)
"""
_SET_LAST_NUMBER = "SELECT setval(pg_get_serial_sequence(%s, %s), greatest(%s, 1), %s > 0)"
_BATCH = 1_000


class PostgresContent:
    """All of a database, on a connection that has a transaction open. See `transfer.Target`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tables(self) -> list[Table]:
        """Return the tables of the schema, each after those that it refers to."""
        columns: dict[str, list[Column]] = {}
        for table, name, is_boolean, is_number in self._all(_COLUMNS):
            columns.setdefault(str(table), []).append(
                Column(str(name), is_boolean=bool(is_boolean), is_number=bool(is_number))
            )
        order = TopologicalSorter({name: set[str]() for name in columns})
        for source, target in self._all(_REFERENCES):
            if source != target:
                order.add(str(source), str(target))
        return [Table(name, tuple(columns[name])) for name in order.static_order()]

    def count(self, table: Table) -> int:
        [[count]] = self._all(_composed("SELECT count(*) FROM {table}", table))
        assert isinstance(count, int)
        return count

    def rows(self, table: Table) -> Iterator[Row]:
        order = "" if table.number is None else " ORDER BY {number}"
        query = _composed("SELECT {columns} FROM {table}", table) + _composed(order, table)
        booleans = [place for place, column in enumerate(table.columns) if column.is_boolean]
        # Named, so that the rows stay with the server until they are wanted.
        with self._connection.cursor(name="transfer", row_factory=tuple_row) as cursor:
            cursor.itersize = _BATCH
            for row in cursor.execute(query):
                values = list(row)
                for place in booleans:
                    values[place] = int(values[place])
                yield tuple(values)

    def last_number(self, table: Table) -> int:
        [[number]] = self._all(_LAST_NUMBER, [table.name, table.number])
        assert isinstance(number, int)
        return number

    def clear(self, table: Table) -> None:
        self._connection.execute(_composed("DELETE FROM {table}", table))

    def write(self, table: Table, rows: Iterable[Row]) -> None:
        statement = _composed("COPY {table} ({columns}) FROM STDIN", table)
        with (
            translated(f"write the table {table.name}"),
            self._connection.cursor().copy(statement) as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def set_last_number(self, table: Table, number: int) -> None:
        self._connection.execute(_SET_LAST_NUMBER, [table.name, table.number, number, number])

    def _all(self, query: str, parameters: list[str | None] | None = None) -> list[Row]:
        cursor = self._connection.cursor(row_factory=tuple_row)
        return cursor.execute(query, parameters).fetchall()


def _composed(text: str, table: Table) -> str:
    columns = (sql.Identifier(column.name) for column in table.columns)
    return (
        sql.SQL(text)
        .format(
            table=sql.Identifier(table.name),
            columns=sql.SQL(", ").join(columns),
            number=sql.Identifier(table.number or ""),
        )
        .as_string()
    )
