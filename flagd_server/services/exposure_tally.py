"""What was counted since the start, by flag and variant, for those who watch: summed in memory.

Counters as Prometheus wants them: they only grow, and begin anew with the process. Only what the
guard hears is in them, since gates of delivery tools decide by them; what client-kind tokens report
is not. How many there are is bounded, whatever is reported.
"""

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flagd_sdk.core.latency import LATENCY_BUCKETS, bucket_bounds_us
from flagd_server.services.claims import OTHER
from flagd_server.storage.telemetry_records import CountRow

MAX_KEPT = 5_000
# A version that is gone makes room for one that comes; one that reports does not.
_IDLE_S = 600.0
_LOOK_FOR_ROOM_EVERY_S = 60.0
# Octaves of the buckets in which SDKs count, so that nothing is guessed: from 1 ms to 8 s.
BOUNDS_US = tuple(1 << power for power in (10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23))


def _place(bucket: int) -> int:
    _, upper_us = bucket_bounds_us(bucket)
    return sum(upper_us > bound for bound in BOUNDS_US)


_PLACES = tuple(_place(bucket) for bucket in range(LATENCY_BUCKETS))
_MIDDLES_US = tuple(sum(bucket_bounds_us(bucket)) / 2 for bucket in range(LATENCY_BUCKETS))


class Key(NamedTuple):
    environment: str
    flag: str
    variant: str
    service: str
    version: str


class Counted:
    """Attributes:
    latency: counts by place in `BOUNDS_US`, and one more for what is beyond.
    latency_us: their sum, by the middles of the SDKs' buckets: off by at most 1/16.
    """

    __slots__ = ("counted_at", "errors", "exposures", "latency", "latency_us")

    def __init__(self) -> None:
        self.counted_at = 0.0
        self.exposures = 0
        self.errors = 0
        self.latency: list[int] | None = None
        self.latency_us = 0.0

    def add(self, row: CountRow, at: float) -> None:
        self.counted_at = at
        self.exposures += row.exposures
        self.errors += row.errors
        if row.latency:
            if self.latency is None:
                self.latency = [0] * (len(BOUNDS_US) + 1)
            for bucket, count in row.latency.items():
                self.latency[_PLACES[bucket]] += count
                self.latency_us += _MIDDLES_US[bucket] * count

    def copy(self) -> "Counted":
        same = Counted()
        same.counted_at, same.exposures, same.errors = (
            self.counted_at,
            self.exposures,
            self.errors,
        )
        same.latency = None if self.latency is None else self.latency.copy()
        same.latency_us = self.latency_us
        return same


class ExposureTally:
    """Thread-safe."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._lock = threading.Lock()  # guards those below; taken last, and held for no I/O
        self._counted: dict[Key, Counted] = {}
        self._looked_for_room_at = 0.0

    def add(self, rows: Iterable[CountRow], at: float) -> None:
        """Add what has become durable.

        Args:
            at: Unix seconds.
        """
        with self._lock:
            for row in rows:
                key = Key(row.environment, row.flag, row.variant, row.service, row.service_version)
                counted = self._counted.get(key) or self._admit(key, at)
                counted.add(row, at)

    def snapshot(self) -> Iterator[tuple[Key, Counted]]:
        """Return all of it as of one moment."""
        with self._lock:
            copies = [(key, counted.copy()) for key, counted in self._counted.items()]
        return iter(copies)

    def _admit(self, key: Key, at: float) -> Counted:
        if len(self._counted) >= self._max_kept and not self._make_room(at):
            key = Key(key.environment, OTHER, OTHER, OTHER, OTHER)
        return self._counted.setdefault(key, Counted())

    def _make_room(self, at: float) -> bool:
        if at < self._looked_for_room_at + _LOOK_FOR_ROOM_EVERY_S:
            return False
        self._looked_for_room_at = at
        idle = [key for key, each in self._counted.items() if each.counted_at < at - _IDLE_S]
        for key in idle:
            del self._counted[key]
        return bool(idle)
