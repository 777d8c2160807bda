"""The file of an SQLite database: how it is made, connected to, locked, and held to be ours."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from flagd_server.errors import (
    SchemaError,
    StorageError,
    StorageInUseError,
    StorageUnavailableError,
)
from flagd_server.storage.migrations.sqlite import MIGRATIONS, STEPS

BUSY_TIMEOUT_MS = 10_000
"""Only other processes can hold the file (the command line, a backup); none does so for long."""
_LOCK_RETRY_S = 0.05


def connect(path: Path) -> Database:
    """Connect to a file that exists."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )
    # Plugins of sqlite-utils installed on the machine have no business in this database.
    return Database(connection, recursive_triggers=False, execute_plugins=False)


def create_private(path: Path) -> None:
    """Make the file, readable by nobody else: it holds the keys by which units are hashed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageUnavailableError(f"can't open the database {path}: {error}") from error


def lock_for_server(path: Path, timeout_s: float) -> int:
    """Return the descriptor that holds the lock; the system frees it however the process ends.

    A file of its own: closing any descriptor of the database would drop the locks of SQLite.
    """
    lock = path.with_name(f"{path.name}-lock")
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StorageUnavailableError(f"can't open {lock}: {error}") from error
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(_LOCK_RETRY_S)
                continue
            os.close(descriptor)
            raise StorageInUseError(f"another server runs on {path}") from None
        except OSError as error:
            os.close(descriptor)
            raise StorageUnavailableError(f"can't lock {lock}: {error}") from error
        return descriptor


def refuse_foreign_schema(db: Database, path: Path) -> None:
    applied = [migration.name for migration in MIGRATIONS.applied(db)]
    if not applied and db.table_names():
        raise SchemaError(f"{path} is a database of something else")
    newer = [name for name in applied if name not in STEPS]
    if newer:
        raise SchemaError(f"{path} was written by a newer server (it has step {newer[-1]})")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the driver's errors into ours, which name what was being done."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError) as error:
        raise StorageError(f"can't {what}: {error}") from error
    except sqlite3.Error as error:
        raise StorageUnavailableError(f"can't {what}: {error}") from error
