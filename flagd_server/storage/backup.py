"""Backups, and the way from SQLite to Postgres. A backup is an SQLite database of its own.

It is so for a server on Postgres too: one format, which either kind of database is restored from,
which every reader of a database can open, and which needs none of Postgres's tools in the version
of the server. What is not checked is not a backup: rows are read again where they arrived, and
files are examined.

Nothing is left half done: a file gets its name when it is complete, and Postgres is written in one
transaction.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlite_utils import Database

from flagd_server.errors import SchemaError, StorageError
from flagd_server.storage import driver_needed, is_postgres
from flagd_server.storage.migrations.sqlite import MIGRATIONS
from flagd_server.storage.sqlite import SqliteStorage
from flagd_server.storage.sqlite_file import (
    connect,
    create_private,
    lock_for_server,
    refuse_foreign_schema,
    translated,
)
from flagd_server.storage.transfer import Moved, OnProgress

_PAGES = 1_000
"""Copied between two words of the progress: some megabytes."""
_NEXT_SEQUENCES = "UPDATE environments SET sequence = max(sequence + 1, ?)"


def back_up(database: str, file: Path, on_progress: OnProgress) -> None:
    """Write all of a database, as it is at one moment, into a file that is not there yet.

    Servers may go on meanwhile.

    Raises:
        StorageError: there is no such database, or something in the place of the file.
    """
    if is_postgres(database):
        with driver_needed():
            from flagd_server.storage.postgres_backup import read_into
        with _new_file(file) as partial:
            SqliteStorage(str(partial)).close()
            with closing(connect(partial)) as target:
                read_into(database, target.conn, on_progress)
    else:
        with _opened(Path(database)) as source, _new_file(file) as partial:
            _copy_pages(source, partial, on_progress)


def restore(file: Path, database: str, now_ms: int, on_progress: OnProgress) -> None:
    """Make a database of a backup, in an empty place.

    Every environment gets a new sequence number: applications hold what was told after the backup
    was made, under higher ones, and would take nothing that is not newer.

    Raises:
        StorageError: the file is no backup of ours, or the place is not empty.
        StorageInUseError: a server runs there.
    """
    with _opened(file) as source:
        if is_postgres(database):
            with driver_needed():
                from flagd_server.storage.postgres_backup import write_from
            with _brought_up_to_date(source) as current:
                write_from(current.conn, database, now_ms, on_progress)
        else:
            place = Path(database)
            with _locked(place), _new_file(place) as partial:
                _copy_pages(source, partial, on_progress)
                with closing(connect(partial)) as target:
                    target.conn.execute(_NEXT_SEQUENCES, (now_ms,))


def copy_to_postgres(source: Path, url: str, now_ms: int, on_progress: OnProgress) -> list[Moved]:
    """Copy an SQLite database, on which no server may run, to an empty Postgres.

    Returns:
        Each table, with what was found to be the same in both.

    Raises:
        StorageInUseError: a server runs on it: what it acknowledged from now on would be lost.
        StorageError: there is no such database, or the target is not empty.
    """
    with driver_needed():
        from flagd_server.storage.postgres_backup import write_from
    with _opened(source) as content, _locked(source), _brought_up_to_date(content) as current:
        return write_from(current.conn, url, now_ms, on_progress)


@contextmanager
def _opened(path: Path) -> Iterator[Database]:
    """One state of a database that is there, and ours."""
    if not path.exists():
        raise StorageError(f"there is no {path}")
    with translated(f"read {path}"), closing(connect(path)) as db:
        db.execute("BEGIN")
        refuse_foreign_schema(db, path)
        if not MIGRATIONS.applied(db):
            raise SchemaError(f"{path} is empty")
        yield db


@contextmanager
def _brought_up_to_date(source: Database) -> Iterator[Database]:
    """A database with this server's schema: the one given, or a copy of it that was migrated."""
    if not MIGRATIONS.pending(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="flagd-") as folder:
        path = Path(folder) / "current.db"
        _copy_pages(source, path, lambda what, done, total: None)
        SqliteStorage(str(path)).close()
        with _opened(path) as current:
            yield current


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep servers off a database."""
    descriptor = lock_for_server(path, timeout_s=0)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A file to be filled, which gets its name when it is durable; gone if that fails."""
    if path.exists() and path.stat().st_size:
        raise StorageError(f"{path} is there already, and is not overwritten")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    create_private(partial)
    try:
        yield partial
        _make_durable(partial)
        partial.replace(path)
        _make_durable(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_pages(source: Database, path: Path, on_progress: OnProgress) -> None:
    """Copy what the open transaction of the source sees, and examine it."""
    create_private(path)
    with translated(f"write {path}"), closing(connect(path)) as target:
        source.conn.backup(
            target.conn,
            pages=_PAGES,
            progress=lambda _, left, total: on_progress("pages", total - left, total),
        )
        # No file beside it holds a part of it.
        target.conn.execute("PRAGMA journal_mode = DELETE")
        [found] = target.conn.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise StorageError(f"the copy is damaged, as its source may be: {found}")
