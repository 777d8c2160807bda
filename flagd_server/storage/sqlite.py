"""SQLite, one file: a connection that writes, and as many that read as there are readers at once.

- WAL, so that readers and the writer don't wait for each other; synchronous=FULL, so that what
  was committed survives the power as well as the process.
- Writers take turns under `_turn`. Callbacks of a transaction run before the next one begins.
- The server that runs on the file holds a lock on `<file>-lock` beside it: a second one would not
  hear what the first announces, and a kill would reach only half of the processes.
- Connections are in the driver's autocommit mode: transactions begin and end here, by name, and
  sqlite-utils, which looks whether one is open, never commits by itself inside one.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from sqlite_utils import Database

from flagd_server.errors import (
    SchemaError,
    StorageError,
    StorageInUseError,
    StorageUnavailableError,
)
from flagd_server.storage.migrations.sqlite import MIGRATIONS, STEPS
from flagd_server.storage.sqlite_reader import SqliteReader
from flagd_server.storage.sqlite_transaction import SqliteTransaction, merge_counts

_log = logging.getLogger(__name__)

_BUSY_TIMEOUT_MS = 10_000
"""Only other processes can hold the file (the command line, a backup); none does so for long."""
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""What the WAL file is cut back to after a checkpoint that followed a burst."""


_COUNT_CHECK = (
    "INSERT INTO meta (name, value) VALUES ('checks', 1)"
    " ON CONFLICT DO UPDATE SET value = value + 1"
)
_LOCK_RETRY_S = 0.05


class SqliteStorage:
    """The storage of a server that runs alone. See `Storage` for the contract."""

    def __init__(self, database: str, *, sole_server_within_s: float | None = None) -> None:
        """Args:
        sole_server_within_s: be the one server on this file, and wait so long for one that is
            leaving; None for what may run beside a server.
        """
        self._path = Path(database)
        # Guards the write connection. Taken before any lock that a callback takes.
        self._turn = threading.Lock()
        self._owner: int | None = None
        # Idle read connections. A deque's append and pop are atomic, so no lock is needed.
        self._idle: deque[Database] = deque()
        self._closed = False
        self._writing = _Outage("write to the database")
        self._reading = _Outage("read from the database")
        with ExitStack() as undo, _translated(f"open the database {database}"):
            _create_private(self._path)
            if sole_server_within_s is not None:
                undo.callback(os.close, _lock_for_server(self._path, sole_server_within_s))
            self._writer = self._connect()
            undo.callback(self._writer.close)
            self._prepare_writer()
            # Closes the writer, then lets the next server in.
            self._release = undo.pop_all().close

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        if self._owner == threading.get_ident():
            raise StorageError("this thread has a transaction open already")
        with self._turn:
            self._refuse_closed()
            self._owner = threading.get_ident()
            try:
                with self._writing.noticed():
                    self._writer.execute("BEGIN IMMEDIATE")
                    tx = SqliteTransaction(self._writer)
                    try:
                        yield tx
                        self._writer.conn.execute("COMMIT")
                    except BaseException:
                        self._writer.rollback()
                        raise
                self._announce(tx)
            finally:
                self._owner = None

    @contextmanager
    def read(self) -> Iterator[SqliteReader]:
        self._refuse_closed()
        with self._reading.noticed():
            db = self._take_reader()
            try:
                db.execute("BEGIN")
                yield SqliteReader(db)
            finally:
                db.rollback()
                self._return_reader(db)

    def token_generation(self) -> int:
        self._refuse_closed()
        with self._reading.noticed():
            db = self._take_reader()
            try:
                row = db.conn.execute(
                    "SELECT value FROM meta WHERE name = 'token_generation'"
                ).fetchone()
            finally:
                self._return_reader(db)
        return int(row[0])

    def check_writable(self, timeout_s: float) -> None:
        if not self._turn.acquire(timeout=timeout_s):
            raise StorageUnavailableError(f"no turn to write came within {timeout_s:g} s")
        try:
            self._refuse_closed()
            with self._writing.noticed():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    # A full disk shows at a commit and not before, and only where a page changed.
                    self._writer.execute(_COUNT_CHECK)
                    self._writer.conn.execute("COMMIT")
                except BaseException:
                    self._writer.rollback()
                    raise
        finally:
            self._turn.release()

    def close(self) -> None:
        with self._turn:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._release()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StorageUnavailableError("the storage is closed")

    def _connect(self) -> Database:
        db = _connect(self._path)
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _prepare_writer(self) -> None:
        db = self._writer
        db.enable_wal()
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        db.register_function(merge_counts, deterministic=True)
        # One transaction around all steps: two processes that start together can't both apply one.
        db.execute("BEGIN IMMEDIATE")
        try:
            _refuse_foreign_schema(db, self._path)
            MIGRATIONS.apply(db)
        except BaseException:
            db.rollback()
            raise
        db.commit()

    def _announce(self, tx: SqliteTransaction) -> None:
        for callback in tx.callbacks:
            try:
                callback()
            except Exception:
                # It is committed: the others must hear of it, and the caller must not be told
                # that it failed.
                _log.exception("a callback after a commit failed")

    def _take_reader(self) -> Database:
        with suppress(IndexError):
            return self._idle.pop()
        db = self._connect()
        db.execute("PRAGMA query_only = ON")
        return db

    def _return_reader(self, db: Database) -> None:
        if self._closed:
            db.close()
        else:
            self._idle.append(db)


@contextmanager
def read_existing(database: str) -> Iterator[SqliteReader]:
    """Open a view of a file as it is: it is not made, migrated or written."""
    path = Path(database)
    with _translated(f"read the database {database}"), closing(_connect(path)) as db:
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")
        _refuse_foreign_schema(db, path)
        pending = MIGRATIONS.pending(db)
        if pending:
            raise SchemaError(
                f"{path} was written by an older server (it lacks step {pending[0].name}): "
                "start this one on it first"
            )
        yield SqliteReader(db)


def _connect(path: Path) -> Database:
    """Connect to a file that exists."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )
    # Plugins of sqlite-utils installed on the machine have no business in this database.
    return Database(connection, recursive_triggers=False, execute_plugins=False)


def _create_private(path: Path) -> None:
    """Make the file, readable by nobody else: it holds the keys by which units are hashed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageUnavailableError(f"can't open the database {path}: {error}") from error


def _lock_for_server(path: Path, timeout_s: float) -> int:
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


def _refuse_foreign_schema(db: Database, path: Path) -> None:
    applied = [migration.name for migration in MIGRATIONS.applied(db)]
    if not applied and db.table_names():
        raise SchemaError(f"{path} is a database of something else")
    newer = [name for name in applied if name not in STEPS]
    if newer:
        raise SchemaError(f"{path} was written by a newer server (it has step {newer[-1]})")


class _Outage:
    """Logs when something begins to fail, or fails for another cause, and when it works again.

    Not each time: while a disk is full, every request fails.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._cause: str | None = None

    @contextmanager
    def noticed(self) -> Iterator[None]:
        try:
            with _translated(self._what):
                yield
        except StorageUnavailableError as error:
            cause = str(error)
            if cause != self._cause:
                self._cause = cause
                _log.error("%s", cause)
            raise
        if self._cause is not None:
            self._cause = None
            _log.warning("can %s again", self._what)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn the driver's errors into ours, which name what was being done."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError) as error:
        raise StorageError(f"can't {what}: {error}") from error
    except sqlite3.Error as error:
        raise StorageUnavailableError(f"can't {what}: {error}") from error
