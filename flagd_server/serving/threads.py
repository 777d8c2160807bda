"""The threads that requests are served by.

`concurrent.futures` has some, for twice the price: a future, its condition and their locks for each
request, which also are most of what thousands take that come at once and wait.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue

from gunicorn.workers.gthread import TConn

# So many of those put together a thread takes, then it is the turn of whoever waits behind them: a
# flood of reports, which needs no token to be one, must not starve kills and flags.
MOST_TOGETHER = 16


class _Call(Enum):
    TOGETHER = "work off what was put together"
    END = "end"


class Threads:
    """`put`, `put_together` and `shutdown` are for the main thread, the rest for any.

    Args:
        handle: handles the request of a connection; must not raise.
    """

    def __init__(self, number: int, handle: Callable[[TConn], None]) -> None:
        self._number = number
        self._handle = handle
        self._calls: SimpleQueue[TConn | _Call] = SimpleQueue()
        self._together: deque[TConn] = deque()  # its append and pop are atomic
        self._lock = threading.Lock()  # guards the setting of _is_called
        self._is_called = False  # a thread, which has not begun to work them off
        for index in range(number):
            threading.Thread(target=self._run, name=f"flagd-request-{index}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread, give or take one."""
        return max(0, self._calls.qsize() - self._is_called) + len(self._together)

    @property
    def has_together(self) -> bool:
        """Whether some that were put together wait yet."""
        return bool(self._together)

    def put(self, conn: TConn) -> None:
        """Have the request of a connection handled."""
        self._calls.put(conn)

    def put_together(self, conn: TConn) -> None:
        """Have it handled by the thread that `hand_over` calls: for what is done in a moment.

        To wake a thread for each takes a tenth of all that a report costs.
        """
        self._together.append(conn)

    def hand_over(self) -> None:
        """Call a thread for what was put together and nobody has taken yet.

        One at a time: a thread that has begun calls the next, and should one of them hold it, the
        next call from outside brings another for those behind.
        """
        with self._lock:
            if self._is_called or not self._together:
                return
            self._is_called = True
        self._calls.put(_Call.TOGETHER)

    def shutdown(self, *, wait: bool) -> None:
        """End the threads, each once it is idle. Waits for none of them."""
        for _ in range(self._number):
            self._calls.put(_Call.END)

    def _run(self) -> None:
        _interrupt_nobody()
        while True:
            call = self._calls.get()
            if call is _Call.END:
                return
            if call is _Call.TOGETHER:
                self._work_off()
            else:
                self._handle(call)
            del call  # or an idle thread would keep its last connection

    def _work_off(self) -> None:
        self._is_called = False  # first: for whom is put together from here on, another is called
        for _ in range(MOST_TOGETHER):
            try:
                conn = self._together.popleft()
            except IndexError:
                return
            self._handle(conn)
        self.hand_over()


def _interrupt_nobody() -> None:
    """Have this thread, when it wakes, wait for a core until who has it pauses.

    One that wakes others mostly holds the interpreter still, so that they could only take the core
    from it to go back to sleep: two changes of context for nothing, for each request.
    """
    with suppress(AttributeError, OSError):  # not Linux, or not allowed
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
