"""The worker: gunicorn's threads, with connections that may leave them for the hub.

This leans on gunicorn's internals (27.0), as `response` does and nothing else:
`environ["gunicorn.socket"]` is the socket of the connection, `StopIteration` out of the application
ends a request without an answer, and `finish_request` settles what becomes of a connection.
`tests/end_to_end/test_serving.py` holds every one of these against the real thing.

Requests are served by a fixed number of threads, so no client may hold one for long: a thread gets
a connection when the whole request has come, up to PEEK_BYTES, which the kernel keeps until then.
For a longer body, or one in chunks, a thread has to wait: a few of them do at a time, each for
_READ_S at most. The answer is out within _WRITE_S.

Nor does a request hold one while it waits for something else, where the application says so by a
`Later`: see `parking`.
"""

import errno
import gc
import io
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers.gthread import TConn, ThreadWorker

from flagd_server.api.reporting import PARKED_BYTES, TELEMETRY_PATH
from flagd_server.api.unparsed import answer
from flagd_server.http_headers import Headers
from flagd_server.serving.heads import (
    HEAD_END,
    PEEK_BYTES,
    bytes_needed,
)
from flagd_server.serving.parking import Parked, ParkError, Parking
from flagd_server.serving.refusals import TooManyBodiesError, problem_of
from flagd_server.serving.threads import Threads
from flagd_server.wsgi import ADD_HEADERS, ANSWERS_LATER, TAKE_SOCKET, WAITING_REQUESTS, Later

WsgiApplication: TypeAlias = Callable[..., Iterable[bytes]]

# A new connection has this long to send its first request.
_FIRST_REQUEST_S = 10.0
_READ_S = 20.0
_WRITE_S = 60.0
# What the application accepts; a longer body is left on the wire, for it to refuse.
_MAX_BODY_BYTES = 1024 * 1024
# Of so many threads one may wait for a body.
_THREADS_PER_BODY = 4
# RFC 9112, 9.6: a server that closes first reads on for a while, lest its answer be reset.
_LINGER_S = 2.0
_LINGER_BYTES = 64 * 1024
# Idle connections are closed this long after a stop begins.
_STOP_IDLE_S = 0.5
_OUT_OF_DESCRIPTORS_PAUSE_S = 0.05
_ALLOCATIONS_PER_COLLECTION = 5_000
_NEXT_CALL_S = 0.02
# How what is done in a moment begins.
_REPORT = f"POST {TELEMETRY_PATH} ".encode()
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def _done(keeps: bool) -> Future[bool]:
    done: Future[bool] = Future()
    done.set_result(keeps)
    return done


# What gunicorn asks of a request that has been handled: whether its connection can be kept.
_KEPT, _ENDED = _done(True), _done(False)


