"""Stand-ins that tests and benchmarks hand to the SDK: documents, a clock, an in-memory server."""

import json
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from flagd_sdk.errors import ConnectError, StreamError
from flagd_sdk.transport import FetchedFlags

UNIT_KEY = "000102030405060708090a0b0c0d0e0f"


def flag(
    key: str = "new-checkout",
    on: int = 25_000,
    version: int = 1,
    enabled: bool = True,
    killed: bool = False,
) -> dict[str, Any]:
    """Return a boolean flag that is on for `on` of 100,000 buckets."""
    kill = {"at": "2026-11-23T19:14:37.123Z", "source": "guard", "reason": "errors", "id": "k-1"}
    return {
        "key": key,
        "type": "boolean",
        "version": version,
        "enabled": enabled,
        "variants": {"on": True, "off": False},
        "off_variant": "off",
        "rules": [],
        "default_serve": {
            "split": {
                "bucket_by": "targetingKey",
                "salt": key,
                "weights": {"on": on, "off": 100_000 - on},
                "allocation": [[on, "on"], [100_000, "off"]],
            }
        }
        if 0 < on < 100_000
        else {"variant": "on" if on else "off"},
        "kill": kill if killed else None,
    }


def text_flag(key: str = "colour", value: str = "green") -> dict[str, Any]:
    """Return a string flag that everybody gets."""
    return {
        "key": key,
        "type": "string",
        "version": 1,
        "enabled": True,
        "variants": {"a": value, "b": "grey"},
        "off_variant": "b",
        "rules": [],
        "default_serve": {"variant": "a"},
        "kill": None,
    }


def flag_set(*flags: dict[str, Any], sequence: int = 1) -> dict[str, Any]:
    """Return a flag set document."""
    return {
        "environment": "production",
        "sequence": sequence,
        "unit_key": UNIT_KEY,
        "flags": {flag["key"]: flag for flag in flags},
        "segments": {},
    }


def sse(event: str, data: object, sequence: int = 1) -> bytes:
    """Return one event as the server sends it."""
    return f"id: {sequence}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeStream:
    """Yields what it was given, then ends, breaks, or stays open until it is interrupted.

    Where there is a `gate`, nothing comes before it is opened.
    """

    def __init__(
        self,
        *chunks: bytes | Exception,
        stays_open: bool = False,
        gate: threading.Event | None = None,
    ) -> None:
        self._chunks = deque(chunks)
        self._gate = gate
        self._stays_open = stays_open
        self._interrupted = threading.Event()
        self.is_closed = False

    def read(self) -> bytes:
        if self._gate is not None:
            self._gate.wait()
        if self._chunks:
            chunk = self._chunks.popleft()
            if isinstance(chunk, Exception):
                raise chunk
            return chunk
        if self._stays_open:
            self._interrupted.wait()
        return b""

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self.is_closed = True


class MemoryTransport:
    """An in-memory server: scripted answers, and a record of what was asked.

    An answer that is an exception is raised. Where a script is empty, `fetches` and `streams`
    refuse the connection, and `replies` accept.
    """

    def __init__(self) -> None:
        self.fetches: deque[dict[str, Any] | bytes | Exception | None] = deque()
        self.streams: deque[FakeStream | Exception] = deque()
        self.replies: deque[dict[str, Any] | Exception] = deque()
        self.etags: list[str] = []
        self.last_event_ids: list[str] = []
        self.summaries: list[dict[str, Any]] = []
        self.forks = 0

    def fetch_flags(self, etag: str) -> FetchedFlags | None:
        self.etags.append(etag)
        if not self.fetches:
            raise ConnectError("refused")
        answer = self.fetches.popleft()
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return None
        if isinstance(answer, bytes):
            return FetchedFlags(answer, '"etag"')
        return FetchedFlags(json.dumps(answer).encode(), f'"production-{answer["sequence"]}"')

    def open_stream(self, last_event_id: str, instance: str) -> FakeStream:
        self.last_event_ids.append(last_event_id)
        if not self.streams:
            raise ConnectError("refused")
        stream = self.streams.popleft()
        if isinstance(stream, Exception):
            raise stream
        return stream

    def send_summary(self, body: bytes) -> Mapping[str, Any]:
        self.summaries.append(json.loads(body))
        reply = self.replies.popleft() if self.replies else {"accepted": 0, "refused": []}
        if isinstance(reply, Exception):
            raise reply
        return reply

    def after_fork(self) -> None:
        self.forks += 1


class SilentTransport(MemoryTransport):
    """A server that accepts whatever is reported and offers no flags: for bootstrapped clients."""

    def open_stream(self, last_event_id: str, instance: str) -> FakeStream:
        raise StreamError("there is no stream here")
