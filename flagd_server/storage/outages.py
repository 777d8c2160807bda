"""An outage of a database in the log: when it begins and when it is over."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from flagd_server.errors import StorageUnavailableError

_log = logging.getLogger(__name__)


class Outage:
    """Logs when something begins to fail, or fails for another cause, and when it works again.

    Not each time: while a disk is full, every request fails.
    """

    def __init__(
        self, what: str, translated: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        """Args:
        translated: turns a driver's errors into ours, given what was being done.
        """
        self._what = what
        self._translated = translated
        self._cause: str | None = None

    @property
    def lasts(self) -> bool:
        """Whether it failed the last time."""
        return self._cause is not None

    @contextmanager
    def noticed(self) -> Iterator[None]:
        try:
            with self._translated(self._what):
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
