"""Work for servers on one Postgres while something fails, and what those who do it see.

Four writers take 503 for an answer, and go on. At each server one asks for evaluations, one has
flags of an SDK and one a stream open: none of them may notice anything.
"""

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, Self

import requests

from flagd_sdk import FlagClient
from flagd_server.storage import open_reader
from tests.end_to_end.flag_server import FlagServer, Json
from tests.end_to_end.fleet import ENVIRONMENT, Fleet
from tests.end_to_end.kill_run import (
    EDITED,
    KILLED,
    WORK,
    Acknowledged,
    Client,
    Inspector,
    RefusedError,
    Writer,
)
from tests.waiting import eventually

STEADY = "steady"
"""On, always: whoever reads it otherwise has been failed."""
MARKER = "marker"
REFUSED_WITHIN_S = 10.0
"""But for the slowest of each writer: a pause of the machine may have met it."""
CAUGHT_UP_WITHIN_S = 20.0
_HEARTBEAT_S = 1
_SILENT_S = 12.0
_REQUEST_S = 20.0


@dataclass
class Seen:
    """What happened to those who work. Each list is appended to by many threads.

    Attributes:
        refused_s: how long each 503 to a write took.
        unsure: changes refused since the one before was made although it had been refused.
        evaluated_s: how long each evaluation took.
        read: how often flags were read in memory.
        failures: what nobody should have seen.
    """

    refused_s: list[float] = field(default_factory=list)
    unsure: int = 0
    evaluated_s: list[float] = field(default_factory=list)
    read: int = 0
    failures: list[str] = field(default_factory=list)


class PatientClient(Client):
    """Asks any of the servers, takes 503 for an answer, and refuses to go on at the end."""

    def __init__(self, fleet: Fleet, seen: Seen, ending: threading.Event) -> None:
        super().__init__(fleet.servers[0])
        self._fleet = fleet
        self._seen = seen
        self._ending = ending

    def call(
        self, method: str, path: str, body: Json | None = None, if_match: int | None = None
    ) -> Json:
        if self._ending.is_set():
            raise RefusedError
        server = random.choice(self._fleet.servers)
        began_at = time.monotonic()
        answer = self.ask(server, method, path, body, if_match)
        if answer.status_code == 503:
            self._seen.refused_s.append(time.monotonic() - began_at)
            assert int(answer.headers["Retry-After"]) >= 1
            raise RefusedError
        if answer.status_code in (409, 412):
            self._seen.unsure += 1
            raise RefusedError
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


