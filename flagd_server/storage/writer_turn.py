"""The turn to write among the threads of one process, and what follows a commit within it."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from flagd_server.errors import StorageError, StorageUnavailableError

_log = logging.getLogger(__name__)

_TRANSACTION_WITHIN_S = 10.0


class WriterTurn:
    """One thread has it at a time. Taken before any lock that a callback of a commit takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the turn itself; guards `_owner`
        self._owner: int | None = None
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def require_open(self) -> None:
        """
        Raises:
            StorageUnavailableError: the storage is closed.
        """
        if self._is_over:
            raise StorageUnavailableError("the storage is closed")

    @contextmanager
    def within(self, timeout_s: float) -> Iterator[None]:
        """Take the turn.

        Raises:
            StorageUnavailableError: it did not come in time, or the storage is closed.
        """
        if not self._lock.acquire(timeout=timeout_s):
            raise StorageUnavailableError(f"no turn to write came within {timeout_s:g} s")
        try:
            self.require_open()
            yield
        finally:
            self._lock.release()

    @contextmanager
    def for_transaction(self) -> Iterator[None]:
        """Take the turn for one transaction.

        Raises:
            StorageError: this thread has one open already.
            StorageUnavailableError: as `within`.
        """
        if self._owner == threading.get_ident():
            raise StorageError("this thread has a transaction open already")
        with self.within(_TRANSACTION_WITHIN_S):
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    @contextmanager
    def last(self) -> Iterator[None]:
        """Wait for the turn and close it: nobody gets it any more."""
        with self._lock:
            self._is_over = True
            yield


def call_back(callbacks: Sequence[Callable[[], None]]) -> None:
    """Do what was to follow a commit. It is committed: nothing that fails here may undo that.

    The others must hear of it all the same, and the caller must not be told that it failed.
    """
    for callback in callbacks:
        try:
            callback()
        except Exception:
            _log.exception("a callback after a commit failed")
