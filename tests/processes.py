"""Processes of the tests, and their children."""

import os
import signal
from pathlib import Path

from tests.waiting import eventually


def children_of(pid: int) -> list[int]:
    """Return its children, which may change at any moment unless it is halted."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in children.split()]


def halted(pid: int) -> list[int]:
    """Stop a process, and return its children: from now on it makes no more."""
    os.kill(pid, signal.SIGSTOP)
    # The signal is on its way: a call of `fork` that has begun is finished before.
    eventually(lambda: _state(pid) in "TZ")
    return children_of(pid)


def _state(pid: int) -> str:
    # Its name is in brackets, and may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
