"""How fast a kill reaches every open stream, and what the server answers meanwhile.

A real server (one worker, SQLite with synchronous FULL) on one core, the clients in this process on
another. A kill is timed from before its request is sent until a stream has the event whole, so
authentication, validation and the commit are inside. Beside it stands a bare epoll loop that writes
as many bytes to as many sockets, read by the same client.

`FLAGD_BENCH_STREAMS=100,1000,5000` says how many streams to open (at most 10,000).
"""

import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import TypeAlias

from benchmarks._crowd import Crowd
from benchmarks._harness import Row, at_most, informs
from benchmarks._loopback import Connection, no_collections, request_bytes, requests_per_second
from benchmarks._servers import FLAG, Flags, Program, etag_of, flag_server, pin, running

# Streams → milliseconds to the last of them, and how many times the floor that is on the machine
# for which the goal was set; a slower or busier machine is held to the latter.
GOALS = {100: (10.0, 11.0), 1000: (20.0, 1.8), 5000: (60.0, 1.35), 10_000: (110.0, 1.25)}
STREAM_KB = 2.0
# Requests a second, and the same as a share of an application that does nothing, which answers
# 5,900 a second where the goals were set.
RATE_GOALS = {
    "304": (4000.0, 0.68),
    "flag set of 35 KB": (3000.0, 0.51),
    "telemetry": (2000.0, 0.34),
}
_SET_BYTES = 35 * 1024
# Server and floor are measured in turn while this process has descriptors for both.
_MAX_INTERLEAVED = 5000
_ROUNDS = 12
_CONNECTIONS = 16
# A kill comes when there is trouble, and then everybody reports.
_REPORTS_PER_S = 300.0


@dataclass(frozen=True, slots=True)
class _Spread:
    """Milliseconds from the start until streams had an event: medians over the rounds."""

    first: float
    median: float
    p99: float
    last: float
    missed: int

    @classmethod
    def of(cls, rounds: list[list[float]], streams: int) -> "_Spread":
        def at(share: float) -> float:
            return statistics.median(times[int(share * (len(times) - 1))] for times in rounds)

        missed = sum(streams - len(times) for times in rounds)
        return cls(at(0.0), at(0.5), at(0.99), at(1.0), missed)


class _Floor:
    """The bare loop, with as many streams."""

    def __init__(self, program: Program, streams: int) -> None:
        self._control = Connection(program.port)
        self._crowd = Crowd(program.port, b"", streams)
        self.round()

    def round(self) -> list[float]:
        with no_collections():
            started_at = time.perf_counter()
            self._control.send(b"!")
            arrived = self._crowd.gather(b"event: flag\n")
        return [(at - started_at) * 1e3 for at in arrived]

    def close(self) -> None:
        self._crowd.close()
        self._control.close()


def _time_fan_out(streams: int, rounds: int) -> tuple[_Spread, _Spread, float]:
    """Return what the server took, what the floor took, and the server's KB a stream."""
    with flag_server() as flags:
        flags.warm_up()
        crowd = flags.open_streams(streams)
        flags.time_kill(crowd)
        stream_kb = _cost_of_one_more(flags, min(streams, 2000))
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        with running(
            [sys.executable, "-m", "benchmarks._floor", "fanout", str(crowd.event_bytes)]
        ) as program:
            if streams <= _MAX_INTERLEAVED:
                floor = _Floor(program, streams)
                for _ in range(rounds):  # in turn, so that a slow minute slows both
                    ours.append(flags.time_kill(crowd))
                    theirs.append(floor.round())
                crowd.close()
            else:
                ours = [flags.time_kill(crowd) for _ in range(rounds)]
                crowd.close()
                floor = _Floor(program, streams)
                theirs = [floor.round() for _ in range(rounds)]
            floor.close()
    return _Spread.of(ours, streams), _Spread.of(theirs, streams), stream_kb


def _cost_of_one_more(flags: Flags, streams: int) -> float:
    """Return the KB that each of so many more streams takes, with many open already.

    What serving the first thousand requests makes the process keep is not the cost of a stream.
    """
    before = flags.program.resident_bytes()
    crowd = flags.open_streams(streams)
    grown = flags.program.resident_bytes() - before
    crowd.close()
    return grown / streams / 1024


