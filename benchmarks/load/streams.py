"""Many streams on one process: a kill to the last of them, what they take, stuck ones, a return.

The floor is a bare epoll loop (in C where there is a compiler) that writes as many bytes to as many
sockets, read by the same client. Memory is the server process's (PSS); what the kernel holds for
the sockets is apart, as it is the same for every server.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

from benchmarks._crowd import Crowd, StuckReaders
from benchmarks._harness import Row, at_most, informs
from benchmarks._loopback import Connection, no_collections, request_bytes
from benchmarks._process import Usage, usage_of
from benchmarks._servers import Flags, Program, bare_loop, flag_server

FLOORS, FLOORS_MS = 1.5, 10.0
STREAM_KB = 2.0
# Of what was there: an allocator gives back pages, not objects.
BACK_PERCENT = 2.0
STUCK_MS = 10.0  # a stuck one costs a send that fails and a place in a queue
_STARTED, _CHANGED = b"event: flags\n", b"event: flag\n"
_SETTLE_S = 30.0


def kill_to_last(streams: int) -> str:
    return f"kill to {streams:,} streams: last"


def floor_of(streams: int) -> str:
    return f"kill to {streams:,} streams: last, floor"


def return_of(streams: int) -> str:
    return f"{streams:,} streams return at once: processor"


def memory_of(streams: int) -> str:
    return f"{streams:,} streams: memory"


def measure(streams: int, rounds: int) -> list[Row]:
    """Time kills to so many streams, and the floor's writes, before and after."""
    with flag_server() as flags:
        flags.warm_up()
        before = usage_of(flags.program.worker)
        with _crowd(flags, streams) as crowd:
            flags.time_kill(crowd)
            grown = usage_of(flags.program.worker).pss - before.pss
            size = crowd.event_bytes
        times, floor, cpu_s = [], [], 0.0
        # The floor's client is forked before there are streams, and has descriptors of its own.
        with (
            bare_loop("fanout", size) as (program, language),
            _Floor(program, streams) as bare,
            _crowd(flags, streams) as crowd,
        ):
            flags.time_kill(crowd)
            for _ in range(rounds):  # in turn, so that a slow minute slows both
                spent_s = usage_of(flags.program.worker).cpu_s
                times.append(flags.time_kill(crowd))
                cpu_s += usage_of(flags.program.worker).cpu_s - spent_s
                floor.append(bare.round_ms())
    last_ms = statistics.median(each[-1] for each in times)
    floor_ms = statistics.median(floor)
    allowed_ms = FLOORS * floor_ms + FLOORS_MS
    name = f"kill to {streams:,} streams"
    goal = f"≤ {FLOORS:g} × floor + {FLOORS_MS:g} ms = {allowed_ms:.1f} ms"
    return [
        Row(kill_to_last(streams), last_ms, "ms", goal, last_ms <= allowed_ms),
        informs(floor_of(streams), floor_ms, f"ms in {language}"),
        informs(f"{name}: last / floor", last_ms / floor_ms, "×"),
        informs(f"{name}: last, worst of {rounds} rounds", max(map(max, times)), "ms"),
        at_most(f"{name}: missed", sum(streams - len(each) for each in times), "streams", 0),
        # A round is a kill and the restore after it.
        informs(f"{name}: processor an event", 1e3 * cpu_s / rounds / 2, "ms"),
        at_most(memory_of(streams), grown / streams / 1024, "kB a stream", STREAM_KB),
    ]


def measure_stuck(streams: int, stuck: int, rounds: int) -> list[Row]:
    """Time kills to the streams that read while others of them read nothing, and see those cut."""
    others = streams - stuck
    with flag_server() as flags, _crowd(flags, others) as crowd:
        big = _BigFlag(flags)
        with _crowd(flags, stuck) as reading:
            alone = _time_both(flags, crowd, reading, rounds)
        before = _settled(flags)
        stuck_readers = StuckReaders(flags.program.port, _stream_request(flags), stuck)
        _wait_until(lambda: flags.metric("flagd_streams_open") == streams)
        # So much that the kernel takes no more, and the rest waits in the server.
        for _ in range(2):
            big.change(crowd)
        beside = [flags.time_kill(crowd) for _ in range(rounds)]
        most = usage_of(flags.program.worker)
        changes = 0
        while flags.metric("flagd_streams_open") > others and changes < 200:
            big.change(crowd)
            changes += 1
        cut = flags.metric("flagd_streams_cut_total")
        after = _settled(flags)
        stuck_readers.close()
        missed = sum(others - len(each) for each in beside)
    alone_ms = statistics.median(alone)
    beside_ms = statistics.median(each[-1] for each in beside)
    name = f"{stuck:,} of {streams:,} stuck"
    return [
        informs(f"{name}: last of the others, none stuck", alone_ms, "ms"),
        at_most(f"{name}: last of the others", beside_ms, "ms", round(alone_ms + STUCK_MS, 1)),
        at_most(f"{name}: missed by the others", missed, "events", 0),
        Row(f"{name}: cut at their backlog", cut, "streams", f"= {stuck}", cut == stuck),
        informs(
            f"{name}: memory while they are", (most.pss - before.pss) / stuck / 1024, "kB each"
        ),
        informs(f"{name}: memory after", (after.pss - before.pss) / 1024**2, "MB more"),
    ]


