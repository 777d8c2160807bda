"""Where the server keeps what it knows. SQL lives in this package and nowhere else."""

from flagd_server.storage.base import Storage


def open_storage(database: str) -> Storage:
    """Open the database, bring its schema up to date, and return it.

    Args:
        database: path of a SQLite file; made, with its folder, where there is none.

    Raises:
        SchemaError: the file is no database of ours, or one of a newer server.
        StorageUnavailableError: it can't be opened.
    """
    # Imported here so that naming the Protocols does not load a driver.
    from flagd_server.storage.sqlite import SqliteStorage

    return SqliteStorage(database)
