"""Where the server keeps what it knows. SQL lives in this package and nowhere else."""

from contextlib import AbstractContextManager

from flagd_server.storage.base import Reader, Storage

# A worker whose parent was killed notices within a second.
_LEAVES_WITHIN_S = 3.0


def open_storage(database: str, *, as_server: bool = False) -> Storage:
    """Open the database, bring its schema up to date, and return it.

    Args:
        database: path of a SQLite file; made, with its folder, where there is none.
        as_server: be the one server on it until it is closed. What is no server may run beside.

    Raises:
        SchemaError: the file is no database of ours, or one of a newer server.
        StorageInUseError: another server runs on it.
        StorageUnavailableError: it can't be opened.
    """
    # Imported here so that naming the Protocols does not load a driver.
    from flagd_server.storage.sqlite import SqliteStorage

    return SqliteStorage(database, sole_server_within_s=_LEAVES_WITHIN_S if as_server else None)


def open_reader(database: str) -> AbstractContextManager[Reader]:
    """Open one view of a database as it is; a server may run on it meanwhile.

    Raises:
        SchemaError: when entered; the file is no database of ours, or one of another version.
        StorageUnavailableError: when entered; there is none, or it can't be read.
    """
    from flagd_server.storage.sqlite import read_existing

    return read_existing(database)
