"""Requests that wait for their answers without a thread.

The application has returned a `Later`: the connection is in nobody's hands until that is ready, or
its time is up. The main thread answers, once for all that are ready by then, and waits for no
client.
"""

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import takewhile

from gunicorn.workers.gthread import TConn

from flagd_server.serving.response import Held, Response
from flagd_server.wsgi import Later


class Parked:
    """A request, once its thread has left it."""

    def __init__(self, later: Later, response: Response) -> None:
        self.later = later
        self.response = response
        self.deadline = time.monotonic() + later.within_s


class ParkError(BaseException):
    """Leaves gunicorn's handling of a request, which answers to every `Exception`."""

    def __init__(self, parked: Parked) -> None:
        super().__init__()
        self.parked = parked


class Parking:
    """`park` is for any thread, the rest for the main one.

    Args:
        defer: has the main thread call something.
        settle: told the connection, and whether it can be kept, once its request is answered.
        answer_to: returns what to say of an exception of the application.
    """

    def __init__(
        self,
        defer: Callable[[Callable[[], None]], None],
        settle: Callable[[TConn, bool], None],
        answer_to: Callable[[Exception, object], bytes],
    ) -> None:
        self._defer = defer
        self._settle = settle
        self._answer_to = answer_to
        self._lock = threading.Lock()  # guards the next two
        self._parked: dict[Parked, TConn] = {}  # in the order of coming
        self._ready: list[Parked] = []  # the main thread has been told to answer them

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, parked: Parked, conn: TConn) -> None:
        with self._lock:
            self._parked[parked] = conn
        parked.later.when_ready(partial(self._is_ready, parked))

    def answer_overdue(self, now: float) -> None:
        with self._lock:
            # In the order of their deadlines: those of an application wait equally long.
            overdue = list(takewhile(lambda each: each.deadline <= now, self._parked))
        for parked in overdue:
            self._answer(parked)

    def _is_ready(self, parked: Parked) -> None:
        with self._lock:
            self._ready.append(parked)
            is_first = len(self._ready) == 1
        if is_first:
            self._defer(self._answer_ready)

    def _answer_ready(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, []
        for parked in ready:
            self._answer(parked)

    def _answer(self, parked: Parked) -> None:
        with self._lock:
            conn = self._parked.pop(parked, None)
        if conn is not None:  # else its time was up before
            self._settle(conn, self._send_answer(parked, conn.sock))

    def _send_answer(self, parked: Parked, sock: socket.socket) -> bool:
        """Answer without waiting for anybody; return whether the connection can be kept."""
        response = parked.response
        response.sock = Held()
        try:
            for piece in parked.later.answer():
                response.write(piece)
            response.close()
            data, can_be_kept = b"".join(response.sock), not response.should_close()
        except Exception as error:
            data, can_be_kept = self._answer_to(error, response.req), False
        try:
            # It is short: there is room for it, unless the client has left many others unread.
            is_sent = sock.send(data, socket.MSG_DONTWAIT) == len(data)
        except OSError:
            return False
        return is_sent and can_be_kept
