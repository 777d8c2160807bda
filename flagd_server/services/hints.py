"""What SDKs are told with each answer and only the leader works out, on its way to the others.

It changes seldom, so the leader announces what has changed, and the others remember it.
"""

import threading
from collections.abc import Mapping

from flagd_server.services.lives import SAMPLED_HASHES
from flagd_server.services.notices import Notices, Topic
from flagd_server.storage.base import Transaction

LARGEST_HASH = (1 << 64) - 1
# Services of all environments; far above those of an installation.
_MAX_KEPT = 10_000


class AnnouncedHints:
    """What the leader has announced. For the thread that counts; `forget` is for any."""

    def __init__(self) -> None:
        # (environment, service) → what was announced.
        self._announced: dict[tuple[str, str], tuple[int, dict[str, float]]] = {}

    def forget(self) -> None:
        """Announce all of it again, each with the next summary of its service."""
        self._announced = {}

    def tell(
        self,
        tx: Transaction,
        environment: str,
        service: str,
        exposed_below: int,
        slow_over_s: Mapping[str, float],
    ) -> None:
        """Have it announced if it is news."""
        key = environment, service
        before = self._announced.get(key)
        if before is not None and before[0] == exposed_below and before[1] == slow_over_s:
            return
        if before is None and len(self._announced) >= _MAX_KEPT:
            return  # the others answer without it, as for a service that is new
        self._announced[key] = exposed_below, dict(slow_over_s)
        tx.announce(
            Topic.HINTS,
            {
                "environment": environment,
                "service": service,
                "exposed_below": f"{exposed_below:016x}",
                "slow_over_s": dict(slow_over_s),
            },
        )


class Hints:
    """What the leader has announced last, for answers of a server that does not lead.

    Thread-safe. Before anything was heard it is what a young service is told.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._exposed_below: dict[str, int] = {}
        self._slow_over_s: dict[tuple[str, str], Mapping[str, float]] = {}

    def subscribe(self, notices: Notices) -> None:
        notices.on(Topic.HINTS, self.hear)
        notices.on(Topic.ENVIRONMENT, self.forget)

    def hear(
        self,
        environment: str,
        service: str,
        exposed_below: str,
        slow_over_s: Mapping[str, float],
    ) -> None:
        with self._lock:
            self._exposed_below[environment] = int(exposed_below, 16)
            if len(self._slow_over_s) < _MAX_KEPT or (environment, service) in self._slow_over_s:
                self._slow_over_s[environment, service] = slow_over_s

    def forget(self, environment: str) -> None:
        """Drop what is known of a deleted environment."""
        with self._lock:
            self._exposed_below.pop(environment, None)
            for key in [key for key in self._slow_over_s if key[0] == environment]:
                del self._slow_over_s[key]

    def exposed_below(self, environment: str) -> int:
        return self._exposed_below.get(environment, SAMPLED_HASHES)

    def slow_over_s(self, environment: str, service: str) -> Mapping[str, float]:
        return self._slow_over_s.get((environment, service), {})
