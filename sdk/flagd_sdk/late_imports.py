"""Imports that `import flagd_sdk` leaves for later, on whichever thread; a fork waits for them.

A process forked in the middle of one would inherit import locks that nobody releases, and hang at
its own import of the same.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FORK_WAIT_S = 5.0
_FORK_LOOKS = 50  # in that time

_changed = threading.Condition()  # guards _under_way; held during a fork
_under_way = 0  # imports, on as many threads
_forking = threading.local()
_has_hooks = False


@contextmanager
def importing() -> Iterator[None]:
    """Import within this."""
    global _under_way
    with _changed:
        _under_way += 1
    try:
        yield
    finally:
        with _changed:
            _under_way -= 1
            _changed.notify_all()


def make_forks_wait() -> None:
    """Register the hooks, once, behind those of `logging`.

    Of the hooks before a fork the last registered runs first. Were it logging's, it would hold
    the lock that the import, which this one waits for, needs to make a logger.
    """
    global _has_hooks
    import logging  # noqa: F401 - registers its own

    with _changed:
        if _has_hooks or not hasattr(os, "register_at_fork"):
            return
        _has_hooks = True
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


def _before_fork() -> None:
    # Bounded, as a fork must come to pass whatever state an import is in. In short waits: where the
    # system stops this process for seconds, one of them is over by that and not all the patience,
    # for the import stood still, too.
    _forking.holds = _changed.acquire(timeout=_FORK_WAIT_S)
    if _forking.holds:
        for _ in range(_FORK_LOOKS):
            if _changed.wait_for(lambda: _under_way == 0, _FORK_WAIT_S / _FORK_LOOKS):
                break


def _after_fork_in_parent() -> None:
    if getattr(_forking, "holds", False):
        _changed.release()


def _after_fork_in_child() -> None:
    global _changed, _under_way
    _changed, _under_way = threading.Condition(), 0
