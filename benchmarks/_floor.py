"""Floors to measure servers against, each run as a program: `python -m benchmarks._floor KIND`.

`fanout`: one epoll loop that, on a byte from its first connection, writes the same bytes to all
others. `answer`: one that answers whatever comes. Both are in `floor.c` too, for machines with a C
compiler. `wsgi`: an application that answers at once, on the very gunicorn that serves flags.
"""

import select
import socket
import sys
from collections.abc import Iterable
from typing import Any


def fan_out(size: int) -> None:
    """Serve until the first connection closes; an event is `size` bytes."""
    event = b"event: flag\ndata: " + b"x" * (size - 20) + b"\n\n"
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    control, _ = listener.accept()
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    epoll.register(control.fileno(), select.EPOLLIN)
    streams = []
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                stream, _ = listener.accept()
                stream.setblocking(False)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                streams.append(stream)
            elif not control.recv(1):
                return
            else:
                for stream in streams:
                    stream.send(event)


def answer(size: int) -> None:
    """Serve until it is ended; the body of an answer is `size` bytes."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    message = head.encode() + b"x" * size
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                epoll.register(connection.fileno(), select.EPOLLIN)
            elif connections[fd].recv(65_536):
                connections[fd].sendall(message)
            else:
                connections.pop(fd).close()


class Application:
    """Answers /304, /flags and /telemetry with the status and the size of the real answers."""

    def __init__(self, flags: bytes) -> None:
        self._flags = flags

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/304":
            start_response("304 NOT MODIFIED", [("ETag", '"production-1763925277123"')])
            return []
        body = self._flags
        if environ["REQUEST_METHOD"] == "POST":
            environ["wsgi.input"].read()
            body = b'{"accepted":3,"duplicate":false,"processes":16,"refused":[],"slow_over_s":{}}'
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]


def main() -> None:
    kind, size = sys.argv[1], int(sys.argv[2])
    if kind == "fanout":
        fan_out(size)
    elif kind == "answer":
        answer(size)
    else:
        from flagd_server.serving import serve

        serve(lambda: Application(b"x" * size), host="127.0.0.1", port=0)


if __name__ == "__main__":
    main()
