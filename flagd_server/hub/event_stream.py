"""The fallback for servers that keep the connection themselves."""

import socket
from contextlib import suppress

_READ_BYTES = 64 * 1024


class SocketEventStream:
    """Reads a stream of the hub back from a pair of sockets: no second way to write a stream."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __iter__(self) -> "SocketEventStream":
        return self

    def __next__(self) -> bytes:
        try:
            data = self._sock.recv(_READ_BYTES)
        except OSError:  # closed by another thread
            data = b""
        if not data:
            self.close()
            raise StopIteration
        return data

    def close(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in `recv`
        self._sock.close()
