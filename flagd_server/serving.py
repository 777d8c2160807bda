"""Serves the application with gunicorn's threads, and lends connections to the hub.

The one file that leans on gunicorn's internals (27.0): `environ["gunicorn.socket"]` is the socket
of the connection, `StopIteration` out of the application ends a request without an answer, and
`finish_request` settles what becomes of a connection. `tests/end_to_end/test_serving.py` holds
every one of these against the real thing.

Requests are served by a fixed number of threads, so no client may hold one for long: a thread gets
a connection when the whole request has come, up to _PEEK_BYTES, which the kernel keeps until then.
A longer one, or a body in chunks, must be in within _READ_S, the answer out within _WRITE_S.
"""

import errno
import gc
import io
import os
import re
import resource
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeAlias, cast
from weakref import WeakKeyDictionary

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import TConn, ThreadWorker

from flagd_server.errors import SettingsError
from flagd_server.hub.base import TAKE_SOCKET

WsgiApplication: TypeAlias = Callable[..., Iterable[bytes]]

DEFAULT_THREADS = 16
# Connections that wait for the accept loop: what a restart brings back at once.
_BACKLOG = 4096
# Connections of ordinary requests, most of them kept alive; streams are not among them.
_MAX_CONNECTIONS = 4096
# Telemetry comes every 10 s at the latest; its connection should outlive the pause.
_KEEPALIVE_S = 20
# A new connection has this long to send its first request.
_FIRST_REQUEST_S = 10.0
_READ_S = 20.0
_WRITE_S = 60.0
# What the application accepts; a longer body is left on the wire, for it to refuse.
_MAX_BODY_BYTES = 1024 * 1024
# What a socket keeps for a request that has not come whole: Linux opens no wider a window at first.
_PEEK_BYTES = 64 * 1024
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
# RFC 9112, 9.6: a server that closes first reads on for a while, lest its answer be reset.
_LINGER_S = 2.0
_LINGER_BYTES = 64 * 1024
# Idle connections are closed this long after a stop begins.
_STOP_IDLE_S = 0.5
_GRACEFUL_S = 10
# Loading may migrate the database first.
_UNRESPONSIVE_S = 60
_OUT_OF_DESCRIPTORS_PAUSE_S = 0.05
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Lifecycle(Protocol):
    """What an application may leave in `extensions["flagd_server"]`, to take part in a stop."""

    def stopping(self) -> None:
        """Release requests that wait. Called from a signal handler: does not block."""

    def close(self) -> None:
        """Close everything; no request comes any more."""


