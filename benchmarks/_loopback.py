"""Clients that cost as little as can be, for measuring servers over the loopback.

Bare sockets and one epoll: the same client measures a server and its floor, so what the client
itself costs is in both.
"""

import gc
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DEADLINE_S = 30.0
READ_BYTES = 256 * 1024
_MOST_IDLE_S = 10.0


@contextmanager
def no_collections() -> Iterator[None]:
    """Keep the garbage collector out of what is being measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Answer:
    """What came back for one request, by Content-Length."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


def split_answer(data: bytes) -> Answer | None:
    """Return the answer once it is there whole."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    _, _, length = head.lower().partition(b"content-length:")
    expected = int(length.split(b"\r\n", 1)[0]) if length else 0
    return Answer(int(head[9:12]), body) if len(body) >= expected else None


def request_bytes(method: str, path: str, token: str, body: bytes = b"", extra: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: flags\r\nAuthorization: Bearer {token}\r\n{extra}"
    if body or method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Connection:
    """One kept-alive connection, made anew after a rest: servers close those that are idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._used_at = time.monotonic()

    def send(self, request: bytes) -> None:
        if time.monotonic() - self._used_at > _MOST_IDLE_S:
            self.close()
            self._connect()
        self.sock.sendall(request)
        self._used_at = time.monotonic()

    def receive(self) -> Answer:
        data = b""
        while True:
            received = self.sock.recv(READ_BYTES)
            if not received:
                raise ConnectionError(f"closed within an answer: {data[:200]!r}")
            data += received
            answer = split_answer(data)
            if answer is not None:
                return answer

    def call(self, request: bytes) -> Answer:
        self.send(request)
        return self.receive()

    def close(self) -> None:
        self.sock.close()


def requests_per_second(
    port: int,
    next_request: Callable[[int], bytes],
    expected_status: int,
    *,
    connections: int,
    seconds: float,
) -> float:
    """Return how many requests a second are answered when each connection always has one open.

    Args:
        next_request: (number of the connection) -> its next request.

    Raises:
        RuntimeError: an answer has another status than expected.
    """
    epoll = select.epoll()
    sockets: dict[int, tuple[int, socket.socket]] = {}
    read: dict[int, bytes] = {}
    for number in range(connections):
        sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[sock.fileno()] = (number, sock)
        read[sock.fileno()] = b""
        epoll.register(sock.fileno(), select.EPOLLIN)
        sock.sendall(next_request(number))
    answered = 0
    with no_collections():
        started_at = time.perf_counter()
        ends_at = started_at + seconds
        while time.perf_counter() < ends_at or not answered:
            for fd, _ in epoll.poll(1.0):
                number, sock = sockets[fd]
                data = sock.recv(READ_BYTES)
                if not data:
                    raise ConnectionError("the server closed a connection that it should keep")
                read[fd] += data
                answer = split_answer(read[fd])
                if answer is None:
                    continue
                if answer.status != expected_status:
                    raise RuntimeError(f"status {answer.status}: {answer.body[:500]!r}")
                read[fd] = b""
                answered += 1
                sock.sendall(next_request(number))
        elapsed_s = time.perf_counter() - started_at
    for _, sock in sockets.values():
        sock.close()
    epoll.close()
    return answered / elapsed_s
