"""What may happen to a server's database, from outside of the server.

Each works on what `open_storage` is given: the path of a SQLite file or a PostgreSQL URL.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flagd_server.storage.postgres_connections import TURN_LOCK

_HOLD_SQLITE = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
_HOLD_POSTGRES = "import psycopg, sys; db = psycopg.connect(sys.argv[1]);"
_THEN_WAIT = "print('held', flush=True); sys.stdin.read()"
_MIB = 1 << 20


@contextmanager
def held_by_another_process(database: str) -> Iterator[None]:
    """Hold what every writer needs, in a process that does nothing else with it."""
    if "://" in database:
        take = f"{_HOLD_POSTGRES} db.execute('SELECT pg_advisory_xact_lock({TURN_LOCK})');"
    else:
        take = f"{_HOLD_SQLITE} db.execute('BEGIN IMMEDIATE');"
    holder = subprocess.Popen(
        [sys.executable, "-c", take + _THEN_WAIT, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(20)
        holder.stdout.close()


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Put a file system of this size at the folder. Needs the rights of an administrator."""
    options = f"size={mebibytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "flagd", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    """Take all that is left of the folder's file system; return the file that takes it."""
    ballast = folder / "ballast"
    block = b"x" * 4096
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(block)
    return ballast


def can_mount(folder: Path) -> bool:
    """Whether a file system can be put somewhere, tried out."""
    if os.geteuid() != 0:
        return False
    folder.mkdir()
    try:
        with small_disk(folder, 1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def is_whole(database: str) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    connection = sqlite3.connect(database)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()
