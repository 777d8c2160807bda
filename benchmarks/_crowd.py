"""Many open streams in one process, read by one epoll."""

import errno
import select
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks._loopback import DEADLINE_S, READ_BYTES, split_answer

# Each has 28,000 ports towards one server; closed ones are taken for another minute.
_SOURCES = tuple(f"127.0.0.{last}" for last in range(1, 9))
_IP_BIND_ADDRESS_NO_PORT = 24  # of linux/in.h: the port is chosen when it connects
_IN_PROGRESS = (0, errno.EINPROGRESS)


class Arrivals(NamedTuple):
    """How streams that were opened all at once came in.

    Attributes:
        seconds: from the first attempt until the last stream had its first event.
        refused: connections that were refused or reset.
        failed: statuses other than 200.
    """

    seconds: float
    refused: int
    failed: Sequence[int]


class Crowd:
    """Open streams. `port` is the server's, `request` what opens a stream."""

    def __init__(self, port: int, request: bytes, streams: int) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self.event_bytes = 0  # length of the event that was gathered last
        for number in range(streams):
            sock = _socket(number)
            sock.settimeout(DEADLINE_S)
            sock.connect(("127.0.0.1", port))
            sock.sendall(request)
            sock.setblocking(False)
            self._add(sock)

    @classmethod
    def at_once(
        cls, port: int, request: bytes, streams: int, marker: bytes
    ) -> tuple["Crowd", Arrivals]:
        """Begin to open so many streams before the first is there, as after a server's restart.

        Returns:
            Those that got an event with `marker`, and how they came in.
        """
        crowd = cls(port, request, 0)
        started_at = time.perf_counter()
        connecting: dict[int, socket.socket] = {}
        for number in range(streams):
            sock = _socket(number)
            sock.setblocking(False)
            code = sock.connect_ex(("127.0.0.1", port))
            if code not in _IN_PROGRESS:
                raise OSError(code, "no connection could be begun")
            connecting[sock.fileno()] = sock
            crowd._epoll.register(sock.fileno(), select.EPOLLOUT)
        arrivals = crowd._welcome(connecting, request, marker)
        return crowd, Arrivals(time.perf_counter() - started_at, *arrivals)

    def _welcome(
        self, connecting: dict[int, socket.socket], request: bytes, marker: bytes
    ) -> tuple[int, list[int]]:
        read = dict.fromkeys(connecting, b"")
        refused, failed = 0, []
        deadline = time.perf_counter() + DEADLINE_S
        while connecting and (left := deadline - time.perf_counter()) > 0:
            for fd, mask in self._epoll.poll(left):
                sock = connecting.get(fd)
                if sock is None:
                    continue  # an event more for one that is in
                try:
                    if mask & select.EPOLLOUT:
                        sock.send(request)
                        self._epoll.modify(fd, select.EPOLLIN)
                        continue
                    data = sock.recv(READ_BYTES)
                except OSError:
                    data = b""
                read[fd] += data
                if marker in read[fd] and read[fd].endswith(b"\n\n"):
                    self._sockets[fd] = connecting.pop(fd)
                elif not data or not read[fd].startswith(b"HTTP/1.1 200"[: len(read[fd])]):
                    answer = split_answer(read[fd])
                    if answer is None:
                        refused += 1
                    else:
                        failed.append(answer.status)
                    self._epoll.unregister(fd)
                    connecting.pop(fd).close()
        refused += len(connecting)  # never answered
        for sock in connecting.values():
            sock.close()
        return refused, failed

    def _add(self, sock: socket.socket) -> None:
        self._sockets[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def __len__(self) -> int:
        return len(self._sockets)

    def gather(self, marker: bytes) -> list[float]:
        """Wait until every stream has an event with `marker`, and return the times, in order.

        Streams that don't get theirs within the deadline are missing in the result.
        """
        arrived: list[float] = []
        waiting = set(self._sockets)
        read = dict.fromkeys(self._sockets, b"")
        deadline = time.perf_counter() + DEADLINE_S
        while waiting and (left := deadline - time.perf_counter()) > 0:
            for fd, _ in self._epoll.poll(left):
                data = self._sockets[fd].recv(READ_BYTES)
                at = time.perf_counter()
                if not data:
                    raise ConnectionError("the server closed a stream")
                data = read[fd] + data
                position = data.find(marker)
                if position >= 0 and data.endswith(b"\n\n") and fd in waiting:
                    waiting.discard(fd)
                    arrived.append(at)
                    self.event_bytes = len(data)
                    data = b""
                read[fd] = data
        return arrived

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._epoll.close()


class StuckReaders:
    """Streams whose readers never read, with little room for what is sent to them."""

    def __init__(self, port: int, request: bytes, streams: int) -> None:
        self._sockets = []
        for number in range(streams):
            sock = _socket(number)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least
            sock.settimeout(DEADLINE_S)
            sock.connect(("127.0.0.1", port))
            sock.sendall(request)
            self._sockets.append(sock)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def _socket(number: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((_SOURCES[number % len(_SOURCES)], 0))
    return sock
