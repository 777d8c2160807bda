"""A server ended with SIGKILL again and again while four clients write, and what is left each time.

`python -m tests.end_to_end.kill_run --times 200` is the whole of it, on SQLite in a folder of its
own, with `--postgres` on a cluster of its own, or with `--database postgresql://…` on an empty
database.
"""

import argparse
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from flagd_server.clock import SystemClock
from flagd_server.domain.times import format_time
from flagd_server.storage import open_storage
from flagd_server.storage.base import Reader
from tests.end_to_end import processes
from tests.end_to_end.flag_server import FlagServer
from tests.postgres_cluster import PostgresCluster

ENVIRONMENT = "production"
EDITED = ("edited-1", "edited-2")
KILLED = "killed"
INSTANCE = "i-1"
_ROUND_WITHIN_S = 60.0
_READY_WITHIN_S = 300.0
_ANSWER_WITHIN_S = 60.0
_MAX_INBOX = 10_000
Json = dict[str, Any]


@dataclass
class Acknowledged:
    """What the server said it had done.

    Attributes:
        edits: flag → version → (comment, weight of "on").
        kills: version → id of the kill that stands in it, None where it was restored.
        summaries: number of the last telemetry summary.
        sequence: of the newest change that named one.
    """

    edits: dict[str, dict[int, tuple[str, int]]] = field(
        default_factory=lambda: {flag: {} for flag in EDITED}
    )
    kills: dict[int, str | None] = field(default_factory=dict)
    summaries: int = 0
    sequence: int = 0

    @property
    def writes(self) -> int:
        return sum(map(len, self.edits.values())) + len(self.kills) + self.summaries


@dataclass
class Figures:
    """What a run has shown; it ends with an AssertionError where anything was lost.

    Attributes:
        ready_s: seconds from the start of each new process until it said that it was ready.
        unacknowledged: writes that are there although their answers did not come through.
    """

    kills: int = 0
    writes: int = 0
    unacknowledged: int = 0
    ready_s: list[float] = field(default_factory=list)

    def shown(self) -> str:
        return (
            f"{self.kills} kills under {self.writes:,} acknowledged writes of 4 clients: none lost,"
            f" torn or doubled; {self.unacknowledged} more were durable without an answer;"
            f" ready again after {statistics.median(self.ready_s):.2f} s"
            f" ({max(self.ready_s):.2f} s at most)"
        )


class RefusedError(Exception):
    """The server could not write, or nobody knows whether it has."""


class Client:
    """Talks to the server until it is gone, on a connection of its own."""

    def __init__(self, server: FlagServer) -> None:
        self._server = server
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def call(
        self, method: str, path: str, body: Json | None = None, if_match: int | None = None
    ) -> Json:
        answer = self.ask(self._server, method, path, body, if_match)
        if answer.status_code == 503:  # Postgres ends who pauses in the middle of writing
            raise RefusedError
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def ask(
        self, server: FlagServer, method: str, path: str, body: Json | None, if_match: int | None
    ) -> requests.Response:
        is_sdk = path.startswith("/sdk/")
        token = server.sdk_tokens[ENVIRONMENT] if is_sdk else server.admin_token
        headers = {"Authorization": f"Bearer {token}"}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        return self._session.request(
            method, server.url + path, json=body, headers=headers, timeout=_ANSWER_WITHIN_S
        )


Writer = Callable[[Client, str, Acknowledged], None]


def edit(client: Client, flag: str, acknowledged: Acknowledged) -> None:
    path = f"/api/v1/flags/{flag}/environments/{ENVIRONMENT}"
    version = client.call("GET", path)["version"]
    while True:
        comment = f"{flag} after {version}"
        share = version % 100_000
        changed = client.call(
            "PATCH",
            path,
            {
                "default_serve": {"split": {"weights": {"on": share, "off": 100_000 - share}}},
                "comment": comment,
            },
            if_match=version,
        )
        version = changed["version"]
        acknowledged.edits[flag][version] = (comment, share)


def kill_and_restore(client: Client, flag: str, acknowledged: Acknowledged) -> None:
    path = f"/api/v1/flags/{flag}/environments/{ENVIRONMENT}"
    while True:
        killed = client.call("POST", f"{path}/kill", {"reason": "again"})
        acknowledged.kills[killed["version"]] = killed["kill"]["id"]
        acknowledged.sequence = max(acknowledged.sequence, killed["sequence"])
        restored = client.call(
            "POST", f"{path}/restore", {"kill": killed["kill"]["id"], "reason": "again"}
        )
        acknowledged.kills[restored["version"]] = None


