"""Whether the server stays as it is: an hour of everything at once, at a rate it hardly feels.

A real server on one core. Streams open and close, flags change, processes report, OFREP clients
evaluate, flag sets are read with and without their tag, people look around, and now and then a flag
is killed and restored. Every few seconds the server's memory, descriptors, threads and database are
noted. The first sixth of the time does not count: caches fill.

    python -m benchmarks.soak --minutes 60 --output soak
"""

import argparse
import csv
import json
import random
import select
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._harness import Row, at_most, informs, print_table
from benchmarks._loopback import Answer, Connection, request_bytes
from benchmarks._process import usage_of
from benchmarks._servers import FLAG, Flags, flag_server

SLOPE_PERCENT = 1.0  # of memory, per ten minutes
_WARM_UP_SHARE = 1 / 6
_FEWEST_SAMPLES = 6
_SET_BYTES = 35 * 1024
_STREAMS = 200
_INSTANCES = 40
_USERS = 2_000  # of whom one in four has the feature; sooner or later each of them fails
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment; sizes in bytes, the rest counted since the start."""

    at_s: float
    rss: int
    pss: int
    descriptors: int
    threads: int
    cpu_s: float
    database: int
    requests: int
    server_errors: int
    broken: int  # requests whose connection ended before the answer


class _Job(NamedTuple):
    every_s: float
    do: Callable[[], None]


class _Streams:
    """Open streams whose events are read and dropped; the oldest makes room for a new one."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._last_id = ""

    def open(self, path: str) -> None:
        held = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sock.sendall(request_bytes("GET", path, self._token, b"", held))
        sock.setblocking(False)
        self._sockets[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def replace_oldest(self, path: str) -> None:
        oldest = next(iter(self._sockets))
        self._sockets.pop(oldest).close()
        self.open(path)

    def read(self, timeout_s: float) -> int:
        """Read what has come; return how many streams the server has ended."""
        ended = 0
        for fd, _ in self._epoll.poll(timeout_s):
            try:
                data = self._sockets[fd].recv(256 * 1024)
            except OSError:
                data = b""
            if not data:
                ended += 1
                self._sockets.pop(fd).close()
                self.open("/sdk/v1/stream")
            elif (start := data.rfind(b"\nid: ")) >= 0:
                self._last_id = data[start + 5 :].split(b"\n", 1)[0].decode()
        return ended

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._epoll.close()


class Load:
    """Everything that clients do, each at its own pace, from one thread."""

    def __init__(self, flags: Flags, seed: int) -> None:
        self._flags = flags
        self._random = random.Random(seed)
        self._connections: dict[str, Connection] = {}
        self.streams = _Streams(flags.program.port, flags.sdk)
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.streams_ended = 0
        self._sequences: Counter[int] = Counter()
        self._version = 0
        self._etag = ""
        self._number = 0

    def start(self, streams: int) -> list[_Job]:
        """Open the streams; return what is to be done, and how often."""
        for _ in range(streams):
            self.streams.open("/sdk/v1/stream")
        self._learn_version()
        self._read_flags()
        return [
            _Job(0.05, self._report),
            _Job(0.2, self._poll),
            _Job(1.0, self._read_flags),
            _Job(0.2, self._evaluate),
            _Job(1.0, self._evaluate_all),
            _Job(0.5, self._reconnect),
            _Job(1.0, self._look_around),
            _Job(5.0, self._change),
            _Job(60.0, self._kill_and_restore),
        ]

    def _call(self, method: str, path: str, body: Any = None, extra: str = "") -> Answer | None:
        """Ask over the connection that this kind of request keeps; None where it broke."""
        # Each is used several times a second: one that rested would be closed by the server.
        kind = found if (found := path.split("/")[1]) in ("api", "ofrep") else "sdk"
        token = self._flags.admin_token if kind == "api" else self._flags.sdk
        encoded = b"" if body is None else json.dumps(body).encode()
        try:
            connection = self._connections.get(kind)
            if connection is None:
                connection = self._connections[kind] = Connection(self._flags.program.port)
            answer = connection.call(request_bytes(method, path, token, encoded, extra))
        except OSError:
            self.broken += 1
            if (broken := self._connections.pop(kind, None)) is not None:
                broken.close()
            return None
        self.statuses[answer.status] += 1
        return answer

    def _learn_version(self) -> None:
        answer = self._call("GET", f"/api/v1/flags/{FLAG}/environments/production")
        if answer is not None:
            self._version = answer.json()["version"]

    def _report(self) -> None:
        instance = self._random.randrange(_INSTANCES)
        self._sequences[instance] += 1
        user = self._random.randrange(_USERS)
        # The variants fail alike: the guard has nothing to find.
        failing = "on" if user % 4 == 0 else "off"
        cells = [
            {
                "flag": FLAG,
                "split": "default",
                "variant": variant,
                "config_version": self._version,
                "exposures": exposures,
                "errors": int(variant == failing),
                "latency": {"60": exposures // 2, "64": exposures // 4},
                "units": {"error:ValueError": [f"{user * 7919:016x}"]}
                if variant == failing
                else {},
            }
            for variant, exposures in (("on", 10), ("off", 30))
        ]
        document = {
            "instance": f"i-{instance}",
            "sequence": self._sequences[instance],
            "service": "shop",
            "service_version": "1",
            "applied_sequence": 1,
            "started_at": "2026-01-01T00:00:00.000Z",
            "ended_at": "2026-01-01T00:00:01.000Z",
            "cells": cells,
        }
        self._call("POST", "/sdk/v1/telemetry", document)

    def _poll(self) -> None:
        self._call("GET", "/sdk/v1/flags", extra=f"If-None-Match: {self._etag}\r\n")

    def _read_flags(self) -> None:
        answer = self._call("GET", "/sdk/v1/flags")
        if answer is not None:
            document = answer.json()
            self._etag = f'"production-{document["sequence"]}"'

    def _evaluate(self) -> None:
        self._call("POST", f"/ofrep/v1/evaluate/flags/{FLAG}", self._context())

    def _evaluate_all(self) -> None:
        self._call("POST", "/ofrep/v1/evaluate/flags", self._context())

    def _context(self) -> Any:
        user = f"user-{self._random.randrange(1_000_000)}"
        return {"context": {"targetingKey": user, "country": "NL"}}

    def _reconnect(self) -> None:
        path = "/ofrep/v1/stream" if self._random.random() < 0.1 else "/sdk/v1/stream"
        self.streams.replace_oldest(path)
        # A client that comes back does so on a new connection.
        if self._connections and self._random.random() < 0.2:
            self._connections.pop(self._random.choice(list(self._connections))).close()

    def _look_around(self) -> None:
        paths = (
            "/api/v1/flags",
            f"/api/v1/flags/{FLAG}",
            f"/api/v1/flags/{FLAG}/environments/production",
            f"/api/v1/flags/{FLAG}/environments/production/history",
            f"/api/v1/flags/{FLAG}/environments/production/evidence",
            f"/api/v1/flags/{FLAG}/environments/production/evidence?format=text",
            "/api/v1/audit",
            "/api/v1/environments",
            "/metrics",
            "/readyz",
        )
        self._call("GET", self._random.choice(paths))

    def _change(self) -> None:
        self._number += 1
        path = f"/api/v1/flags/flag-{self._number % 20}/environments/production"
        found = self._call("GET", path)
        if found is None:
            return
        seen = f'If-Match: "{found.json()["version"]}"\r\n'
        self._call("PATCH", path, {"enabled": self._number % 40 < 20}, seen)

    def _kill_and_restore(self) -> None:
        path = f"/api/v1/flags/{FLAG}/environments/production"
        killed = self._call("POST", f"{path}/kill", {"reason": "a benchmark"})
        if killed is not None:
            kill = killed.json()["kill"]["id"]
            self._call(
                "POST", f"{path}/restore", {"kill": kill, "reason": "it goes on", "keep": True}
            )
        self._learn_version()

    def close(self) -> None:
        self.streams.close()
        for connection in self._connections.values():
            connection.close()


def observe(
    flags: Flags, load: Load, streams: int, run_s: float, every_s: float
) -> Iterator[Sample]:
    """Keep the load up for so long, and yield a sample each few seconds.

    A pause of the machine may take up all the time of a short run: it goes on until there are some.
    """
    began_at = time.monotonic()
    due = [(began_at, job) for job in load.start(streams)]
    sampled_at = began_at
    database = flags.folder / "flags.db"
    times_s: list[float] = []
    while (now := time.monotonic()) - began_at < run_s or len(_counted(times_s)) < _FEWEST_SAMPLES:
        if now - sampled_at >= every_s:
            # After a pause no sample makes up for those that were missed.
            sampled_at = max(sampled_at + every_s, now - every_s / 2)
            times_s.append(now - began_at)
            usage = usage_of(flags.program.worker)
            yield Sample(
                at_s=round(now - began_at, 1),
                rss=usage.rss,
                pss=usage.pss,
                descriptors=usage.descriptors,
                threads=usage.threads,
                cpu_s=round(usage.cpu_s, 2),
                database=sum(path.stat().st_size for path in database.parent.glob("flags.db*")),
                requests=load.statuses.total(),
                server_errors=sum(n for status, n in load.statuses.items() if status >= 500),
                broken=load.broken,
            )
        for index, (at, job) in enumerate(due):
            if at <= now:
                job.do()
                # After a pause of the machine no job makes up for what it missed.
                due[index] = (max(at + job.every_s, time.monotonic()), job)
        wait_s = min(at for at, _ in due) - time.monotonic()
        load.streams_ended += load.streams.read(max(0.0, wait_s))


def _counted(times_s: Sequence[float]) -> list[float]:
    """Return those after the warm-up."""
    return [at_s for at_s in times_s if at_s >= times_s[-1] * _WARM_UP_SHARE]


def slope_percent(times_s: Sequence[float], sizes: Sequence[float]) -> float:
    """Return how much a size grows per ten minutes, in percent of its mean, by least squares."""
    line = statistics.linear_regression(times_s, sizes)
    return 100 * line.slope * 600 / statistics.fmean(sizes)


def rows_of(samples: Sequence[Sample], load: Load) -> list[Row]:
    """Judge what was seen after the warm-up."""
    counted = [each for each in samples if each.at_s >= samples[-1].at_s * _WARM_UP_SHARE]
    times_s = [each.at_s for each in counted]
    pss, rss = ([getattr(each, name) for each in counted] for name in ("pss", "rss"))
    descriptors = [each.descriptors for each in counted]
    last = counted[-1]
    return [
        informs("minutes, warm-up apart", (last.at_s - counted[0].at_s) / 60, "min"),
        informs("requests", load.statuses.total(), ""),
        informs("requests a second", last.requests / last.at_s, ""),
        informs("processor", 100 * last.cpu_s / last.at_s, "% of a core"),
        at_most(
            "memory (PSS), slope per 10 minutes", slope_percent(times_s, pss), "%", SLOPE_PERCENT
        ),
        at_most(
            "memory (RSS), slope per 10 minutes", slope_percent(times_s, rss), "%", SLOPE_PERCENT
        ),
        informs("memory (PSS), first", pss[0] / _MB, "MB"),
        informs("memory (PSS), last", pss[-1] / _MB, "MB"),
        informs("descriptors, fewest", min(descriptors), ""),
        informs("descriptors, most", max(descriptors), ""),
        at_most("descriptors, slope per 10 minutes", slope_percent(times_s, descriptors), "%", 1.0),
        informs("threads, most", max(each.threads for each in counted), ""),
        at_most("5xx", last.server_errors, "", 0),
        at_most("connections that broke", load.broken, "", 0),
        at_most("streams that the server ended", load.streams_ended, "", 0),
        informs("database, first", counted[0].database / _MB, "MB"),
        informs("database, last", last.database / _MB, "MB"),
    ]


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Draw memory, descriptors and the database over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    minutes = [each.at_s / 60 for each in samples]
    curves = [
        ("memory (PSS), MB", [each.pss / _MB for each in samples]),
        ("descriptors", [each.descriptors for each in samples]),
        ("database, MB", [each.database / _MB for each in samples]),
    ]
    for axes, (name, figures) in zip(
        figure.subplots(len(curves), sharex=True), curves, strict=True
    ):
        axes.plot(minutes, figures, linewidth=1)
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.axvline(minutes[-1] * _WARM_UP_SHARE, color="0.7", linewidth=0.8)
    axes.set_xlabel("minutes; what is left of the line does not count")
    figure.savefig(path)


def run(minutes: float, every_s: float, streams: int, output: Path, seed: int = 1) -> list[Row]:
    """Load a server for so many minutes; leave samples.csv, soak.json and soak.svg in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    with flag_server() as flags, (output / "samples.csv").open("w", buffering=1) as file:
        flags.grow_to(_SET_BYTES)
        load = Load(flags, seed)
        worker = flags.program.worker
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        writer.writeheader()
        with suppress(KeyboardInterrupt):  # what there is by then is worth a look
            for sample in observe(flags, load, streams, 60 * minutes, every_s):
                samples.append(sample)
                writer.writerow(asdict(sample))
        load.close()
        if flags.program.worker != worker:
            raise RuntimeError("the server died and was started again")
    rows = rows_of(samples, load)
    statuses = {str(status): n for status, n in sorted(load.statuses.items())}
    document = {"rows": [asdict(row) for row in rows], "statuses": statuses}
    (output / "soak.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    plot(samples, output / "soak.svg")
    print(f"answers by status: {statuses}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--streams", type=int, default=_STREAMS)
    parser.add_argument("--output", type=Path, default=Path("soak"), help="folder for the figures")
    options = parser.parse_args(arguments)
    rows = run(options.minutes, options.every, options.streams, options.output)
    print_table(f"soak of {options.minutes:g} minutes", rows)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