def measure_return(streams: int, times: int) -> list[Row]:
    """Open so many streams at once, close them, and again; `times` is 2 at least."""
    with flag_server() as flags:
        flags.warm_up()
        spent = usage_of(flags.program.worker)
        request = _stream_request(flags)
        seconds, refused, failed = [], 0, 0
        held: list[int] = []
        for _ in range(times + 1):
            crowd, arrivals = Crowd.at_once(flags.program.port, request, streams, _STARTED)
            held.append(_settled(flags).pss)
            seconds.append(arrivals.seconds)
            refused += arrivals.refused
            failed += len(arrivals.failed)
            crowd.close()
            _wait_until(lambda: flags.metric("flagd_streams_open") == 0)
        cpu_s = usage_of(flags.program.worker).cpu_s - spent.cpu_s
    grown = 100 * (held[-1] - held[0]) / held[0]
    name = f"{streams:,} streams return at once"
    return [
        informs(f"{name}: all are back after", statistics.median(seconds), "s"),
        informs(return_of(streams), 1e3 * cpu_s / streams / (times + 1), "ms a stream"),
        at_most(f"{name}: 5xx and other errors", failed, "", 0),
        at_most(f"{name}: refused, reset or never answered", refused, "", 0),
        informs(f"{name}: memory with all of them", held[1] / 1024**2, "MB"),
        at_most(f"{name}: memory, {times - 1} returns later", grown, "% more", BACK_PERCENT),
    ]


class _BigFlag:
    """A flag whose event fills buffers."""

    _KEY = "big"
    _PATH = f"/api/v1/flags/{_KEY}"

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._version = 1
        document = {"key": self._KEY, "type": "string", "variants": self._variants()}
        flags.admin("POST", "/api/v1/flags", document)

    def change(self, crowd: Crowd) -> None:
        """Announce it once more, and wait for the crowd to have it."""
        self._version += 1
        self._flags.admin("PATCH", self._PATH, {"variants": self._variants()})
        if len(crowd.gather(_CHANGED)) < len(crowd):
            raise RuntimeError("some streams missed a change")

    def _variants(self) -> Any:
        text = f"{self._version:,}" + "x" * 60_000
        return {name: f"{name} {text}" for name in "abc"}


def _time_both(flags: Flags, crowd: Crowd, other: Crowd, rounds: int) -> list[float]:
    """Return when the crowd's last has each kill, while another crowd reads too."""
    lasts = []
    for _ in range(rounds):
        lasts.append(flags.time_kill(crowd)[-1])
        other.gather(_CHANGED)  # the kill, and mostly the restore with it
    return lasts


class _Floor:
    """The bare loop with as many streams, read by a process beside this one."""

    def __init__(self, program: Program, streams: int) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_read_floor, args=(program.port, streams, theirs), daemon=True
        )

    def __enter__(self) -> "_Floor":
        self._process.start()
        self.round_ms()
        return self

    def round_ms(self) -> float:
        """Return the milliseconds to the last stream."""
        self._pipe.send("round")
        took_ms: float = self._pipe.recv()
        return took_ms

    def __exit__(self, *_: object) -> None:
        self._pipe.send("end")
        self._process.join()


def _read_floor(port: int, streams: int, pipe: Pipe) -> None:
    control = Connection(port)
    crowd = Crowd(port, b"", streams)
    while pipe.recv() == "round":
        with no_collections():
            started_at = time.perf_counter()
            control.sock.sendall(b"!")  # never anew after a rest: the floor ends with it
            arrived = crowd.gather(_CHANGED)
        pipe.send((arrived[-1] - started_at) * 1e3)
    crowd.close()
    control.close()


@contextmanager
def _crowd(flags: Flags, streams: int) -> Iterator[Crowd]:
    crowd = flags.open_streams(streams)
    try:
        yield crowd
    finally:
        crowd.close()


def _stream_request(flags: Flags) -> bytes:
    return request_bytes("GET", "/sdk/v1/stream", flags.sdk)


def _settled(flags: Flags) -> Usage:
    """Return what the server takes once it has done what was begun."""
    flags.connection.call(request_bytes("GET", "/readyz", flags.admin_token))
    time.sleep(0.5)
    return usage_of(flags.program.worker)


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SETTLE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError("the server did not settle")
        time.sleep(0.05)
