"""Where the server keeps what it knows. SQL lives in this package and nowhere else."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from flagd_server.errors import StorageError
from flagd_server.storage.base import Reader, Storage

# A worker whose parent was killed notices within a second.
_LEAVES_WITHIN_S = 3.0


def is_postgres(database: str) -> bool:
    """Return whether it is the URL of a Postgres database, not the path of an SQLite file."""
    return database.startswith(("postgresql://", "postgres://"))


# Each is imported where it is asked for: naming the Protocols loads no driver, and a server on a
# file needs none for Postgres.


def open_storage(database: str, *, as_server: bool = False) -> Storage:
    """Open the database, bring its schema up to date, and return it.

    Args:
        database: path of a SQLite file, which is made, with its folder, where there is none; or
            `postgresql://…`.
        as_server: be the one server on a SQLite file until it is closed. What is no server may run
            beside. On Postgres there may be any number.

    Raises:
        SchemaError: it is no database of ours, or one of a newer server.
        StorageInUseError: another server runs on it.
        StorageUnavailableError: it can't be opened.
        StorageError: what the extra `postgres` brings is not installed.
    """
    if is_postgres(database):
        with driver_needed():
            from flagd_server.storage.postgres import PostgresStorage
        return PostgresStorage(database)
    from flagd_server.storage.sqlite import SqliteStorage

    return SqliteStorage(database, sole_server_within_s=_LEAVES_WITHIN_S if as_server else None)


def open_reader(database: str) -> AbstractContextManager[Reader]:
    """Open one view of a database as it is; a server may run on it meanwhile.

    Raises:
        SchemaError: when entered; it is no database of ours, or one of another version.
        StorageUnavailableError: when entered; there is none, or it can't be read.
        StorageError: what the extra `postgres` brings is not installed.
    """
    if is_postgres(database):
        with driver_needed():
            from flagd_server.storage import postgres
        return postgres.read_existing(database)
    from flagd_server.storage import sqlite

    return sqlite.read_existing(database)


def pending_steps(database: str) -> list[str]:
    """Return the steps of the schema that the database lacks, oldest first; nothing is changed.

    Raises:
        SchemaError: it is no database of ours, or one of a newer server.
        StorageUnavailableError: it can't be read.
        StorageError: what the extra `postgres` brings is not installed.
    """
    if is_postgres(database):
        with driver_needed():
            from flagd_server.storage import postgres
        return postgres.pending_steps(database)
    from flagd_server.storage import sqlite

    return sqlite.pending_steps(database)


@contextmanager
def driver_needed() -> Iterator[None]:
    """Around an import of the driver: say what to install where it is missing."""
    try:
        yield
    except ImportError as error:
        if error.name is None or not error.name.startswith("psycopg"):
            raise
        raise StorageError(
            "a Postgres database needs the extra: pip install 'flagd-release[server,postgres]'"
        ) from error
