"""A check that answers for a moment: however often it is asked, it costs so much and no more."""

import threading
import time
from collections.abc import Callable


class Recently:
    """Asks the check at most once in `for_s`; in between, whoever asks is told the same.

    Thread-safe. The readiness check commits to the database and needs no token, so that asking it
    all the time would take writers their turns.
    """

    def __init__(
        self,
        check: Callable[[], None],
        for_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check = check
        self._for_s = for_s
        self._clock = clock
        self._lock = threading.Lock()  # guards both; who waits for it needs no answer of its own
        self._asked_s: float | None = None
        self._failure: Exception | None = None

    def __call__(self) -> None:
        """Return where the check did, or raise what it raised."""
        with self._lock:
            now_s = self._clock()
            if self._asked_s is None or now_s - self._asked_s >= self._for_s:
                self._failure = None
                try:
                    self._check()
                except Exception as error:
                    self._failure = error
                self._asked_s = self._clock()
            failure = self._failure
        if failure is not None:
            raise failure.with_traceback(None)
