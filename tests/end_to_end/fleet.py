"""Servers on one Postgres database, and those who talk to them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from flagd_sdk import FlagClient
from tests.end_to_end.flag_server import PROGRAM, FlagServer
from tests.waiting import eventually

ENVIRONMENT = "production"
FLAG = "new-checkout"
FLAG_PATH = f"/api/v1/flags/{FLAG}/environments/{ENVIRONMENT}"
BAD = "error:PaymentError"
UNIT = {"targetingKey": "u-1"}
TAKEN_OVER_WITHIN_S = 5.0
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
        client.wait_until_ready(10)
        return client

    @property
    def leader(self) -> FlagServer:
        return eventually(lambda: next(filter(leads, self.servers), None), every_s=0.05)

    @property
    def follower(self) -> FlagServer:
        return next(server for server in self.servers if not leads(server))

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
        for attempt in range(200):
            server = self.servers[(process + sequence + attempt) % len(self.servers)]
            try:
                answer = requests.post(
                    f"{server.url}/sdk/v1/telemetry",
                    json=summary,
                    headers={"Authorization": f"Bearer {server.sdk_tokens[environment]}"},
                    timeout=10,
                )
            except requests.RequestException:
                continue
            if answer.status_code == 200:
                return
            assert answer.status_code == 503, answer.text
            time.sleep(0.05)
        raise AssertionError("nobody acknowledged")

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for server in self.servers:
            server.stop()


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
