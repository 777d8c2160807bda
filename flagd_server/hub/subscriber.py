"""One open stream: a non-blocking socket and what could not be written to it yet.

Sends go through `ctypes.PyDLL`, which keeps the interpreter lock. `socket.send` gives it up around
the system call and then queues for it behind every thread that computes, up to the switch interval
(5 ms) for each send: beside a single busy thread, 1,000 sends of 1 KB took 1,155 ms so, and 4 ms
with the lock kept. A send to a non-blocking socket takes microseconds, so nobody waits for it.
"""

import ctypes
import errno
import os
import socket
from collections import deque

# Bytes that may wait behind the piece being written. The piece itself does not count, whatever its
# size, or a set above the limit could never be delivered.
MAX_BACKLOG_BYTES = 1024 * 1024
# Piece of a backlog copied for one send.
_SLICE_BYTES = 256 * 1024
# A stream has nothing more to say once its request was read; a peer that goes on is cut.
_MAX_RECEIVED_BYTES = 64 * 1024

SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)

raw_send = ctypes.PyDLL(None, use_errno=True).send
raw_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
raw_send.restype = ctypes.c_ssize_t


class SlowReaderError(Exception):
    """The backlog of a stream has reached its limit."""


def send(fd: int, data: bytes) -> int:
    """Write what the socket takes now and return how much that was; 0 where it is full.

    Raises:
        OSError: the connection is gone.
    """
    sent: int = raw_send(fd, data, len(data), SEND_FLAGS)
    if sent >= 0:
        return sent
    code = ctypes.get_errno()
    if code in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS):
        return 0
    raise OSError(code, os.strerror(code))


class Subscriber:
    """Belongs to the hub's thread."""

    __slots__ = (
        "_behind",
        "_offset",
        "_received",
        "after",
        "backlog",
        "beat",
        "channel",
        "fd",
        "instance",
        "is_stalled",
        "sock",
        "token_id",
    )

    def __init__(
        self, sock: socket.socket, channel: str, token_id: str, instance: str | None
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.channel = channel
        self.token_id = token_id
        self.instance = instance
        self.after = 0  # events up to this sequence are in what the stream started with
        self.backlog: deque[bytes] | None = None  # None costs a quiet stream nothing
        self.beat = 0  # its turn for heartbeats
        self.is_stalled = False  # nothing was written since its last turn, though something waits
        self._offset = 0  # of the first piece of the backlog
        self._behind = 0  # bytes of the backlog after its first piece
        self._received = 0

    def write(self, data: bytes) -> None:
        """Send, or queue behind what waits.

        Raises:
            SlowReaderError: too much waits already.
            OSError: the connection is gone.
        """
        if self.backlog:
            if self._behind + len(data) > MAX_BACKLOG_BYTES:
                raise SlowReaderError
            self.backlog.append(data)
            self._behind += len(data)
            return
        sent = send(self.fd, data)
        if sent < len(data):
            self.keep(data, sent)

    def keep(self, data: bytes, sent: int) -> None:
        """Note that only `sent` bytes of a piece went out; there was no backlog before it."""
        self.backlog = deque((data,))
        self._offset = sent

    def flush(self) -> None:
        """Send from the backlog what the socket takes now.

        Raises:
            OSError: the connection is gone.
        """
        while self.backlog:
            piece = self.backlog[0]
            sent = send(self.fd, piece[self._offset : self._offset + _SLICE_BYTES])
            if not sent:
                return
            self.is_stalled = False
            self._offset += sent
            if self._offset == len(piece):
                self.backlog.popleft()
                self._offset = 0
                if self.backlog:
                    self._behind -= len(self.backlog[0])
        self.backlog = None

    def is_gone(self) -> bool:
        """Read and drop what the peer sent; tell whether it has hung up or will not be quiet."""
        try:
            data = self.sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        self._received += len(data)
        return not data or self._received > _MAX_RECEIVED_BYTES