class FleetLoad:
    """Works from when it is entered until it is left. Start the fleet with `SETTINGS`."""

    SETTINGS: Final = {"FLAGD_HEARTBEAT_S": str(_HEARTBEAT_S)}

    def __init__(self, fleet: Fleet) -> None:
        self.acknowledged = Acknowledged()
        self.seen = Seen()
        self._fleet = fleet
        self._ending = threading.Event()
        self._is_on = True
        for flag in (*EDITED, KILLED):
            fleet.leader.create_flag(flag, enabled=False)
        for flag in (STEADY, MARKER):
            fleet.leader.create_flag(flag, default_serve={"variant": "on"})
        self.clients: Sequence[FlagClient] = [fleet.client(server) for server in fleet.servers]
        for client in self.clients:
            eventually(lambda c=client: c.is_enabled(STEADY) and c.is_enabled(MARKER))
        self._threads = [
            *(self._thread(self._write, *work) for work in WORK),
            *(self._thread(self._evaluate, server) for server in fleet.servers),
            *(self._thread(self._follow, server) for server in fleet.servers),
            self._thread(self._read),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * _REQUEST_S)

    def toggle_marker(self, server: FlagServer) -> None:
        """Change the marker by a server, as soon as that can."""
        is_on = not self._is_on
        eventually(lambda: self._set_marker(server, is_on), every_s=0.05)
        self._is_on = is_on

    def wait_for_marker(self) -> None:
        """Return when the clients of all servers have the marker as it was set last."""
        for client in self.clients:
            eventually(lambda c=client: c.is_enabled(MARKER) is self._is_on, every_s=0.01)

    def caught_up_s(self, since: float) -> float:
        """Return how long after that each server has written, and all clients have it all."""
        for server in self._fleet.servers:
            self.toggle_marker(server)
            self.wait_for_marker()
        return time.monotonic() - since

    def check(self) -> int:
        """Hold the database to what was acknowledged, after the end.

        Returns:
            How many writes are there without an answer.

        Raises:
            AssertionError: something is lost, torn or doubled, or somebody saw a failure.
        """
        assert not any(thread.is_alive() for thread in self._threads)
        assert self.seen.failures == []
        refused_s = sorted(self.seen.refused_s)[: -len(WORK)]
        assert max(refused_s, default=0) < REFUSED_WITHIN_S

        def is_counted() -> bool:
            with open_reader(self._fleet.database) as reader:
                return not reader.inbox(1)

        eventually(is_counted)
        with open_reader(self._fleet.database) as reader:
            return Inspector(self.acknowledged).check(reader, whole=True)

    def shown(self) -> str:
        seen = self.seen
        refused_s = seen.refused_s or [0.0]
        return (
            f"{self.acknowledged.writes:,} writes acknowledged, none lost, torn or doubled;"
            f" {len(seen.refused_s):,} refused with 503 after {statistics.median(refused_s):.2f} s"
            f" ({max(refused_s):.2f} s at most); {len(seen.evaluated_s):,} evaluations,"
            f" {max(seen.evaluated_s):.2f} s at most, and {seen.read:,} reads by SDKs, none failed;"
            f" no stream ended"
        )

    def _set_marker(self, server: FlagServer, is_on: bool) -> bool:
        path = f"/api/v1/flags/{MARKER}/environments/{ENVIRONMENT}"
        try:
            etag = server.call("GET", path).headers["ETag"]
            variant = "on" if is_on else "off"
            body = {"default_serve": {"variant": variant}}
            return server.call("PATCH", path, body, headers={"If-Match": etag}).ok
        except KeyError:  # no ETag: it can't read
            return False

    def _thread(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # the thread's edge: it is a failure of the test
                self.seen.failures.append(repr(error))

        return threading.Thread(target=run, daemon=True)

    def _write(self, writer: Writer, flag: str) -> None:
        with closing(PatientClient(self._fleet, self.seen, self._ending)) as client:
            while not self._ending.is_set():
                try:
                    writer(client, flag, self.acknowledged)
                except RefusedError:
                    self._ending.wait(0.1)

    def _evaluate(self, server: FlagServer) -> None:
        with _session(server) as session:
            while not self._ending.wait(0.05):
                began_at = time.monotonic()
                answer = session.post(
                    f"{server.url}/ofrep/v1/evaluate/flags/{STEADY}",
                    json={"context": {"targetingKey": "u-1"}},
                    timeout=_REQUEST_S,
                )
                assert answer.status_code == 200, answer.text
                assert answer.json()["value"] is True
                self.seen.evaluated_s.append(time.monotonic() - began_at)

    def _follow(self, server: FlagServer) -> None:
        with (
            _session(server) as session,
            session.get(f"{server.url}/sdk/v1/stream", stream=True, timeout=_SILENT_S) as stream,
        ):
            assert stream.status_code == 200, stream.text
            while not self._ending.is_set():
                assert stream.raw.read1(65_536), "a stream has ended"

    def _read(self) -> None:
        while not self._ending.wait(0.02):
            for client in self.clients:
                assert client.is_enabled(STEADY, False, {"targetingKey": "u-1"})
                self.seen.read += 1


def _session(server: FlagServer) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {server.sdk_tokens[ENVIRONMENT]}"
    return session
