"""A server killed at any moment has every acknowledged write afterwards: whole, and once."""

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import requests

from flagd_server.clock import SystemClock
from flagd_server.domain.times import format_time
from flagd_server.storage import open_storage
from flagd_server.storage.base import Reader
from tests.end_to_end.flag_server import FlagServer

ROUNDS = 4
ENVIRONMENT = "production"
EDITED = ("edited-1", "edited-2")
KILLED = "killed"
INSTANCE = "i-1"
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
        is_sdk = path.startswith("/sdk/")
        token = self._server.sdk_tokens[ENVIRONMENT] if is_sdk else self._server.admin_token
        headers = {"Authorization": f"Bearer {token}"}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        answer = self._session.request(
            method, self._server.url + path, json=body, headers=headers, timeout=20
        )
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found


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
        restored = client.call("POST", f"{path}/restore", {"kill": killed["kill"]["id"]})
        acknowledged.kills[restored["version"]] = None


def report(client: Client, flag: str, acknowledged: Acknowledged) -> None:
    """Send summaries of one exposure each; one without an answer is sent again, as SDKs do."""
    while True:
        now = format_time(SystemClock().now())
        summary = {
            "instance": INSTANCE,
            "sequence": acknowledged.summaries + 1,
            "service": "shop",
            "service_version": "1",
            "applied_sequence": 0,
            "started_at": now,
            "ended_at": now,
            "cells": [
                {
                    "flag": flag,
                    "split": None,
                    "variant": "on",
                    "config_version": 1,
                    "exposures": 1,
                    "errors": 0,
                    "latency": {"3": 1},
                    "units": {},
                }
            ],
            "unscoped": {},
            "error_kinds": [],
            "local_kills": [],
            "dropped": {},
        }
        client.call("POST", "/sdk/v1/telemetry", summary)
        acknowledged.summaries += 1


def write_until_killed(server: FlagServer, acknowledged: Acknowledged, after_s: float) -> None:
    """Let all writers write, and end the server's processes with SIGKILL under their hands."""
    work: list[tuple[Writer, str]] = [
        (edit, EDITED[0]),
        (edit, EDITED[1]),
        (kill_and_restore, KILLED),
        (report, EDITED[0]),
    ]
    failures: list[BaseException] = []

    def run(writer: Writer, flag: str) -> None:
        try:
            with closing(Client(server)) as client:
                writer(client, flag, acknowledged)
        except requests.RequestException:
            pass  # the server is gone, as it should be
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=each) for each in work]
    for thread in threads:
        thread.start()
    threads[0].join(after_s)
    for pid in (server.pid, server.worker_pid):
        os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []


def check(reader: Reader, acknowledged: Acknowledged) -> None:
    """Hold the database to what was acknowledged, and to itself."""
    for flag in (*EDITED, KILLED):
        history = reader.history(ENVIRONMENT, flag, 1_000_000)[::-1]
        versions = {version.version: version for version in history}
        assert list(versions) == list(range(1, len(history) + 1)), "each version once"
        assert reader.configuration(ENVIRONMENT, flag) == history[-1]
        entries = [
            (entry.after_version, entry.comment)
            for entry in reader.audit(1_000_000, flag=flag, environment=ENVIRONMENT)[::-1]
        ]
        assert entries == [(version.version, version.comment) for version in history[1:]]

        for number, (comment, share) in acknowledged.edits.get(flag, {}).items():
            version = versions[number]
            assert version.comment == comment
            weights = version.configuration.split_weights()["default"]
            assert weights == {"on": share, "off": 100_000 - share}
        for number, kill in acknowledged.kills.items() if flag == KILLED else ():
            standing = versions[number].configuration.kill
            assert (standing and standing.id) == kill

    environment = reader.environment(ENVIRONMENT)
    assert environment is not None
    assert environment.sequence >= acknowledged.sequence
    counted = sum(row.exposures for row in reader.counts(ENVIRONMENT, EDITED[0], 0))
    assert counted == (reader.last_sequence(ENVIRONMENT, INSTANCE) or 0)
    # The one that was under way may have been stored without its answer coming through.
    assert counted in (acknowledged.summaries, acknowledged.summaries + 1)


def test_every_acknowledged_write_survives_kill_minus_9(server: FlagServer) -> None:
    for flag in (*EDITED, KILLED):
        server.create_flag(flag, enabled=False)
    acknowledged = Acknowledged()
    moments = random.Random(9)
    for _ in range(ROUNDS):
        before = sum(map(len, acknowledged.edits.values()))
        write_until_killed(server, acknowledged, moments.uniform(0.3, 1.0))
        assert sum(map(len, acknowledged.edits.values())) > before, "nothing was being written"
        storage = open_storage(str(server.database))
        with storage.read() as reader:
            check(reader, acknowledged)
        storage.close()
        server.restart()
        served = server.call("GET", "/sdk/v1/flags", token=server.sdk_tokens[ENVIRONMENT]).json()
        assert served["sequence"] >= acknowledged.sequence
    assert acknowledged.summaries > 0
    assert acknowledged.kills
