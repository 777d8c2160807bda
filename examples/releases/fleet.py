"""Processes of a shop in miniature: clients of several versions, and visitors who ask for flags."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from flagd_sdk import FlagClient

SERVICE = "shop"
FLAGS = ("good", "bad", "steady")
VISITORS = 200_000
REQUESTS_A_SECOND = 2_500
_PAUSE_S = 0.02


class OrderFailedError(Exception):
    """An order did not go through."""


class Fault:
    """How often a request fails, by the version that answers it and the flags that it met."""

    def __init__(self) -> None:
        self.everywhere = 0.002
        self.by_flag: dict[str, float] = {}
        self.by_version: dict[str, float] = {}

    def hits(self, version: str, served: Mapping[str, bool], draw: Callable[[], float]) -> bool:
        share = self.everywhere + self.by_version.get(version, 0.0)
        share += sum(self.by_flag.get(flag, 0.0) for flag, is_on in served.items() if is_on)
        return draw() < share


class Fleet:
    """Sends visitors round the processes until it is left."""

    def __init__(self, url: str, token: str) -> None:
        self.fault = Fault()
        self.requests = 0
        self._url = url
        self._token = token
        self._clients: list[tuple[str, FlagClient]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, version: str, processes: int) -> None:
        """Add processes of a version."""
        started = [
            FlagClient(
                self._url,
                self._token,
                service=SERVICE,
                service_version=version,
                cache_dir=None,
                # The server is to decide here, not each process for itself.
                local_breaker=False,
            )
            for _ in range(processes)
        ]
        for client in started:
            client.wait_until_ready(10.0)
        self._clients = [*self._clients, *((version, client) for client in started)]

    def stop(self, version: str) -> None:
        """Take the processes of a version away."""
        leaving = [client for each, client in self._clients if each == version]
        self._clients = [entry for entry in self._clients if entry[0] != version]
        time.sleep(2 * _PAUSE_S)
        for client in leaving:
            client.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        for _, client in self._clients:
            client.close()

    def _run(self) -> None:
        draw = random.Random(5).random
        while not self._stopping.wait(_PAUSE_S):
            clients = self._clients
            for _ in range(round(REQUESTS_A_SECOND * _PAUSE_S) if clients else 0):
                self._visit(*clients[int(draw() * len(clients))], draw)

    def _visit(self, version: str, flags: FlagClient, draw: Callable[[], float]) -> None:
        self.requests += 1
        try:
            with flags.scope({"targetingKey": f"visitor-{int(draw() * VISITORS)}"}):
                served = {flag: flags.is_enabled(flag) for flag in FLAGS}
                if self.fault.hits(version, served, draw):
                    raise OrderFailedError
        except OrderFailedError:
            pass
