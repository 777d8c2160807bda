"""A server that ends itself with SIGKILL, once, at a moment of its guard's decision.

Run as a program by test_kill_at_the_decision.py: `dying_server.py MOMENT MARKER serve`. The server
is the real one; what it dies of is put around its storage here. That it has died is kept in the
file MARKER, so that the worker which is started in its place lives.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from flagd_server.cli import main
from flagd_server.storage.sqlite import SqliteStorage
from flagd_server.storage.sqlite_transaction import SqliteTransaction

BEFORE_WRITE = "before-write"
BEFORE_COMMIT = "before-commit"
BEFORE_ANSWER = "before-answer"
MOMENTS = (BEFORE_WRITE, BEFORE_COMMIT, BEFORE_ANSWER)


def die_at(moment: str, marker: Path) -> None:
    """Let this process and its children die where evidence is written."""
    has_written = False
    insert_evidence = SqliteTransaction.insert_evidence
    announce = SqliteStorage._announce

    def reach(reached: str) -> None:
        if reached == moment and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def write(tx: SqliteTransaction, *evidence: Any) -> None:
        nonlocal has_written
        reach(BEFORE_WRITE)
        insert_evidence(tx, *evidence)
        has_written = True
        reach(BEFORE_COMMIT)

    def tell(storage: SqliteStorage, tx: SqliteTransaction) -> None:
        """Stand behind the commit: nobody has been told of it."""
        if has_written:
            reach(BEFORE_ANSWER)
        announce(storage, tx)

    SqliteTransaction.insert_evidence = write  # type: ignore[method-assign]
    SqliteStorage._announce = tell  # type: ignore[method-assign]


if __name__ == "__main__":
    die_at(sys.argv[1], Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
