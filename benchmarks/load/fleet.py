"""Many processes that report, from one process beside the one that measures.

Each of them has the feature for a quarter of its users. One report in four has a failed user, who
is on either side as the split says, so that the guard has much to read and nothing to find.
"""

import multiprocessing
import select
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from benchmarks._loopback import Connection, no_collections, request_bytes, split_answer

EXPOSURES = 40  # of a report
_CONNECTIONS = 32
_TEMPLATE = (
    '{"instance":"%s%d","sequence":%d,"service":"shop","service_version":"1","applied_sequence":1,'
    '"started_at":"2026-01-01T00:00:00.000Z","ended_at":"2026-01-01T00:00:01.000Z","cells":['
    '{"flag":"%s","split":"default","variant":"on","config_version":%d,"exposures":10,"errors":%d,'
    '"latency":{"60":5,"64":3,"72":2},"units":{%s}},'
    '{"flag":"%s","split":"default","variant":"off","config_version":%d,"exposures":30,"errors":%d,'
    '"latency":{"60":15,"64":10,"72":5},"units":{%s}}],'
    '"unscoped":{},"error_kinds":[],"local_kills":[],"dropped":{}}'
)


@dataclass(frozen=True, slots=True)
class Reported:
    """What a fleet did.

    Attributes:
        acknowledged: reports of each instance, by its number; each was acknowledged as new.
        answer_ms: from a report's sending until its answer was there.
    """

    acknowledged: list[int]
    seconds: float
    answer_ms: list[float]

    @property
    def total(self) -> int:
        return sum(self.acknowledged)


class Fleet:
    """So many processes, each of which reports as soon as the round comes to it.

    It is there once the first report has been acknowledged.

    Args:
        per_s: reports a second of all of them; None for as many as are answered.
        prefix: of their names, before a number.
    """

    def __init__(
        self,
        port: int,
        token: str,
        flag: str,
        version: int,
        *,
        instances: int,
        per_s: float | None,
        prefix: str = "i-",
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._stop = context.Event()
        self._process = context.Process(
            target=_report,
            args=(port, token, flag, version, instances, per_s, prefix, self._stop, theirs),
            daemon=True,
        )
        self._process.start()
        self._pipe.recv()

    def stop(self) -> Reported:
        """Wait for the answers that are on their way; return what was done.

        Raises:
            EOFError: an answer was none that a report in order gets.
        """
        self._stop.set()
        try:
            reported: Reported = self._pipe.recv()
        finally:
            self._process.join()
        return reported


@contextmanager
def reporting(fleet: Fleet) -> Iterator[list[Reported]]:
    """Yield a list that has what the fleet did once the block has ended."""
    done: list[Reported] = []
    try:
        yield done
    finally:
        done.append(fleet.stop())


def report(
    flag: str, version: int, instance: tuple[str, int], sequence: int, unit: int | None
) -> bytes:
    """Return one report; a failed unit is on the side of the split that its number says."""
    kinds = dict.fromkeys((True, False), "")
    if unit is not None:
        kinds[unit % 4 == 0] = f'"error:TimeoutError":["{unit * 0x9E3779B97F4A7C15 % 2**64:016x}"]'
    on, off = ((flag, version, int(bool(kinds[side])), kinds[side]) for side in (True, False))
    return (_TEMPLATE % (*instance, sequence, *on, *off)).encode()


def _report(
    port: int,
    token: str,
    flag: str,
    version: int,
    instances: int,
    per_s: float | None,
    prefix: str,
    stop: Any,
    pipe: Pipe,
) -> None:
    acknowledged = [0] * instances
    answer_ms: list[float] = []
    # No process reports again before it has its answer: out of order it would be a duplicate.
    connections = [Connection(port) for _ in range(min(_CONNECTIONS, instances))]
    epoll = select.epoll()
    by_fd = {each.sock.fileno(): each for each in connections}
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    idle = deque(connections)
    read = dict.fromkeys(by_fd, b"")
    asked: dict[int, tuple[float, int]] = {}  # descriptor → when, and for which instance
    sent = 0
    with no_collections():
        started_at = time.perf_counter()
        while not (is_over := stop.is_set()) or asked:
            now = time.perf_counter()
            while idle and not is_over and (per_s is None or now >= started_at + sent / per_s):
                number, round_number = sent % instances, sent // instances
                unit = sent // 4 if sent % 4 == 0 else None
                body = report(flag, version, (prefix, number), round_number + 1, unit)
                connection = idle.popleft()
                asked[connection.sock.fileno()] = (time.perf_counter(), number)
                connection.sock.sendall(request_bytes("POST", "/sdk/v1/telemetry", token, body))
                sent += 1
            for fd, _ in epoll.poll(0.001 if per_s and idle else 0.1):
                data = by_fd[fd].sock.recv(65_536)
                read[fd] += data
                answer = split_answer(read[fd])
                if answer is None and data:
                    continue  # it has not come whole
                if answer is None or not _is_new(answer.status, answer.body):
                    body = read[fd] if answer is None else answer.body
                    raise RuntimeError(f"not as it should be: {body[:500]!r}")
                read[fd] = b""
                at, number = asked.pop(fd)
                answer_ms.append((time.perf_counter() - at) * 1e3)
                acknowledged[number] += 1
                if len(answer_ms) == 1:
                    pipe.send("begun")
                idle.append(by_fd[fd])
        seconds = time.perf_counter() - started_at
    for connection in connections:
        connection.close()
    pipe.send(Reported(acknowledged, seconds, answer_ms))


def _is_new(status: int, body: bytes) -> bool:
    return status == 200 and body.startswith(b'{"accepted":2,"duplicate":false,"refused":[],')
