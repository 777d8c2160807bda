"""Servers on one Postgres database, and those who talk to them."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import requests

from flagd_sdk import FlagClient
from tests.end_to_end.flag_server import PROGRAM, FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.waiting import eventually

ENVIRONMENT = "production"
FLAG = "new-checkout"
FLAG_PATH = f"/api/v1/flags/{FLAG}/environments/{ENVIRONMENT}"
BAD = "error:PaymentError"
UNIT = {"targetingKey": "u-1"}
# By its limits it takes less than five seconds; a busy machine that pauses takes some besides.
# Without them it would be minutes, until a connection that is silent is given up.
TAKEN_OVER_WITHIN_S = 20.0
_REPORTED_WITHIN_S = 60.0
Json = dict[str, Any]


class Fleet:
    """Servers that start one by one; `close` ends them and the clients."""

    def __init__(self, folder: Path, database: str) -> None:
        self.database = database
        self.servers: list[FlagServer] = []
        self._folder = folder
        self._clients: list[FlagClient] = []

    def start(self, count: int, program: Sequence[str] = PROGRAM, **settings: str) -> None:
        for _ in range(count):
            own = {"FLAGD_DATABASE_URL": self.database, **settings}
            self.servers.append(FlagServer(self._folder, program=program, **own))

    def client(self, server: FlagServer) -> FlagClient:
        token = server.sdk_tokens[ENVIRONMENT]
        client = FlagClient(server.url, token=token, service="shop")
        self._clients.append(client)
        assert client.wait_until_ready(DEADLINE_S)
        return client

    @property
    def leader(self) -> FlagServer:
        return eventually(lambda: next(filter(leads, self.servers), None), every_s=0.05)

    @property
    def follower(self) -> FlagServer:
        return next(server for server in self.servers if not leads(server))

    def let_lead(self, server: FlagServer) -> None:
        """Have one of two servers lead: a pause of the machine may have given it to the other."""
        while (leader := self.leader) is not server:
            with stopped(leader.pid, leader.worker_pid):
                eventually(lambda: leads(server), every_s=0.05)

    def crash(self, server: FlagServer) -> float:
        """End a server that leads, and return the seconds until another one does."""
        self.servers.remove(server)
        crashed_at = time.monotonic()
        server.crash()
        assert self.leader is not server
        taken_over_s = time.monotonic() - crashed_at
        server.stop()  # lets go of what it wrote
        return taken_over_s

    def report(
        self, process: int, sequence: int, cells: list[Json], environment: str = ENVIRONMENT
    ) -> None:
        """Report to one server after the other until one acknowledges."""
        summary = {
            "instance": f"i-{process}",
            "sequence": sequence,
            "service": "shop",
            "service_version": "v1",
            "applied_sequence": 0,
            "started_at": "2026-11-23T12:00:00.000Z",
            "ended_at": "2026-11-23T12:00:01.000Z",
            "cells": cells,
        }
        deadline = time.monotonic() + _REPORTED_WITHIN_S
        for attempt in count():
            assert time.monotonic() < deadline, "nobody acknowledged"
            servers = list(self.servers)  # one of them may be crashed meanwhile
            server = servers[(process + sequence + attempt) % len(servers)]
            try:
                answer = requests.post(
                    f"{server.url}/sdk/v1/telemetry",
                    json=summary,
                    headers={"Authorization": f"Bearer {server.sdk_tokens[environment]}"},
                    timeout=DEADLINE_S,
                )
            except requests.RequestException:
                continue
            if answer.status_code == 200:
                return
            assert answer.status_code == 503, answer.text
            time.sleep(0.05)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for server in self.servers:
            server.stop()


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes for as long as this lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def leads(server: FlagServer) -> bool:
    return bool(server.call("GET", "/readyz").json().get("leading"))


def cell(
    variant: str,
    version: int,
    exposures: int,
    failing: list[int] | None = None,
    flag: str = FLAG,
) -> Json:
    return {
        "flag": flag,
        "split": "default",
        "variant": variant,
        "config_version": version,
        "exposures": exposures,
        "errors": len(failing or ()),
        "units": {BAD: [f"{n:016x}" for n in failing]} if failing else {},
    }
