"""A wire between client and server that can be frozen: no end is told, nothing comes through."""

import socket
import threading
from contextlib import suppress
from typing import Self

_CHUNK_BYTES = 65_536


class Wire:
    """Forwards TCP connections from a port of its own; a thread for each direction."""

    def __init__(self, port: int) -> None:
        """Args:
        port: of the server, on loopback.
        """
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._ended = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()  # guards _open
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.heal()
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Carry nothing from now on. Connections stay, and new ones are taken, in silence."""
        self._flows.clear()

    def heal(self) -> None:
        """Carry on where it froze."""
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        with near, far:
            with self._lock:
                self._open |= {near, far}
            if not self._ended:
                back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
                back.start()
                self._carry(near, far)
                back.join()
            with self._lock:
                self._open -= {near, far}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                self._flows.wait()
                sink.sendall(chunk)
        self._flows.wait()  # an end is a message too
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
