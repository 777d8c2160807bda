"""A real server on loopback that does what servers, proxies and networks do on a bad day."""

import json
import socket
import struct
import threading
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Self

from tests.sdk.fakes import flag, sse

_HEARTBEAT_S = 5.0

Handler = Callable[["MisbehavingServer", socket.socket, str], None]


class MisbehavingServer:
    """Answers by `mode`, which may change at any time; `heal` makes it an ordinary flag server.

    Every connection is noted in `connected_at`, and one that a fault left open is cut by `heal`.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.connected_at: list[float] = []
        self.summaries: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self._mode: Handler = healthy
        self._refuses = False
        self.era = 0  # grows whenever it begins to behave otherwise
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()  # guards _open
        self._ending = threading.Event()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._stop_listening()
        self.cut()

    def misbehave(self, mode: Handler, cut: bool = True) -> None:
        """Do so from now on, and cut what is connected, or let it go on in silence."""
        self.era += 1
        self._mode = mode
        if cut:
            self.cut()

    def refuse(self) -> None:
        """Refuse connections until `heal`."""
        self._stop_listening()
        # Bound, but not listening: else the system gives the port to some other connection.
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._refuses = True
        self.cut()

    def heal(self, cut: bool = True) -> None:
        """Be an ordinary server from now on; what is connected is cut, or stays as it is."""
        self.era += 1
        self._mode = healthy
        if self._refuses:
            self._refuses = False
            self._listener.listen(128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        if cut:
            self.cut()

    def publish(self, flag: dict[str, Any]) -> None:
        """Change a flag: whoever fetches or connects from now on gets it."""
        self.document = {
            **self.document,
            "sequence": self.document["sequence"] + 1,
            "flags": {**self.document["flags"], flag["key"]: flag},
        }

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            _reset(connection)

    def worst_second(self) -> int:
        """Return the most connections made in any one second."""
        return worst_second(self.connected_at)

    def _stop_listening(self) -> None:
        # Closing alone would leave the thread in `accept` with the port still listening.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connected_at.append(monotonic())
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while request := _read_request(connection):
                head, body = request
                self.headers.append(head)
                # Read once: between noting a summary and acknowledging it, it may be changed.
                mode = self._mode
                if body and "/telemetry" in head and mode is healthy:
                    self.summaries.append(json.loads(body))
                mode(self, connection, head)
        except OSError:
            pass  # the client, or the test, cut it
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Keep a connection waiting; return whether the test has ended."""
        return self._ending.wait(timeout_s)


def worst_second(times: list[float]) -> int:
    """Return the most of them within one second."""
    times = sorted(times)
    return max((bisect_left(times, at + 1.0) - index for index, at in enumerate(times)), default=0)


def _read_request(connection: socket.socket) -> tuple[str, bytes] | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    length = 0
    for line in text.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    while len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        body += chunk
    return text, body


def _reset(connection: socket.socket) -> None:
    try:
        # Linger of zero: the peer sees a reset, not an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        connection.close()


def respond(
    connection: socket.socket,
    status: str,
    body: bytes = b"",
    content_type: str = "application/json",
    headers: str = "",
) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{headers}"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


# --- modes -------------------------------------------------------------------------------------


def healthy(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Answer as `flagd-server` does."""
    document = server.document
    if "/telemetry" in head:
        respond(connection, "200 OK", b'{"accepted": 1, "duplicate": false, "refused": []}')
    elif "/stream" in head:
        era = server.era
        open_stream(connection, chunked=False)
        connection.sendall(b"retry: 200\n\n" + sse("flags", document, document["sequence"]))
        while not server.wait(_HEARTBEAT_S) and server.era == era:
            connection.sendall(b": hb\n\n")
        server.wait()
    else:
        etag = f'"production-{document["sequence"]}"'
        if f"If-None-Match: {etag}" in head:
            connection.sendall(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            body = json.dumps(document).encode()
            respond(connection, "200 OK", body, headers=f"ETag: {etag}\r\n")


def open_stream(connection: socket.socket, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else "Connection: close"
    connection.sendall(
        f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n".encode()
    )


def changing(times: int) -> Handler:
    """Answer as a server that has so many changes to tell of: new flags, changed and removed."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        if "/stream" not in head:
            healthy(server, connection, head)
            return
        first = server.document["sequence"]
        open_stream(connection, chunked=False)
        connection.sendall(sse("flags", server.document, first))
        for number in range(first + 1, first + 1 + times):
            key = f"other-{number % 7}"
            document = flag(key, version=number) if number % 3 else None
            change = {"sequence": number, "key": key, "flag": document}
            connection.sendall(sse("flag", change, number))
        server.wait()

    return answer


def hang(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
    """Take the request and never answer."""
    server.wait()


def status(line: str, headers: str = "") -> Handler:
    """Answer everything with a status."""

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        respond(connection, line, b'{"title": "no"}', "application/problem+json", headers)

    return answer
