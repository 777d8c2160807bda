"""Logs what goes wrong once per cause, and once that it is well again."""

import threading
from collections.abc import Callable

# The same cause is told again only after this time, so that a server that comes and goes every
# few seconds does not fill the log.
_REPEAT_AFTER_S = 300.0
_MAX_CAUSES = 200


class Notices:
    """Remembers which faults were told. Thread-safe.

    A cause is "area" or "area:detail"; recovery is of a whole area.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        # Not with this module: it is a sixth of what `import flagd_sdk` may cost. And not later, on
        # a thread of ours: its hooks, registered in the middle of a fork, would release a lock
        # that they never took.
        from logging import getLogger

        self._logger = getLogger("flagd_sdk")
        self._clock = clock
        self._lock = threading.RLock()  # guards the two below; never held while logging
        self._told_at: dict[str, float] = {}
        self._standing: set[str] = set()

    def tell(self, cause: str, message: str, *values: object) -> None:
        """Log a warning, unless the same cause was told lately."""
        if self._is_new(cause):
            self._logger.warning(message, *values)

    def mention(self, cause: str, message: str, *values: object) -> None:
        """Log for information, unless the same cause was told lately."""
        if self._is_new(cause):
            self._logger.info(message, *values)

    def crash(self, cause: str, message: str, *values: object) -> None:
        """Log the exception being handled, unless the same cause was told lately."""
        if self._is_new(cause):
            self._logger.exception(message, *values)

    def _is_new(self, cause: str) -> bool:
        now = self._clock()
        with self._lock:
            told_at = self._told_at.get(cause)
            if told_at is not None and now - told_at < _REPEAT_AFTER_S:
                return False
            if told_at is None and len(self._told_at) >= _MAX_CAUSES:
                return False
            self._told_at[cause] = now
            self._standing.add(cause.partition(":")[0])
            return True

    def settle(self, area: str, message: str, *values: object) -> None:
        """Log that an area is well again, where a fault of it was told."""
        with self._lock:
            if area not in self._standing:
                return
            self._standing.discard(area)
        self._logger.info(message, *values)

    def after_fork(self) -> None:
        """Replace what another thread may have held in the parent."""
        self._lock = threading.RLock()
