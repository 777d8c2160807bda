"""Waits for what another thread or process is about to do."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within_s: float = 30.0, every_s: float = 0.02) -> T:
    """Return what is true of a condition, once something is; fail where that takes too long."""
    deadline = monotonic() + within_s
    while not (found := condition()):
        assert monotonic() < deadline, f"it did not come in {within_s:g} s"
        sleep(every_s)
    return found
