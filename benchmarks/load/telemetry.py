"""Telemetry for a minute: how much, whether all of it is there, how far behind the guard is.

Two thousand processes report as fast as they are answered. Then the server is killed, and what the
database holds is compared with what was acknowledged. Meanwhile other flags turn bad, one after the
other: their processes report one failed user at a time, and the guard's own report says how many
it took, hence which summary decided. From the moment that one was sent until a stream has the kill
is how far behind the guard is.
"""

import json
import socket
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks._harness import Row, at_least, at_most, informs
from benchmarks._loopback import READ_BYTES, Connection, request_bytes
from benchmarks._process import usage_of
from benchmarks._servers import FLAG, Flags, flag_server
from benchmarks.load.fleet import EXPOSURES, Fleet, Reported, reporting

SUMMARIES = "telemetry: summaries"
SUMMARIES_PER_S = 2_000.0
BEHIND_MS = 1_000.0
_PROBES = 20  # processes that serve the flags that turn bad
_MOST_FAILURES = 200
_FIRST_BAD_AFTER = 0.25  # of the time; then until this much of it has gone by
_LAST_BAD_AFTER = 0.9


def measure(seconds: float, instances: int, bad_flags: int) -> list[Row]:
    """Report for so long, with so many flags that turn bad meanwhile; at most 5 a minute."""
    with flag_server() as flags:
        probes = [_Probe(flags, f"turns-bad-{number}") for number in range(bad_flags)]
        watch = _KillWatch(flags)
        for probe in probes:
            probe.report_healthy()
        before = usage_of(flags.program.worker)
        fleet = Fleet(flags.program.port, flags.sdk, FLAG, 2, instances=instances, per_s=None)
        behind_ms: list[float] = []
        started_at = time.perf_counter()
        with reporting(fleet) as done:
            for number, probe in enumerate(probes):
                share = _FIRST_BAD_AFTER + (_LAST_BAD_AFTER - _FIRST_BAD_AFTER) * number / bad_flags
                time.sleep(max(0.0, started_at + seconds * share - time.perf_counter()))
                behind_ms.append(probe.turn_bad(watch))
            time.sleep(max(0.0, started_at + seconds - time.perf_counter()))
        (reported,) = done
        after = usage_of(flags.program.worker)
        watch.close()
        for probe in probes:
            probe.close()
        flags.program.kill()
        missing, database_bytes = lost(flags.folder / "flags.db", reported)
    rate = reported.total / reported.seconds
    cpu_ms = 1e3 * (after.cpu_s - before.cpu_s) / reported.total
    return [
        at_least(SUMMARIES, rate, "a second", SUMMARIES_PER_S),
        informs("telemetry: seconds", reported.seconds, "s"),
        informs("telemetry: acknowledged", reported.total, "summaries"),
        at_most("telemetry: acknowledged and not in the database after SIGKILL", missing, "", 0),
        informs("telemetry: answer, median", statistics.median(reported.answer_ms), "ms"),
        informs("telemetry: answer, p99", _p99(reported.answer_ms), "ms"),
        informs("telemetry: processor", cpu_ms, "ms a summary"),
        informs("telemetry: memory", (after.pss - before.pss) / 1024**2, "MB more"),
        informs("telemetry: database", database_bytes / 1024**2, "MB"),
        informs(
            "guard: summary that decides → kill on a stream", statistics.median(behind_ms), "ms"
        ),
        at_most(f"guard: the same, worst of {len(behind_ms)}", max(behind_ms), "ms", BEHIND_MS),
    ]


def measure_steady(per_s: float, seconds: float, instances: int) -> list[Row]:
    """Report at a steady rate: what the processor has to do, and how long answers take."""
    with flag_server() as flags:
        flags.warm_up()
        before = usage_of(flags.program.worker)
        fleet = Fleet(flags.program.port, flags.sdk, FLAG, 4, instances=instances, per_s=per_s)
        with reporting(fleet) as done:
            time.sleep(seconds)
        (reported,) = done
        cpu_s = usage_of(flags.program.worker).cpu_s - before.cpu_s
    name = f"{per_s:,.0f} summaries a second"
    return [
        informs(f"{name}: answered", reported.total / reported.seconds, "a second"),
        informs(processor_of(per_s), 100 * cpu_s / reported.seconds, "% of a core"),
        informs(f"{name}: answer, p99", _p99(reported.answer_ms), "ms"),
    ]


def processor_of(per_s: float) -> str:
    return f"{per_s:,.0f} summaries a second: processor"


