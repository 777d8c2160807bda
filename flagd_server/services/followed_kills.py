"""How far each kill has got, from its decision on, whether or not somebody waits for it."""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil

PERCENTS = (50, 99, 100)
NAMED = 20
"""Processes that are named: a person looks at a few, and counts tell of the rest."""
_KILLS_REMEMBERED = 200

OnReached = Callable[[str, int, float], None]
"""(environment, percent, seconds from the decision)"""


@dataclass(frozen=True, slots=True)
class KillWay:
    """The way of one kill through the processes that were there when it was announced.

    Attributes:
        reached_s: percent → seconds from the decision until so many of the processes had confirmed;
            without those that were not reached yet.
        slowest: (instance, seconds from the decision) of the last `NAMED` to confirm, in order.
    """

    sequence: int
    reached_s: Mapping[int, float]
    slowest: tuple[tuple[str, float], ...]


class _Followed:
    __slots__ = (
        "after_s",
        "count",
        "decided_at",
        "environment",
        "missing",
        "reached_s",
        "sequence",
        "slowest",
    )

    def __init__(
        self, environment: str, sequence: int, decided_at: float, missing: Iterable[str]
    ) -> None:
        self.environment = environment
        self.sequence = sequence
        self.decided_at = decided_at
        self.missing = set(missing)
        self.after_s = array("d")  # of the confirmations, in order; empty once all are there
        self.count = 0
        self.slowest: deque[tuple[str, float]] = deque(maxlen=NAMED)
        self.reached_s: dict[int, float] = {}

    def confirm(self, instance: str, at: float) -> None:
        self.missing.discard(instance)
        after_s = max(0.0, at - self.decided_at)
        self.after_s.append(after_s)
        self.count += 1
        self.slowest.append((instance, after_s))

    def newly_reached(self) -> list[tuple[int, float]]:
        """Return (percent, seconds) that were not reached when this was last asked."""
        processes = self.count + len(self.missing)
        found = []
        for percent in PERCENTS:
            needed = ceil(processes * percent / 100)
            if percent not in self.reached_s and 0 < needed <= self.count:
                self.reached_s[percent] = self.after_s[needed - 1]
                found.append((percent, self.after_s[needed - 1]))
        if not self.missing:
            self.after_s = array("d")
        return found


class FollowedKills:
    """Not thread-safe: its owner holds a lock. Times are monotonic seconds.

    Args:
        on_reached: told when a kill has reached a share of the processes. It must be quick.
    """

    def __init__(self, on_reached: OnReached) -> None:
        self._on_reached = on_reached
        self._kills: dict[str, _Followed] = {}  # oldest first
        self._open: set[_Followed] = set()

    def follow(
        self,
        kill_id: str,
        environment: str,
        sequence: int,
        decided_at: float,
        confirmed: Iterable[tuple[float, str]],
        missing: Iterable[str],
    ) -> None:
        """Follow a kill that has just been announced.

        Args:
            confirmed: (when, instance) of those who were faster than this call.
        """
        while len(self._kills) >= _KILLS_REMEMBERED:
            self._open.discard(self._kills.pop(next(iter(self._kills))))
        followed = _Followed(environment, sequence, decided_at, missing)
        self._kills[kill_id] = followed
        for at, instance in sorted(confirmed):
            followed.confirm(instance, at)
        self._open.add(followed)
        self._settle(followed)

    def confirm(self, environment: str, instance: str, sequence: int, at: float) -> None:
        """Note that an instance serves the flags of the sequence."""
        for followed in [
            each
            for each in self._open
            if each.environment == environment
            and sequence >= each.sequence
            and instance in each.missing
        ]:
            followed.confirm(instance, at)
            self._settle(followed)

    def drop_gone(self, known: Callable[[str], frozenset[str]]) -> None:
        """Expect nothing more of processes that are gone.

        Args:
            known: (environment) → the instances that are there.
        """
        there = {name: known(name) for name in {each.environment for each in self._open}}
        for followed in list(self._open):
            followed.missing &= there[followed.environment]
            self._settle(followed)

    def way_of(self, kill_id: str) -> KillWay | None:
        """Return how far it has got; None where it is too long ago, or of before the start."""
        followed = self._kills.get(kill_id)
        if followed is None:
            return None
        return KillWay(followed.sequence, dict(followed.reached_s), tuple(followed.slowest))

    def missing(self) -> dict[str, int]:
        """Return how many processes have not confirmed one of the kills, by environment."""
        names: dict[str, set[str]] = {}
        for followed in self._open:
            names.setdefault(followed.environment, set()).update(followed.missing)
        return {environment: len(found) for environment, found in names.items()}

    def _settle(self, followed: _Followed) -> None:
        for percent, seconds in followed.newly_reached():
            self._on_reached(followed.environment, percent, seconds)
        if not followed.missing:
            self._open.discard(followed)
