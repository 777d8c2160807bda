"""What the HTTP server offers the application beyond WSGI, by keys of the environ.

Another server may lack each of them; the application then does without.
"""

import threading
from collections.abc import Callable, Iterable, Iterator

TAKE_SOCKET = "flagd_server.take_socket"
"""Calling its value takes the connection from the server, as a `socket.socket`."""

WAITING_REQUESTS = "flagd_server.waiting_requests"
"""Calling its value returns how many whole requests wait for a thread."""

ADD_HEADERS = "flagd_server.add_headers"
"""Its value adds headers to the answer without looking at them once more: gunicorn takes 1.6 µs to
see that one is well-formed, and those of this server are."""

ANSWERS_LATER = "flagd_server.answers_later"
"""The server takes a `Later` in place of an answer."""


class Later(Iterable[bytes]):
    """An answer that has to wait, and no thread with it.

    Returned by the application in place of its answer, before `start_response` is called; the
    server calls `answer` on its main thread, which calls `start_response` and must not wait.

    Args:
        answer: returns the body. Called once: when the answer is `ready`, or the time is up.
        within_s: how long it may take to be ready.
    """

    def __init__(self, answer: Callable[[], Iterable[bytes]], within_s: float) -> None:
        self.answer = answer
        self.within_s = within_s
        self._lock = threading.Lock()
        self._is_ready = False
        self._tell: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        raise TypeError("the server does not wait for answers: it lacks ANSWERS_LATER")

    def ready(self) -> None:
        """Say that `answer` need not wait any more; once, from any thread."""
        with self._lock:
            self._is_ready = True
            # Whoever is told mostly has this: let go, lest a cycle be left for the collector.
            tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    def when_ready(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once it is ready, at once where it is; for the server."""
        with self._lock:
            is_ready = self._is_ready
            if not is_ready:
                self._tell = tell
        if is_ready:
            tell()