def lost(database: Path, reported: Reported) -> tuple[int, int]:
    """Return how many acknowledged reports a database does not have, and its size."""
    size = sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))
    with closing(sqlite3.connect(database)) as db:
        sequences = dict(db.execute("SELECT instance, sequence FROM instances"))
        (exposures,) = db.execute(
            "SELECT coalesce(sum(exposures), 0) FROM counts WHERE flag = ?", (FLAG,)
        ).fetchone()
    behind = sum(
        abs(count - sequences.get(f"i-{number}", 0))
        for number, count in enumerate(reported.acknowledged)
    )
    # Both ways: by the numbers that each instance got to, and by what was counted.
    return max(behind, abs(reported.total - exposures // EXPOSURES)), size


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1] if len(times) > 1 else times[0]


class _Probe:
    """A flag whose processes report well, until they don't."""

    def __init__(self, flags: Flags, flag: str) -> None:
        flags.create_flag(flag, [])
        self._flags = flags
        self._flag = flag
        self._connection = Connection(flags.program.port)
        self._sequence = 0

    def report_healthy(self) -> None:
        for _ in range(_PROBES):
            self._report(fails=False)

    def turn_bad(self, watch: "_KillWatch") -> float:
        """Report failures until the guard has killed the flag; return the ms it was behind."""
        watch.skip()
        sent_at: list[float] = []
        arrived_at = None
        while arrived_at is None:
            if len(sent_at) == _MOST_FAILURES:
                raise RuntimeError(f"{_MOST_FAILURES} failures of {self._flag} did not kill it")
            sent_at.append(time.perf_counter())
            self._report(fails=True)
            arrived_at = watch.look(self._flag)
        path = f"/api/v1/flags/{self._flag}/environments/production"
        kill = self._flags.admin("GET", path)["kill"]
        evidence = self._flags.admin("GET", f"{path}/evidence/{kill['evidence']}")
        failed: int = evidence["comparisons"][0]["treatment"]["failing_units"]
        return (arrived_at - sent_at[failed - 1]) * 1e3

    def _report(self, fails: bool) -> None:
        """Report from the next of the processes."""
        round_number, instance = divmod(self._sequence, _PROBES)
        self._sequence += 1
        on: dict[str, Any] = {
            "flag": self._flag,
            "split": "default",
            "variant": "on",
            "config_version": 2,
            "exposures": 10,
            "errors": int(fails),
            "units": {"error:KeyError": [f"{self._sequence:016x}"]} if fails else {},
        }
        off = on | {"variant": "off", "exposures": 30, "errors": 0, "units": {}}
        document = {
            "instance": f"{self._flag}-{instance}",
            "sequence": round_number + 1,
            "service": "shop",
            "service_version": "1",
            "applied_sequence": 1,
            "started_at": "2026-01-01T00:00:00.000Z",
            "ended_at": "2026-01-01T00:00:01.000Z",
            "cells": [on, off],
        }
        body = json.dumps(document).encode()
        request = request_bytes("POST", "/sdk/v1/telemetry", self._flags.sdk, body)
        answer = self._connection.call(request)
        if answer.status != 200 or answer.json()["accepted"] != 2:
            raise RuntimeError(f"status {answer.status}: {answer.body[:500]!r}")

    def close(self) -> None:
        self._connection.close()


class _KillWatch:
    """A stream, looked at for kills."""

    _LOOK_S = 0.02

    def __init__(self, flags: Flags) -> None:
        self._sock = socket.create_connection(("127.0.0.1", flags.program.port))
        self._sock.sendall(request_bytes("GET", "/sdk/v1/stream", flags.sdk))
        self._read = b""
        self.skip()

    def skip(self) -> None:
        """Drop what has come so far."""
        while self._wait():
            self._read = b""

    def look(self, flag: str) -> float | None:
        """Return when an event of a killed flag came; None where none has come for a moment."""
        while self._wait():
            at = time.perf_counter()
            *events, self._read = self._read.split(b"\n\n")
            for event in events:
                if b'"key":"%b"' % flag.encode() in event and b'"kill":{' in event:
                    return at
        return None

    def _wait(self) -> bool:
        self._sock.settimeout(self._LOOK_S)
        try:
            data = self._sock.recv(READ_BYTES)
        except TimeoutError:
            return False
        if not data:
            raise ConnectionError("the server closed a stream")
        self._read += data
        return True

    def close(self) -> None:
        self._sock.close()
