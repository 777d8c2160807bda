"""Whole applications on one database in one process, and what tests ask of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flask import Flask

from flagd_sdk.core.sse import Decoder
from flagd_server.api.wiring import Services
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.hub.base import Subscription
from flagd_server.hub.event_stream import SocketEventStream
from flagd_server.services.first_start import InitialTokens
from tests.joined_storage import Joined, JoinedStorage
from tests.server.api.client import Api
from tests.waiting import eventually

ENVIRONMENT = "production"
FLAG = "new-checkout"
FLAG_PATH = f"/api/v1/flags/{FLAG}/environments/{ENVIRONMENT}"


class Replica:
    """One server."""

    def __init__(self, app: Flask, storage: JoinedStorage, tokens: InitialTokens) -> None:
        self.app = app
        self.storage = storage
        self.services: Services = app.extensions["flagd_server"]
        self.admin = Api(app, tokens.admin)
        self.sdk = Api(app, tokens.sdk[ENVIRONMENT])
        self._streams: list[Stream] = []

    def flags(self) -> tuple[str, bytes]:
        """Return tag and body of what an SDK is answered."""
        answer = self.sdk.get("/sdk/v1/flags")
        assert answer.status_code == 200, answer.text
        return answer.headers["ETag"], answer.data

    def stream(self) -> "Stream":
        stream = Stream(
            cast(
                "SocketEventStream",
                self.services.hub.stream(Subscription(ENVIRONMENT, "tok-stream")),
            )
        )
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        self.services.close()

    def report(self, instance: str, sequence: int, *cells: Mapping[str, Any], **more: Any) -> Any:
        """Report as a process does, and return the answer."""
        summary = {
            "instance": instance,
            "sequence": sequence,
            "service": "shop",
            "service_version": "v1",
            "applied_sequence": 0,
            "started_at": "2026-11-23T12:00:00.000Z",
            "ended_at": "2026-11-23T12:00:01.000Z",
            "cells": list(cells),
            **more,
        }
        answer = self.sdk.post("/sdk/v1/telemetry", summary)
        assert answer.status_code == 200, answer.text
        return answer.json


class Stream:
    """Reads the events of one stream of a hub."""

    def __init__(self, stream: SocketEventStream) -> None:
        stream._sock.settimeout(30.0)
        self._stream = stream
        self._decoder = Decoder(max_event_bytes=1 << 20)
        self._events: list[tuple[str, str, str | None]] = []

    def next(self) -> tuple[str, str, str | None]:
        """Return name, data and id of the next event."""
        while not self._events:
            events = self._decoder.feed(next(self._stream))
            self._events += [(each.event, each.data, each.id) for each in events]
        return self._events.pop(0)

    def close(self) -> None:
        self._stream.close()


class Replicas:
    def __init__(self, path: Path, tokens: InitialTokens, count: int = 2) -> None:
        self.joined = Joined(path)
        self._tokens = tokens
        self.all: list[Replica] = []
        for _ in range(count):
            self.start()

    def start(self) -> Replica:
        storage = self.joined.open()
        app = create_app(Settings(database="joined"), storage=storage)
        replica = Replica(app, storage, self._tokens)
        self.all.append(replica)
        return replica

    @property
    def leader(self) -> Replica:
        return next(each for each in self.all if each.storage.is_leading)

    @property
    def follower(self) -> Replica:
        return next(each for each in self.all if not each.storage.is_leading)

    def elect(self, replica: Replica) -> None:
        self.joined.elect(replica.storage)

    def release(self, share: int = 25_000, flag: str = FLAG) -> int:
        """Make a flag and split it; return the version, once every server has it."""
        admin = self.leader.admin
        variants = {"on": True, "off": False}
        made = admin.post("/api/v1/flags", {"key": flag, "type": "boolean", "variants": variants})
        assert made.status_code == 201, made.text
        split = {"split": {"weights": {"on": share, "off": 100_000 - share}}}
        changed = admin.patch(
            f"/api/v1/flags/{flag}/environments/{ENVIRONMENT}",
            {"enabled": True, "default_serve": split},
            if_match=1,
        )
        assert changed.status_code == 200, changed.text
        eventually(lambda: len({each.flags() for each in self.all}) == 1)
        version: int = changed.json["version"]
        return version

    def close(self) -> None:
        for replica in reversed(self.all):
            replica.close()


def cell(
    variant: str,
    version: int,
    *,
    exposures: int = 10,
    failing: Mapping[str, list[int]] | None = None,
    flag: str = FLAG,
    **more: Any,
) -> dict[str, Any]:
    """A cell in which the numbered units failed once each, by kind."""
    units = {kind: [f"{n:016x}" for n in ns] for kind, ns in (failing or {}).items()}
    return {
        "flag": flag,
        "split": "default",
        "variant": variant,
        "config_version": version,
        "exposures": exposures,
        "errors": sum(len(ns) for ns in units.values()),
        "units": units,
        **more,
    }
