"""A server that ends or stops itself, once, at a moment of its guard's decision.

Run as a program by test_kill_at_the_decision.py: `dying_server.py MOMENT MARKER SIGNAL serve`. The
server is the real one; what it dies of is put around its storage here. That it has died is kept in
the file MARKER, with the process that did, so that the worker which is started in its place lives,
and so do the other servers of its database.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flagd_server.cli import main
from flagd_server.storage import postgres, sqlite
from flagd_server.storage.postgres_transaction import PostgresTransaction
from flagd_server.storage.sqlite_transaction import SqliteTransaction

BEFORE_WRITE = "before-write"
BEFORE_COMMIT = "before-commit"
BEFORE_ANSWER = "before-answer"
MOMENTS = (BEFORE_WRITE, BEFORE_COMMIT, BEFORE_ANSWER)


def die_at(moment: str, marker: Path, number: int) -> None:
    """Let this process and its children be sent a signal where evidence is written."""

    def reach(reached: str) -> None:
        if reached != moment:
            return
        try:
            with marker.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return
        os.kill(os.getpid(), number)

    _watch(SqliteTransaction, sqlite, reach)
    _watch(PostgresTransaction, postgres, reach)


def _watch(transaction: Any, storage: Any, reach: Callable[[str], None]) -> None:
    """Call `reach` with each moment that a kind of storage comes to."""
    has_written = False
    insert_evidence = transaction.insert_evidence
    call_back = storage.call_back

    def write(tx: Any, *evidence: Any) -> None:
        nonlocal has_written
        reach(BEFORE_WRITE)
        insert_evidence(tx, *evidence)
        has_written = True
        reach(BEFORE_COMMIT)

    def tell(callbacks: Any) -> None:
        """Stand behind the commit: nobody has been told of it."""
        if has_written:
            reach(BEFORE_ANSWER)
        call_back(callbacks)

    transaction.insert_evidence = write
    storage.call_back = tell


if __name__ == "__main__":
    die_at(sys.argv[1], Path(sys.argv[2]), signal.Signals[sys.argv[3]])
    sys.exit(main(sys.argv[4:]))