def report(client: Client, flag: str, acknowledged: Acknowledged) -> None:
    """Send summaries of one exposure each; one without an answer is sent again, as SDKs do."""
    while True:
        client.call("POST", "/sdk/v1/telemetry", _summary(flag, acknowledged.summaries + 1))
        acknowledged.summaries += 1


def _summary(flag: str, sequence: int) -> Json:
    now = format_time(SystemClock().now())
    cell = {
        "flag": flag,
        "split": None,
        "variant": "on",
        "config_version": 1,
        "exposures": 1,
        "errors": 0,
        "latency": {"3": 1},
        "units": {},
    }
    return {
        "instance": INSTANCE,
        "sequence": sequence,
        "service": "shop",
        "service_version": "1",
        "applied_sequence": 0,
        "started_at": now,
        "ended_at": now,
        "cells": [cell],
        "unscoped": {},
        "error_kinds": [],
        "local_kills": [],
        "dropped": {},
    }


WORK: list[tuple[Writer, str]] = [
    (edit, EDITED[0]),
    (edit, EDITED[1]),
    (kill_and_restore, KILLED),
    (report, EDITED[0]),
]
"""What the four writers do, and to which flag."""


def write_until_killed(
    server: FlagServer, acknowledged: Acknowledged, after_s: float, writes: int
) -> None:
    """Let all writers write, and end the server's processes with SIGKILL under their hands.

    Args:
        after_s: how long they write, and on until there were so many `writes`.
    """
    failures: list[BaseException] = []

    def run(writer: Writer, flag: str) -> None:
        try:
            with closing(Client(server)) as client:
                while True:
                    with suppress(RefusedError):
                        writer(client, flag, acknowledged)
        except requests.RequestException:
            pass  # the server is gone, as it should be
        except BaseException as error:
            failures.append(error)

    goal = acknowledged.writes + writes
    began_s = time.monotonic()
    threads = [threading.Thread(target=run, args=each) for each in WORK]
    for thread in threads:
        thread.start()
    threads[0].join(after_s)
    while acknowledged.writes < goal and time.monotonic() - began_s < _ROUND_WITHIN_S:
        threads[0].join(0.01)
    server.crash()
    for thread in threads:
        thread.join(_ANSWER_WITHIN_S)
        assert not thread.is_alive()
    assert failures == []


class Inspector:
    """Holds the database to what was acknowledged, and to itself."""

    def __init__(self, acknowledged: Acknowledged) -> None:
        self._acknowledged = acknowledged
        self._seen = dict.fromkeys((*EDITED, KILLED), 0)

    def check(self, reader: Reader, *, whole: bool = False) -> int:
        """Return how many writes are there that were not acknowledged.

        Args:
            whole: look at everything; else at what came since the last time.
        """
        found = sum(self._check_flag(reader, flag, whole) for flag in self._seen)
        environment = reader.environment(ENVIRONMENT)
        assert environment is not None
        assert environment.sequence >= self._acknowledged.sequence
        return found + self._check_telemetry(reader)

    def _check_flag(self, reader: Reader, flag: str, whole: bool) -> int:
        seen = 0 if whole else self._seen[flag]
        newest = reader.configuration(ENVIRONMENT, flag)
        assert newest is not None
        history = reader.history(ENVIRONMENT, flag, newest.version - seen)[::-1]
        versions = {version.version: version for version in history}
        assert list(versions) == list(range(seen + 1, newest.version + 1)), "each version once"
        assert seen == newest.version or newest == history[-1]
        audit = reader.audit(len(history) + 10, flag=flag, environment=ENVIRONMENT)[::-1]
        entries = [(entry.after_version, entry.comment) for entry in audit]
        # The first version has no entry of its own: the flag's is one of no environment.
        told = [(version.version, version.comment) for version in history if version.version > 1]
        assert entries[-len(told) :] == told if told else True, "each change once in the audit"
        assert not whole or len(entries) == len(told)

        acknowledged = self._acknowledged
        for number, (comment, share) in acknowledged.edits.get(flag, {}).items():
            if number > seen:
                version = versions[number]
                assert version.comment == comment
                weights = version.configuration.split_weights()["default"]
                assert weights == {"on": share, "off": 100_000 - share}
        for number, kill in acknowledged.kills.items() if flag == KILLED else ():
            if number > seen:
                standing = versions[number].configuration.kill
                assert (standing and standing.id) == kill
        told_of = acknowledged.kills if flag == KILLED else acknowledged.edits[flag]
        self._seen[flag] = newest.version
        return sum(number not in told_of for number in versions if number > max(seen, 1))

    def _check_telemetry(self, reader: Reader) -> int:
        counted = sum(row.exposures for row in reader.counts(ENVIRONMENT, EDITED[0], 0))
        assert counted == reader.last_sequences(ENVIRONMENT, [INSTANCE]).get(INSTANCE, 0)
        # A server that did not lead yet has kept some for when it does; one that was sent again may
        # be there although it was counted.
        kept = {int(item.key.rpartition("/")[2]) for item in reader.inbox(_MAX_INBOX)}
        there = kept | set(range(1, counted + 1))
        assert there == set(range(1, len(there) + 1)), "none is missing in between"
        # The one that was under way may have been stored without its answer coming through.
        assert len(there) in (self._acknowledged.summaries, self._acknowledged.summaries + 1)
        return len(there) - self._acknowledged.summaries


