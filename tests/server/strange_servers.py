"""Little servers on the loopback that answer as no server should, or not at all."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.ports import ReservedPort

Behave = Callable[[socket.socket], None]
"""Is given the connection of each request, after its head was read."""


class StrangeServer:
    """Attributes:
    requests: the head of each request, as text.
    """

    def __init__(self, behave: Behave, tls: ssl.SSLContext | None = None) -> None:
        self._behave = behave
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[str] = []
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        # A plain close leaves the thread in accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65_536)
                if not received:
                    return
                head += received
            self.requests.append(head.decode("latin-1"))
            self._behave(connection)


@contextmanager
def serving(behave: Behave, tls: ssl.SSLContext | None = None) -> Iterator[StrangeServer]:
    server = StrangeServer(behave, tls)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def nobody_listening() -> Iterator[str]:
    """Give a URL that is refused; its port stays taken, so that nobody else comes to listen."""
    port = ReservedPort()
    yield f"http://127.0.0.1:{port.number}"


def answering(status: str, body: bytes = b"", *headers: str) -> Behave:
    """Return what answers like any server does."""

    def behave(connection: socket.socket) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        connection.close()

    return behave


def hanging(connection: socket.socket) -> None:
    """Never answer."""
    with suppress(OSError):
        connection.recv(1)


def dripping(head: bytes) -> Behave:
    """Return what sends a byte of `head` every 20 ms, and then goes on with spaces."""

    def behave(connection: socket.socket) -> None:
        tick = threading.Event()
        for byte in head + b" " * 10_000:
            connection.sendall(bytes([byte]))
            tick.wait(0.02)

    return behave


def sending(data: bytes) -> Behave:
    """Return what sends these bytes, HTTP or not, and hangs up."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    return behave