def _measure_fan_out(streams: int, rounds: int) -> list[Row]:
    spread, floor, stream_kb = _time_fan_out(streams, rounds)
    goal_ms, goal_ratio = GOALS[streams]
    times_floor = spread.last / floor.last
    is_fast = spread.last <= goal_ms or times_floor <= goal_ratio
    name = f"kill to {streams:,} streams"
    goal = f"≤ {goal_ms:g} ms or ≤ {goal_ratio:g} × floor"
    rows = [
        informs(f"{name}: first", spread.first, "ms"),
        informs(f"{name}: median", spread.median, "ms"),
        informs(f"{name}: p99", spread.p99, "ms"),
        Row(f"{name}: last", spread.last, "ms", goal, is_fast),
        informs(f"{name}: last, floor", floor.last, "ms"),
        Row(f"{name}: last / floor", times_floor, "×", goal, is_fast),
        at_most(f"{name}: missed", spread.missed, "streams", 0),
    ]
    if streams >= 1000:  # fewer drown in what an allocator does of its own accord
        rows.append(at_most(f"{name}: memory", stream_kb, "KB a stream", STREAM_KB))
    return rows


def _summary(instance: int, sequence: int) -> bytes:
    """A second of one process: three variants seen, a latency sketch each, an error."""
    now = "2026-01-01T00:00:00.000Z"
    cells = [
        {
            "flag": FLAG,
            "split": "default",
            "variant": variant,
            "config_version": 2,
            "exposures": 40,
            "errors": 1,
            "latency": {"60": 10, "64": 20, "72": 10},
            "units": {"error:ValueError": [f"{(instance << 32) + sequence:016x}"]},
        }
        for variant in ("on", "off")
    ]
    document = {
        "instance": f"i-{instance}",
        "sequence": sequence,
        "service": "shop",
        "service_version": "1",
        "applied_sequence": 1,
        "started_at": now,
        "ended_at": now,
        "cells": cells,
        "unscoped": {FLAG: 3},
        "error_kinds": [],
        "local_kills": [],
        "dropped": {},
    }
    return json.dumps(document).encode()


# Port, (connection) -> its next request, status of the answer.
_Asked: TypeAlias = tuple[int, Callable[[int], bytes], int]


class _Reports:
    """Each connection is a process that reports second after second."""

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        self._token = token
        self._sequences = [0] * _CONNECTIONS

    def __call__(self, number: int) -> bytes:
        self._sequences[number] += 1
        body = _summary(number, self._sequences[number])
        return request_bytes("POST", self._path, self._token, body)