def run(
    server: FlagServer,
    *,
    times: int,
    writes: int,
    seed: int = 9,
    on_kill: Callable[[Figures], None] = lambda figures: None,
) -> Figures:
    """Kill the server so often, with at least so many acknowledged writes over all of it.

    Raises:
        AssertionError: something acknowledged was lost, or is there in part or twice.
    """
    for flag in (*EDITED, KILLED):
        server.create_flag(flag, enabled=False)
    acknowledged = Acknowledged()
    inspector = Inspector(acknowledged)
    figures = Figures()
    moments = random.Random(seed)
    for number in range(times):
        before = acknowledged.writes
        write_until_killed(server, acknowledged, moments.uniform(0.1, 0.5), -(-writes // times))
        assert acknowledged.writes > before, "nothing was being written"
        figures.kills += 1
        figures.writes = acknowledged.writes
        with closing(open_storage(server.database_name)) as storage, storage.read() as reader:
            figures.unacknowledged += inspector.check(reader, whole=number == times - 1)
        figures.ready_s.append(_start_again(server))
        served = server.call("GET", "/sdk/v1/flags", token=server.sdk_tokens[ENVIRONMENT]).json()
        assert served["sequence"] >= acknowledged.sequence
        on_kill(figures)
    if "://" not in server.database_name:
        with closing(sqlite3.connect(server.database_name)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return figures


def _start_again(server: FlagServer) -> float:
    """Return the seconds until it was ready."""
    began_s = time.monotonic()
    server.restart()
    while not requests.get(f"{server.url}/readyz", timeout=_ANSWER_WITHIN_S).ok:
        assert time.monotonic() - began_s < _READY_WITHIN_S, "it does not get ready again"
        time.sleep(0.01)
    return time.monotonic() - began_s


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.kill_run", description=__doc__
    )
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--writes", type=int, default=20_000, help="acknowledged, at least")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database", help="postgresql://…, empty; a SQLite file if left out")
    where.add_argument("--postgres", action="store_true", help="on a cluster of its own")
    arguments = parser.parse_args()
    processes.DEADLINE_S = 300.0  # a busy machine is no fault; how long it took is in the figures

    def show(figures: Figures) -> None:
        sys.stderr.write(
            f"\r{figures.kills} kills, {figures.writes:,} writes acknowledged,"
            f" ready after {statistics.median(figures.ready_s):.2f} s, {max(figures.ready_s):.2f} s"
        )

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = arguments.database
        if arguments.postgres:
            cluster = stack.enter_context(closing(PostgresCluster(fsync=True)))
            url = cluster.create_database()
        server = FlagServer(Path(folder), **({"FLAGD_DATABASE_URL": url} if url else {}))
        try:
            figures = run(server, times=arguments.times, writes=arguments.writes, on_kill=show)
        finally:
            server.stop()
    print(f"\n{figures.shown()}")


if __name__ == "__main__":
    main()