class _Worker(ThreadWorker):  # type: ignore[misc]
    """A worker whose connections may leave it, and whose threads no client can hold."""

    wsgi: WsgiApplication
    _lifecycle: Lifecycle | None = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()  # guards _deadlines
        self._deadlines: dict[socket.socket, float] = {}
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
        # What is there now stays: going through its 60,000 objects takes a full collection 20 ms,
        # in which no kill goes out.
        gc.collect()
        gc.freeze()

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
            held = conn.sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
            needed = _bytes_needed(held)
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
        self._set_deadline(conn.sock, _READ_S)
        try:
            return super().handle(conn)
        finally:
            self._set_deadline(conn.sock, None)

    def _call(
        self, application: WsgiApplication, environ: dict[str, Any], start_response: object
    ) -> Iterable[bytes]:
        sock: socket.socket = environ["gunicorn.socket"]
        self._read_body(environ)
        # The application may take its time: a kill waits for its confirmations.
        self._set_deadline(sock, None)
        environ[TAKE_SOCKET] = lambda: socket.socket(
            sock.family, sock.type, sock.proto, fileno=sock.detach()
        )
        response = application(environ, start_response)
        if sock.fileno() < 0:
            if hasattr(response, "close"):
                response.close()
            raise StopIteration  # taken: this connection has no answer of ours
        self._set_deadline(sock, _WRITE_S)
        return response

    def _read_body(self, environ: dict[str, Any]) -> None:
        """Read the body while the deadline counts; one that is too long is left on the wire."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > _MAX_BODY_BYTES:
            return
        body = environ["wsgi.input"].read(_MAX_BODY_BYTES + 1)
        if len(body) < length:
            raise StopIteration  # the client went away, or was too slow
        environ["wsgi.input"] = io.BytesIO(body)

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


def _bytes_needed(held: bytes) -> int:
    """Return how many bytes there have to be for a thread not to wait, given the first of them."""
    head, end, _ = held.partition(b"\r\n\r\n")
    if not end:
        return len(held) + 1 if len(held) < _PEEK_BYTES else len(held)
    head += b"\r"
    length = _CONTENT_LENGTH.search(head)
    # Who expects a go-ahead gets it from a thread.
    if length is None or _EXPECT.search(head):
        return len(held)
    needed = len(head) + 3 + int(length[1])
    return needed if needed <= _PEEK_BYTES else len(held)


class _Arbiter(Arbiter):  # type: ignore[misc]
    """One worker, started again if it dies. TERM, INT and HUP stop it; the second time at once."""

    _is_stopping = False

    def signal(self, sig: int, frame: object) -> None:
        if self._is_stopping and sig in (signal.SIGTERM, signal.SIGHUP):
            sig = signal.SIGQUIT
        super().signal(sig, frame)

    def stop(self, graceful: bool = True) -> None:
        self._is_stopping = True
        super().stop(graceful)

    def _stop_gracefully(self) -> None:
        raise StopIteration

    handle_int = handle_hup = _stop_gracefully

    def _ignore(self) -> None:
        """A second worker, for a moment or for good, would not hear what the first announces."""

    handle_ttin = handle_ttou = handle_usr2 = handle_winch = _ignore


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, app_factory: Callable[[], WsgiApplication], options: dict[str, object]):
        self._app_factory = app_factory
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> WsgiApplication:
        return self._app_factory()


def serve(
    app_factory: Callable[[], WsgiApplication],
    *,
    host: str,
    port: int,
    threads: int = DEFAULT_THREADS,
    access_log: bool = False,
) -> None:
    """Serve until a signal says stop, then leave the process through SystemExit.

    Args:
        app_factory: called in the process that serves, again after a crash. The caller holds no
            thread and no open database at this point, for the process forks.
        host: name or address to listen on.
        port: 0 for any that is free; the line "listening on http://…" on stderr tells which.
        threads: requests served at once. Streams take none.
        access_log: one line for each request, on stdout.

    Raises:
        SettingsError: the address can't be listened on.
        SystemExit: code 0 after a stop, another where the application could not be loaded.
    """
    descriptors = _raise_descriptor_limit()
    listener = _listen(host, port)
    url = _url_of(listener)
    options: dict[str, object] = {
        "bind": f"fd://{listener.detach()}",
        "backlog": _BACKLOG,
        "workers": 1,
        "worker_class": _Worker,
        "threads": threads,
        "worker_connections": min(_MAX_CONNECTIONS, descriptors // 4),
        "keepalive": _KEEPALIVE_S,
        "graceful_timeout": _GRACEFUL_S,
        "timeout": _UNRESPONSIVE_S,
        "loglevel": "warning",
        "accesslog": "-" if access_log else None,
        "control_socket_disable": True,
        "post_worker_init": lambda worker: _say(
            f"{'listening' if worker.age == 1 else 'listening again'} on {url}"
        ),
        "on_exit": lambda arbiter: _say("stopped"),
    }
    if os.access("/dev/shm", os.W_OK):  # noqa: S108 - a slow disk must not look like a dead worker
        options["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
    _Arbiter(_Application(app_factory, options)).run()


def _raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one and return it; each stream needs a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _listen(host: str, port: int) -> socket.socket:
    """Bind here: gunicorn would try five times, a second apart, and not say which port it got."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError([f"can't listen on {host} port {port}: {error.strerror}"]) from error


def _url_of(listener: socket.socket) -> str:
    host, port = cast("tuple[str, int]", listener.getsockname()[:2])
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
