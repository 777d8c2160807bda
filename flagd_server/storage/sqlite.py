"""SQLite, one file: a connection that writes, and as many that read as there are readers at once.

- WAL, so that readers and the writer don't wait for each other; synchronous=FULL, so that what
  was committed survives the power as well as the process.
- Writers take turns under `_turn`. Callbacks of a transaction run before the next one begins.
- The server that runs on the file holds a lock on `<file>-lock` beside it: a second one would not
  hear what the first announces, and a kill would reach only half of the processes.
- Connections are in the driver's autocommit mode: transactions begin and end here, by name, and
  sqlite-utils, which looks whether one is open, never commits by itself inside one.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from sqlite_utils import Database

from flagd_server.errors import SchemaError
from flagd_server.storage.base import OnNotice, PoolUse
from flagd_server.storage.migrations.sqlite import MIGRATIONS, STEPS
from flagd_server.storage.outages import Outage
from flagd_server.storage.sqlite_file import (
    BUSY_TIMEOUT_MS,
    connect,
    create_private,
    lock_for_server,
    refuse_foreign_schema,
    translated,
)
from flagd_server.storage.sqlite_reader import SqliteReader
from flagd_server.storage.sqlite_telemetry import merge_counts
from flagd_server.storage.sqlite_transaction import ONLY_TERM, SqliteTransaction
from flagd_server.storage.writer_turn import WriterTurn, call_back

_WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""What the WAL file is cut back to after a checkpoint that followed a burst."""

_COUNT_CHECK = (
    "INSERT INTO meta (name, value) VALUES ('checks', 1)"
    " ON CONFLICT DO UPDATE SET value = value + 1"
)
# How long a server's writer waits for a lock of another process. Requests wait behind it, and
# there are only so many threads to answer those that do not write.
_SERVER_BUSY_MS = 2_000
# The same once that was in vain: those that queued meanwhile must not wait one after the other.
_OUTAGE_BUSY_MS = 100


class SqliteStorage:
    """The storage of a server that runs alone. See `Storage` for the contract."""

    def __init__(self, database: str, *, sole_server_within_s: float | None = None) -> None:
        """Args:
        sole_server_within_s: be the one server on this file, and wait so long for one that is
            leaving; None for what may run beside a server.
        """
        self._path = Path(database)
        self._turn = WriterTurn()  # guards the write connection
        # Idle read connections. A deque's append and pop are atomic, so no lock is needed.
        self._idle: deque[Database] = deque()
        self._on_notice: OnNotice = lambda topic, document: None
        self._writing = Outage("write to the database", translated)
        self._reading = Outage("read from the database", translated)
        with ExitStack() as undo, translated(f"open the database {database}"):
            create_private(self._path)
            if sole_server_within_s is not None:
                undo.callback(os.close, lock_for_server(self._path, sole_server_within_s))
            self._writer = self._connect()
            undo.callback(self._writer.close)
            self._prepare_writer()
            self._busy_ms = BUSY_TIMEOUT_MS if sole_server_within_s is None else _SERVER_BUSY_MS
            self._busy_ms_set = BUSY_TIMEOUT_MS
            # Closes the writer, then lets the next server in.
            self._release = undo.pop_all().close

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        with self._turn.for_transaction():
            with self._writing.noticed():
                self._begin()
                tx = SqliteTransaction(self._writer, self._on_notice)
                try:
                    yield tx
                    self._writer.conn.execute("COMMIT")
                except BaseException:
                    self._writer.rollback()
                    raise
            call_back(tx.callbacks)

    @contextmanager
    def read(self) -> Iterator[SqliteReader]:
        self._turn.require_open()
        with self._reading.noticed():
            db = self._take_reader()
            try:
                db.execute("BEGIN")
                yield SqliteReader(db)
            finally:
                db.rollback()
                self._return_reader(db)

    def listen(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        self._on_notice = on_notice  # within the turn: there is no gap

    def lead(self, on_change: Callable[[bool], None]) -> None:
        on_change(True)

    @property
    def is_leading(self) -> bool:
        return True

    @property
    def term(self) -> int | None:
        return ONLY_TERM

    def token_generation(self) -> int:
        self._turn.require_open()
        with self._reading.noticed():
            db = self._take_reader()
            try:
                row = db.conn.execute(
                    "SELECT value FROM meta WHERE name = 'token_generation'"
                ).fetchone()
            finally:
                self._return_reader(db)
        return int(row[0])

    def pools(self) -> Mapping[str, PoolUse]:
        return {}

    def check_writable(self, timeout_s: float) -> None:
        with self._turn.within(timeout_s), self._writing.noticed():
            self._begin()
            try:
                # A full disk shows at a commit and not before, and only where a page changed.
                self._writer.execute(_COUNT_CHECK)
                self._writer.conn.execute("COMMIT")
            except BaseException:
                self._writer.rollback()
                raise

    def close(self) -> None:
        with self._turn.last():
            while self._idle:
                self._idle.pop().close()
            self._release()

    def _begin(self) -> None:
        busy_ms = _OUTAGE_BUSY_MS if self._writing.lasts else self._busy_ms
        if busy_ms != self._busy_ms_set:
            self._writer.execute(f"PRAGMA busy_timeout = {busy_ms}")
            self._busy_ms_set = busy_ms
        self._writer.execute("BEGIN IMMEDIATE")

    def _connect(self) -> Database:
        db = connect(self._path)
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
            refuse_foreign_schema(db, self._path)
            MIGRATIONS.apply(db)
        except BaseException:
            db.rollback()
            raise
        db.commit()

    def _take_reader(self) -> Database:
        with suppress(IndexError):
            return self._idle.pop()
        db = self._connect()
        db.execute("PRAGMA query_only = ON")
        return db

    def _return_reader(self, db: Database) -> None:
        if self._turn.is_over:
            db.close()
        else:
            self._idle.append(db)


@contextmanager
def read_existing(database: str) -> Iterator[SqliteReader]:
    """Open a view of a file as it is: it is not made, migrated or written."""
    path = Path(database)
    with translated(f"read the database {database}"), closing(connect(path)) as db:
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")
        refuse_foreign_schema(db, path)
        pending = MIGRATIONS.pending(db)
        if pending:
            raise SchemaError(
                f"{path} was written by an older server (it lacks step {pending[0].name}): "
                "start this one on it first"
            )
        yield SqliteReader(db)


def pending_steps(database: str) -> list[str]:
    """Return the steps of the schema that the file lacks: all, where there is none."""
    path = Path(database)
    if not path.exists():
        return list(STEPS)
    with translated(f"read the database {database}"), closing(connect(path)) as db:
        db.execute("PRAGMA query_only = ON")
        refuse_foreign_schema(db, path)
        return [migration.name for migration in MIGRATIONS.pending(db)]