@contextmanager
def _reporting(flags: Flags, reports_per_s: float) -> Iterator[None]:
    """Report from a process beside this one, so that reading the streams is not held up."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    reporter = context.Process(
        target=_report_steadily, args=(flags.program.port, flags.sdk, reports_per_s, stop)
    )
    reporter.start()
    try:
        yield
    finally:
        stop.set()
        reporter.join()
    if reporter.exitcode:
        raise RuntimeError("the reports were not answered as they should be, or came too late")


def _report_steadily(port: int, token: str, reports_per_s: float, stop: Event) -> None:
    reports = _Reports("/sdk/v1/telemetry", token)
    connections = [Connection(port) for _ in range(_CONNECTIONS)]
    started_at = time.perf_counter()
    sent = 0
    while not stop.wait(started_at + sent / reports_per_s - time.perf_counter()):
        number = sent % _CONNECTIONS
        if sent >= _CONNECTIONS and (answer := connections[number].receive()).status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.body[:500]!r}")
        connections[number].send(reports(number))
        sent += 1
    if sent < 0.9 * reports_per_s * (time.perf_counter() - started_at):
        raise RuntimeError(f"only {sent} reports were answered in time")


def _measure_fan_out_beside_reports(streams: int, rounds: int) -> list[Row]:
    with flag_server() as flags:
        flags.warm_up()
        crowd = flags.open_streams(streams)
        flags.time_kill(crowd)
        with _reporting(flags, _REPORTS_PER_S):
            times = [flags.time_kill(crowd) for _ in range(rounds)]
        crowd.close()
    spread = _Spread.of(times, streams)
    name = f"kill to {streams:,} streams beside {_REPORTS_PER_S:.0f} reports a second"
    return [
        informs(f"{name}: median", spread.median, "ms"),
        informs(f"{name}: last", spread.last, "ms"),
        informs(f"{name}: last, worst round", max(map(max, times)), "ms"),
        at_most(f"{name}: missed", spread.missed, "streams", 0),
    ]


def _measure_rates(slices: int, slice_s: float) -> list[Row]:
    with flag_server() as flags:
        size = flags.grow_to(_SET_BYTES)
        with running([sys.executable, "-m", "benchmarks._floor", "wsgi", str(size)]) as program:
            ours, floor = flags.program.port, program.port
            get = request_bytes("GET", "/sdk/v1/flags", flags.sdk)
            etag = f"If-None-Match: {etag_of(ours, get)}\r\n"
            cached = request_bytes("GET", "/sdk/v1/flags", flags.sdk, b"", etag)
            # Each: server, its next request, the status of the answer.
            pairs: dict[str, tuple[_Asked, _Asked]] = {
                "304": (
                    (ours, lambda _: cached, 304),
                    (floor, lambda _: request_bytes("GET", "/304", "x"), 304),
                ),
                "flag set of 35 KB": (
                    (ours, lambda _: get, 200),
                    (floor, lambda _: request_bytes("GET", "/flags", "x"), 200),
                ),
                "telemetry": (
                    (ours, _Reports("/sdk/v1/telemetry", flags.sdk), 200),
                    (floor, _Reports("/telemetry", "x"), 200),
                ),
            }
            return [
                row
                for name, (asked, of_floor) in pairs.items()
                for row in _measure_rate(name, asked, of_floor, slices, slice_s)
            ]


def _measure_rate(
    name: str, asked: _Asked, of_floor: _Asked, slices: int, slice_s: float
) -> list[Row]:
    def rate(port: int, next_request: Callable[[int], bytes], status: int) -> float:
        return requests_per_second(
            port, next_request, status, connections=_CONNECTIONS, seconds=slice_s
        )

    in_turn = [(rate(*asked), rate(*of_floor)) for _ in range(slices)]
    figure = statistics.median(ours for ours, _ in in_turn)
    floor = statistics.median(floor for _, floor in in_turn)
    share = statistics.median(ours / floor for ours, floor in in_turn)
    goal_rate, goal_share = RATE_GOALS[name]
    is_fast = figure >= goal_rate or share >= goal_share
    goal = f"≥ {goal_rate:,.0f} a second or ≥ {goal_share:g} of the floor"
    return [
        Row(f"{name}: answered", figure, "a second", goal, is_fast),
        informs(f"{name}: floor", floor, "a second"),
        Row(f"{name}: share of the floor", share, "", goal, is_fast),
    ]


def _streams_asked(small: bool) -> list[int]:
    asked = os.environ.get("FLAGD_BENCH_STREAMS", "100" if small else "100,1000")
    numbers = [int(number) for number in asked.split(",")]
    unknown = [number for number in numbers if number not in GOALS]
    if unknown:
        raise ValueError(f"FLAGD_BENCH_STREAMS: {unknown} not among {sorted(GOALS)}")
    return numbers


def run(small: bool) -> list[Row]:
    """Measure; `small` takes seconds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = os.sched_getaffinity(0)
    pin(os.getpid(), 1)
    try:
        rows = _measure_rates(2, 0.25) if small else _measure_rates(8, 0.5)
        for streams in _streams_asked(small):
            rows += _measure_fan_out(streams, 3 if small else _ROUNDS)
        rows += _measure_fan_out_beside_reports(100 if small else 1000, 3 if small else _ROUNDS)
    finally:
        os.sched_setaffinity(0, before)
    return rows
