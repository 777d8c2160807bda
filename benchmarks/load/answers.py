"""How much is answered a second: evaluations by OFREP, flag sets with and without their tag.

Each figure stands beside two floors on the same cores: an application that does nothing, on the
gunicorn that serves flags; and a bare loop that answers at once with as many bytes, which shows
what the client can take.
"""

import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from benchmarks._harness import Row, at_most, informs
from benchmarks._loopback import request_bytes, requests_per_second
from benchmarks._process import usage_of
from benchmarks._servers import FLAG, Flags, bare_loop, etag_of, flag_server, running

# Requests a second, and the same as a share of an application that does nothing, which answers
# 5,900 a second where the goals were set; a slower or busier machine is held to the latter.
OFREP, FLAG_SET, NOT_MODIFIED = (1_000.0, 0.17), (3_000.0, 0.51), (4_000.0, 0.68)
_SET_BYTES = 35 * 1024
_CONNECTIONS = 16
# A flag is mostly text: its variants. This makes a set of 35 KB have a hundred of them.
_VARIANT_CHARS = 60
_EVALUATION = b'{"context":{"targetingKey":"user-1","country":"NL"}}'
_KILLS = 5


class _Question(NamedTuple):
    name: str
    request: bytes
    status: int
    goal: tuple[float, float] | None


def answered(name: str) -> str:
    return f"{name}: answered"


def answers_with(flags: int) -> str:
    return f"{flags:,} flags: sets answered"


def memory_with(flags: int) -> str:
    return f"{flags:,} flags: memory"


def kill_with(flags: int) -> str:
    return f"{flags:,} flags: kill to a stream"


def measure(slices: int, slice_s: float, set_bytes: int = _SET_BYTES) -> list[Row]:
    """Ask for each in turn with its floors, slice after slice."""
    with flag_server() as flags:
        flags.grow_to(set_bytes)
        get = request_bytes("GET", "/sdk/v1/flags", flags.sdk)
        tag = f"If-None-Match: {etag_of(flags.program.port, get)}\r\n"
        one = f"/ofrep/v1/evaluate/flags/{FLAG}"
        questions = [
            _Question(
                "OFREP, one flag",
                request_bytes("POST", one, flags.sdk, _EVALUATION),
                200,
                OFREP,
            ),
            _Question(
                "OFREP, all flags",
                request_bytes("POST", "/ofrep/v1/evaluate/flags", flags.sdk, _EVALUATION),
                200,
                None,
            ),
            _Question("flag set of 35 kB", get, 200, FLAG_SET),
            _Question(
                "304",
                request_bytes("GET", "/sdk/v1/flags", flags.sdk, b"", tag),
                304,
                NOT_MODIFIED,
            ),
        ]
        rows = []
        for question in questions:
            rows += _measure_one(flags, question, slices, slice_s)
    return rows


def measure_growth(sizes: list[int], slices: int, slice_s: float) -> list[Row]:
    """Add flags, and see at each size what a set, a kill and the memory are; then count reads."""
    rows: list[Row] = []
    bytes_per_s = []
    with flag_server() as flags:
        flags.warm_up()
        made = 1
        get = request_bytes("GET", "/sdk/v1/flags", flags.sdk)
        for size in sizes:
            for number in range(made, size):
                _create_plain(flags, number)
            made = size
            length = len(flags.connection.call(get).body)
            per_s = statistics.median(
                _per_second(flags.program.port, get, 200, slice_s) for _ in range(slices)
            )
            crowd = flags.open_streams(1)
            kill_ms = statistics.median(flags.time_kill(crowd)[0] for _ in range(_KILLS))
            crowd.close()
            bytes_per_s.append(per_s * length)
            rows += [
                informs(f"{size:,} flags: a set", length / 1024, "kB"),
                informs(answers_with(size), per_s, "a second"),
                informs(f"{size:,} flags: sets, in bytes", per_s * length / 1024**2, "MB a second"),
                informs(kill_with(size), kill_ms, "ms"),
                informs(memory_with(size), usage_of(flags.program.worker).pss / 1024**2, "MB"),
            ]
        flags.program.stop()
        reads = _database_reads(flags.folder / "flags.db", flags.sdk, 200)
    most, least = f"{sizes[-1]:,}", f"{sizes[0]:,}"
    return [
        *rows,
        at_most(f"{most} flags: reads of the database in 200 answers", reads, "", 0),
        informs(f"bytes a second, {most} flags / {least}", bytes_per_s[-1] / bytes_per_s[0], "×"),
    ]


def _measure_one(flags: Flags, question: _Question, slices: int, slice_s: float) -> list[Row]:
    name, request, status, goal = question
    body = len(flags.connection.call(request).body)
    path = "/304" if status == 304 else "/flags"
    same = request_bytes("GET", path, "x")
    with _idle_application(body) as floor, bare_loop("answer", body) as (bare, language):
        rounds = [
            (
                _per_second(flags.program.port, request, status, slice_s),
                _per_second(floor, same, status, slice_s),
                _per_second(bare.port, request, 200, slice_s),
            )
            for _ in range(slices)
        ]
    ours, idle, ceiling = (statistics.median(column) for column in zip(*rounds, strict=True))
    share = ours / idle
    text, is_met = "", True
    if goal is not None:
        text = f"≥ {goal[0]:,.0f} a second or ≥ {goal[1]:g} of the floor"
        is_met = ours >= goal[0] or share >= goal[1]
    return [
        Row(answered(name), ours, "a second", text, is_met),
        Row(f"{name}: share of an application that does nothing", share, "", text, is_met),
        informs(f"{name}: the client's ceiling, a bare loop in {language}", ceiling, "a second"),
    ]


def _per_second(port: int, request: bytes, status: int, seconds: float) -> float:
    return requests_per_second(
        port, lambda _: request, status, connections=_CONNECTIONS, seconds=seconds
    )


@contextmanager
def _idle_application(size: int) -> Iterator[int]:
    """Yield the port of one that answers at once, with as many bytes."""
    with running([sys.executable, "-m", "benchmarks._floor", "wsgi", str(size)]) as program:
        yield program.port


def _create_plain(flags: Flags, number: int) -> None:
    text = f"{number:06}".ljust(_VARIANT_CHARS, "x")
    variants = {"old": f"old {text}", "new": f"new {text}"}
    document = {"key": f"flag-{number}", "type": "string", "variants": variants}
    flags.admin("POST", "/api/v1/flags", document)


def _database_reads(database: Path, token: str, requests: int) -> int:
    """Answer in this process; return how often the database was opened for it after the first."""
    from flagd_server.app import create_app
    from flagd_server.config import Settings
    from flagd_server.storage.sqlite import SqliteStorage

    app = create_app(Settings(database=str(database)))
    client = app.test_client()
    headers = {"Authorization": f"Bearer {token}"}
    reads, here = 0, threading.get_ident()

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal reads
            reads += threading.get_ident() == here  # others of the server's have their own work
            return method(*args)

        return counted

    try:
        first = client.get("/sdk/v1/flags", headers=headers).data
        with (
            patch.object(SqliteStorage, "read", counting(SqliteStorage.read)),
            patch.object(SqliteStorage, "transaction", counting(SqliteStorage.transaction)),
        ):
            for _ in range(requests):
                answer = client.get("/sdk/v1/flags", headers=headers)
                if answer.status_code != 200 or answer.data != first:
                    raise RuntimeError(f"another answer: {answer.status}")
    finally:
        app.extensions["flagd_server"].close()
    return reads