class Lifecycle(Protocol):
    """What an application may leave in `extensions["flagd_server"]`, to take part in a stop."""

    def stopping(self) -> None:
        """Release requests that wait. Called from a signal handler: does not block."""

    def close(self) -> None:
        """Close everything; no request comes any more."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """A worker whose connections may leave it, and whose threads no client can hold."""

    wsgi: WsgiApplication
    tpool: Threads
    headers: Headers = ()
    _lifecycle: Lifecycle | None = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._body_turns = threading.Semaphore(max(1, self.cfg.threads // _THREADS_PER_BODY))
        # Set by the main thread before a thread is given the connection, and cleared by that.
        self._whole: set[socket.socket] = set()  # all of the request has come
        self._endless: set[socket.socket] = set()  # its head has no end within PEEK_BYTES
        # The main thread's own: it is to have a thread for a moment only.
        self._short: set[socket.socket] = set()
        self._lock = threading.Lock()  # guards _deadlines
        self._deadlines: dict[socket.socket, float] = {}
        # The process ends soon after. Were the pipe closed, a late thread would write into whatever
        # has its number by then, be it the database.
        self.method_queue.close = lambda: None
        self._parking = Parking(self.method_queue.defer, self._settle, self._answer_to)
        self._lingering: dict[TConn, int] = {}  # connection → bytes read meanwhile
        # Bytes that a connection was asked to have before it is looked at again.
        self._awaited: WeakKeyDictionary[TConn, int] = WeakKeyDictionary()

    # Life and death

    def init_signals(self) -> None:
        super().init_signals()
        # Ctrl-C goes to the whole group; what it means is for the parent to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        application = self.wsgi
        self._lifecycle = getattr(application, "extensions", {}).get("flagd_server")
        self.wsgi = partial(self._call, application)
        # From here on they stay; gunicorn looks some two dozen up in each request, by a function.
        self.cfg.__dict__.update({name: each.get() for name, each in self.cfg.settings.items()})
        # What is there now stays: going through its 60,000 objects takes a full collection 20 ms,
        # in which no kill goes out.
        gc.collect()
        gc.freeze()
        # With those out of sight Python takes the rest to have doubled again and again, and would
        # look for cycles, of which reports leave none, for a tenth of the time.
        gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, *gc.get_threshold()[1:])

    def handle_exit(self, sig: int, frame: object) -> None:
        super().handle_exit(sig, frame)
        if self._lifecycle is not None:
            self._lifecycle.stopping()

    def handle_quit(self, sig: int, frame: object) -> None:
        os._exit(0)  # at once; what was acknowledged is on disk

    def run(self) -> None:
        super().run()
        if self._lifecycle is not None:
            self._lifecycle.close()

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads, self._serve)

    # A connection's way

    def accept(self, listener: socket.socket) -> None:
        """Take a connection and wait for its request in the poller, not in a thread."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self.log.error("out of file descriptors: %s", error)
                time.sleep(_OUT_OF_DESCRIPTORS_PAUSE_S)
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                raise
            return
        self.nr_conns += 1
        connection = TConn(self.cfg, sock, address, listener.getsockname())
        connection.timeout = time.monotonic() + _FIRST_REQUEST_S
        self.pending_conns.append(connection)
        self.poller.register(
            sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection)
        )

    def _accept_waiting(self, listener: socket.socket) -> None:
        """Take whoever has connected already: closing the listener would reset them."""
        before = -1
        while before != self.nr_conns:
            before = self.nr_conns
            self.accept(listener)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        if self._has_request(conn):
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        if self._has_request(conn):
            super().on_client_socket_readable(conn, client)

    def _has_request(self, conn: TConn) -> bool:
        """Tell whether a thread can go on with the connection, be it to notice its end.

        Where it would have to wait, the kernel is told to wake the poller no sooner than when
        enough has come, so that a client that sends byte by byte costs a look for each, at most.
        """
        awaited = self._awaited.pop(conn, 1)
        try:
            held = conn.sock.recv(PEEK_BYTES, socket.MSG_PEEK)
            needed, is_all = bytes_needed(held)
            if is_all and needed <= len(held):
                self._whole.add(conn.sock)
                if held.startswith(_REPORT) and needed <= PARKED_BYTES:
                    self._short.add(conn.sock)
            elif len(held) == PEEK_BYTES and HEAD_END not in held:
                self._endless.add(conn.sock)
            # Woken with less than was asked for: the client has hung up.
            if len(held) < awaited or needed <= max(len(held), awaited):
                if awaited > 1:
                    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                return True
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._awaited[conn] = needed
        return False

    def handle(self, conn: TConn) -> object:
        sock = conn.sock
        self._set_deadline(sock, _READ_S)
        try:
            if sock in self._endless:
                self.handle_error(None, sock, conn.client, LimitRequestHeaders(""))
                return False
            return super().handle(conn)
        except ParkError as error:
            return error.parked
        finally:
            self._set_deadline(sock, None)
            self._whole.discard(sock)
            self._endless.discard(sock)

    def handle_error(self, req: Any, client: socket.socket, addr: object, exc: Exception) -> None:
        """Answer what never reached the application, or broke outside of it."""
        with suppress(OSError):
            client.sendall(self._answer_to(exc, req))

    def _answer_to(self, error: Exception, req: Any) -> bytes:
        problem = problem_of(error)
        if problem.kind == "internal":
            self.log.error("a request failed: %s", getattr(req, "path", "none"), exc_info=error)
        else:
            self.log.info("a request was refused: %s", type(error).__name__)
        return answer(problem, self.headers)

    def _call(
        self, application: WsgiApplication, environ: dict[str, Any], start_response: object
    ) -> Iterable[bytes]:
        sock: socket.socket = environ["gunicorn.socket"]
        if not self._read_body(environ, is_here=sock in self._whole):
            # What is on the wire would be read as the next request.
            start_response.__self__.force_close()  # type: ignore[attr-defined]
        # The application may take its time: a kill waits for its confirmations.
        self._set_deadline(sock, None)
        environ[WAITING_REQUESTS] = self._waiting_requests
        environ[ADD_HEADERS] = start_response.__self__.headers.extend  # type: ignore[attr-defined]
        environ[ANSWERS_LATER] = True
        environ[TAKE_SOCKET] = lambda: socket.socket(
            sock.family, sock.type, sock.proto, fileno=sock.detach()
        )
        response = application(environ, start_response)
        if sock.fileno() < 0:
            if hasattr(response, "close"):
                response.close()
            raise StopIteration  # taken: this connection has no answer of ours
        if isinstance(response, Later):
            raise ParkError(Parked(response, start_response.__self__))  # type: ignore[attr-defined]
        self._set_deadline(sock, _WRITE_S)
        return response

    def _waiting_requests(self) -> int:
        """Return how many whole requests wait for a thread."""
        return self.tpool.waiting

    def _read_body(self, environ: dict[str, Any], *, is_here: bool) -> bool:
        """Read the body while the deadline counts; False where it is too long, and left there."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > _MAX_BODY_BYTES:
            return False
        is_waited_for = not is_here and (length > 0 or "HTTP_TRANSFER_ENCODING" in environ)
        if is_waited_for and not self._body_turns.acquire(blocking=False):
            raise TooManyBodiesError
        try:
            body = environ["wsgi.input"].read(_MAX_BODY_BYTES + 1)
        finally:
            if is_waited_for:
                self._body_turns.release()
        if len(body) < length:
            raise StopIteration  # the client went away, or was too slow
        environ["wsgi.input"] = io.BytesIO(body)
        return len(body) <= _MAX_BODY_BYTES

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # gunicorn would look for what is left of the body: `_read_body` has read it to its end, or
        # has said that the connection closes.
        return keepalive

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self.tpool.has_together:  # behind one that may hold its thread
            timeout = min(timeout, _NEXT_CALL_S)
        super().wait_for_and_dispatch_events(timeout)
        self.tpool.hand_over()

    def enqueue_req(self, conn: TConn) -> None:
        if conn.sock in self._short:
            self._short.discard(conn.sock)
            self.tpool.put_together(conn)
        else:
            self.tpool.put(conn)

    def _serve(self, conn: TConn) -> None:
        """Handle a request, on a thread, and leave its connection to whoever goes on with it."""
        try:
            result = self.handle(conn)
        except BaseException:  # a thread that it ended would be missed
            self.log.exception("a request failed")
            result = False
        if isinstance(result, Parked):
            self._parking.park(result, conn)
        else:
            self.method_queue.defer(self._settle, conn, bool(result))

    def _settle(self, conn: TConn, can_be_kept: bool) -> None:
        self.finish_request(conn, _KEPT if can_be_kept else _ENDED)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Settle a connection after its request, on the main thread.

        gunicorn would close a connection that is gone (and count it twice), and would wait for the
        client's last words right here, where one mute client then stops everybody for 2 s.
        """
        if conn.sock.fileno() < 0:
            self.nr_conns -= 1
        elif fs.cancelled() or not fs.result():
            self._linger(conn)
        else:
            super().finish_request(conn, fs)

    def _linger(self, conn: TConn) -> None:
        conn.timeout = time.monotonic() + (_LINGER_S if self.alive else _STOP_IDLE_S)
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(
                conn.sock, selectors.EVENT_READ, partial(self._on_lingering_readable, conn)
            )
        except OSError:
            self.nr_conns -= 1
            conn.close()
        else:
            self._lingering[conn] = 0

    def _on_lingering_readable(self, conn: TConn, sock: socket.socket) -> None:
        try:
            received = len(sock.recv(16384))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        self._lingering[conn] += received
        if not received or self._lingering[conn] > _LINGER_BYTES:
            self._end_lingering(conn)

    def _end_lingering(self, conn: TConn) -> None:
        del self._lingering[conn]
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    # Deadlines, looked at once a second

    def _set_deadline(self, sock: socket.socket, seconds: float | None) -> None:
        with self._lock:
            if seconds is None:
                self._deadlines.pop(sock, None)
            else:
                self._deadlines[sock] = time.monotonic() + seconds

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        for conn in [conn for conn in self._lingering if conn.timeout <= now]:
            self._end_lingering(conn)
        with self._lock:
            overdue = [sock for sock, deadline in self._deadlines.items() if deadline <= now]
        self._parking.answer_overdue(now)
        for sock in overdue:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the thread that waits for it goes on

    def _cap_keepalive(self, deadline: float) -> None:
        """Begin to stop; the name is gunicorn's for its first step."""
        for listener in self.sockets:
            self._accept_waiting(listener)
            listener.close()  # a client had better be refused than wait and be cut off
        deadline = min(deadline, time.monotonic() + _STOP_IDLE_S)
        super()._cap_keepalive(deadline)
        for conn in (*self.pending_conns, *self._lingering):
            conn.timeout = min(conn.timeout, deadline)
