"""The Postgres side of backups: all of a database to and from SQLite, in one transaction."""

import sqlite3
from contextlib import closing

from flagd_server.storage.migrations import postgres as migrations
from flagd_server.storage.postgres import PostgresStorage
from flagd_server.storage.postgres_connections import (
    LOCK_MS,
    TURN_LOCK,
    connect,
    place,
    translated,
)
from flagd_server.storage.postgres_transfer import PostgresContent
from flagd_server.storage.sqlite_transfer import SqliteContent
from flagd_server.storage.transfer import Moved, OnProgress, move

_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_NEXT_SEQUENCES = "UPDATE environments SET sequence = greatest(sequence + 1, %s)"


def read_into(url: str, target: sqlite3.Connection, on_progress: OnProgress) -> list[Moved]:
    """Write what Postgres holds at this moment into an empty database with this server's schema.

    Raises:
        SchemaError: the Postgres database has another schema.
    """
    with translated(f"read {place(url)}"), closing(connect(url)) as connection:
        connection.execute(_BEGIN_READING)
        migrations.require_current(connection, place(url))
        content = PostgresContent(connection)
        tables = content.tables()
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("BEGIN")
        moved = move(tables, content, SqliteContent(target, tables), on_progress)
        target.execute("COMMIT")
    return moved


def write_from(
    source: sqlite3.Connection, url: str, now_ms: int, on_progress: OnProgress
) -> list[Moved]:
    """Write what the open transaction of the source sees into an empty Postgres database.

    Each environment's next sequence number is `now_ms`, or above what it was.

    Raises:
        StorageError: it is not empty.
    """
    PostgresStorage(url).close()  # brings the schema up to date
    with (
        translated(f"write {place(url)}"),
        closing(connect(url, lock_timeout=LOCK_MS)) as connection,
        connection.transaction(),
    ):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [TURN_LOCK])
        content = PostgresContent(connection)
        tables = content.tables()
        moved = move(tables, SqliteContent(source, tables), content, on_progress)
        connection.execute(_NEXT_SEQUENCES, [now_ms])
    return moved
