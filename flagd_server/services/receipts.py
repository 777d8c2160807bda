"""Who has applied which sequence: what a kill that waits for its confirmation is told.

A process confirms a sequence by the telemetry it sends; a kill makes it send at once. What other
servers hear of theirs they tell (`roll_call`), so that each knows the processes of all.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, inf

from flagd_server.services.followed_kills import FollowedKills, KillWay, OnReached

# An instance without a stream still counts for this long after its last word: its stream may be
# down while it polls, and saying that a kill reached everybody would be wrong.
FORGET_AFTER_S = 60.0
_PRUNE_EVERY_S = 10.0
# Every summary is answered with the number of processes; counting 10,000 takes a millisecond.
_COUNT_EVERY_S = 1.0
# Of one environment; far above the processes of an installation, it bounds what a token in wrong
# hands can make the server keep. Beyond it the instance that was silent the longest is forgotten.
MAX_INSTANCES = 20_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a sequence has got.

    The processes are those connected, or heard of within the last minute.

    Attributes:
        unconfirmed: the instances that have not applied the sequence or a later one, sorted.
        confirmed_after_ms: when each of the others told that it has, from the start of the wait,
            sorted; below 0 where it had told before.
    """

    unconfirmed: tuple[str, ...] = ()
    confirmed_after_ms: tuple[float, ...] = ()

    @property
    def processes(self) -> int:
        return len(self.unconfirmed) + len(self.confirmed_after_ms)

    @property
    def confirmed(self) -> int:
        return len(self.confirmed_after_ms)

    @property
    def last_confirmed_after_ms(self) -> float | None:
        """From the start of the wait; 0 where all came before, None where there is none."""
        return max(0.0, self.confirmed_after_ms[-1]) if self.confirmed_after_ms else None

    def reached_after_ms(self, percent: int) -> float | None:
        """Return when so many of all processes had confirmed; None while fewer have."""
        needed = ceil(self.processes * percent / 100)
        return self.confirmed_after_ms[needed - 1] if 0 < needed <= self.confirmed else None


OnNews = Callable[[str, str, int], None]
"""(environment, instance, sequence)"""


class _Instance:
    __slots__ = ("applied_at", "heard_at", "heard_here_at", "sequence")

    def __init__(self) -> None:
        self.heard_here_at = -inf  # by this server itself
        self.sequence = -1
        self.applied_at = 0.0  # when it first told of its sequence
        self.heard_at = 0.0


class _Waiter:
    """What one wait lacks still, so that a confirmation costs no look at all the others."""

    __slots__ = ("environment", "missing", "sequence")

    def __init__(self, environment: str, sequence: int, missing: Iterable[str]) -> None:
        self.environment = environment
        self.sequence = sequence
        self.missing = set(missing)


class Receipts:
    """Thread-safe.

    Args:
        connected: (environment) -> the instances that have a stream open.
        clock: monotonic seconds.
        on_reached: told when a kill that is followed has reached a share of the processes.
        on_news: told (environment, instance, sequence) of what a process has told this server and
            is new; it must be quick.
    """

    def __init__(
        self,
        connected: Callable[[str], frozenset[str]],
        clock: Callable[[], float] = time.monotonic,
        on_reached: OnReached = lambda environment, percent, seconds: None,
        on_news: OnNews = lambda environment, instance, sequence: None,
    ) -> None:
        self._connected = connected
        self._clock = clock
        # Guards all below. `connected` takes the hub's lock under it, never the other way round.
        self._changed = threading.Condition()
        self._environments: dict[str, dict[str, _Instance]] = {}
        self._waiters: set[_Waiter] = set()
        self._followed = FollowedKills(on_reached)
        self._counts: dict[str, tuple[int, float]] = {}  # environment → processes, counted when
        self._prune_at = 0.0
        self._on_news = on_news
        self._is_closed = False

    def applied(self, environment: str, instance: str, sequence: int) -> None:
        """Note that an instance serves the flag set of this sequence; it told this server."""
        with self._changed:
            now = self._clock()
            self._prune(now)
            entry, is_news = self._note(environment, instance, sequence, now)
            entry.heard_here_at = now
            if is_news:
                self._on_news(environment, instance, sequence)

    def told(self, environment: str, applied: Mapping[str, int]) -> None:
        """Note what instances have told another server: instance → sequence, -1 where nothing."""
        with self._changed:
            now = self._clock()
            self._prune(now)
            for instance, sequence in applied.items():
                self._note(environment, instance, sequence, now)

    def heard_here(self, environment: str, within_s: float) -> dict[str, int]:
        """Return instance → sequence of those that have told this server within the time.

        And of those that have a stream open here; -1 where they have told nothing.
        """
        with self._changed:
            oldest = self._clock() - within_s
            instances = self._environments.get(environment, {})
            found = dict.fromkeys(self._connected(environment), -1)
            for name, entry in instances.items():
                if name in found or entry.heard_here_at >= oldest:
                    found[name] = entry.sequence
            return found

    def _note(
        self, environment: str, instance: str, sequence: int, now: float
    ) -> tuple[_Instance, bool]:
        """Return what is known of the instance, and whether this is news."""
        instances = self._environments.setdefault(environment, {})
        # Taken out and put back: the order of the dictionary is that of the last word.
        entry = instances.pop(instance, None) or _Instance()
        is_new = not entry.heard_at
        if is_new and len(instances) >= MAX_INSTANCES:
            del instances[next(iter(instances))]
        instances[instance] = entry
        entry.heard_at = now
        if sequence > entry.sequence:
            entry.sequence = sequence
            entry.applied_at = now
            self._confirm(environment, instance, sequence)
            self._followed.confirm(environment, instance, sequence, now)
            return entry, True
        return entry, is_new

    def processes(self, environment: str) -> int:
        """Return how many processes are connected or were heard of within the last minute.

        The number may be a second old.
        """
        with self._changed:
            now = self._clock()
            count, counted_at = self._counts.get(environment, (0, -_COUNT_EVERY_S))
            if now - counted_at >= _COUNT_EVERY_S:
                count = len(self._known(environment))
                self._counts[environment] = (count, now)
            return count

    def known(self, environment: str) -> frozenset[str]:
        """Return the instances that are connected or were heard of within the last minute."""
        with self._changed:
            return self._known(environment)

    def wait(self, environment: str, sequence: int, timeout_s: float) -> Receipt:
        """Return once every process has confirmed, time is up, or the server stops."""
        with self._changed:
            started_at = self._clock()
            deadline = started_at + timeout_s
            while True:
                receipt = self._receipt(environment, sequence, started_at)
                left_s = deadline - self._clock()
                if not receipt.unconfirmed or left_s <= 0 or self._is_closed:
                    return receipt
                self._await(_Waiter(environment, sequence, receipt.unconfirmed), left_s)

    def follow(self, kill_id: str, environment: str, sequence: int, decided_s_ago: float) -> None:
        """Follow a kill that has just been announced through the processes that are there."""
        with self._changed:
            instances = self._environments.get(environment, {})
            confirmed, missing = [], []
            for name in self._known(environment):
                entry = instances.get(name)
                if entry is None or entry.sequence < sequence:
                    missing.append(name)
                else:
                    confirmed.append((entry.applied_at, name))
            decided_at = self._clock() - decided_s_ago
            self._followed.follow(kill_id, environment, sequence, decided_at, confirmed, missing)

    def way_of(self, kill_id: str) -> KillWay | None:
        """Return how far a kill has got; None where it is too long ago, or of before the start."""
        with self._changed:
            self._followed.drop_gone(self._known)
            return self._followed.way_of(kill_id)

    def missing(self) -> dict[str, int]:
        """Return how many processes there are that have not confirmed a kill, by environment."""
        with self._changed:
            self._followed.drop_gone(self._known)
            return self._followed.missing()

    def close(self) -> None:
        """Release everyone who waits, now and from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _await(self, waiter: _Waiter, timeout_s: float) -> None:
        self._waiters.add(waiter)
        self._changed.wait_for(lambda: not waiter.missing or self._is_closed, timeout_s)
        self._waiters.discard(waiter)

    def _confirm(self, environment: str, instance: str, sequence: int) -> None:
        is_complete = False
        for waiter in self._waiters:
            if waiter.environment == environment and sequence >= waiter.sequence:
                waiter.missing.discard(instance)
                is_complete = is_complete or not waiter.missing
        if is_complete:
            self._changed.notify_all()

    def _receipt(self, environment: str, sequence: int, started_at: float) -> Receipt:
        instances = self._environments.get(environment, {})
        unconfirmed = []
        confirmed_after_ms = []
        for name in self._known(environment):
            entry = instances.get(name)
            if entry is None or entry.sequence < sequence:
                unconfirmed.append(name)
            else:
                confirmed_after_ms.append((entry.applied_at - started_at) * 1000)
        return Receipt(tuple(sorted(unconfirmed)), tuple(sorted(confirmed_after_ms)))

    def _known(self, environment: str) -> frozenset[str]:
        oldest = self._clock() - FORGET_AFTER_S
        instances = self._environments.get(environment, {})
        return self._connected(environment).union(
            name for name, entry in instances.items() if entry.heard_at >= oldest
        )

    def _prune(self, now: float) -> None:
        if now < self._prune_at:
            return
        self._prune_at = now + _PRUNE_EVERY_S
        for environment in tuple(self._environments):
            known = self._known(environment)
            instances = self._environments[environment]
            kept = {name: entry for name, entry in instances.items() if name in known}
            if kept:
                self._environments[environment] = kept
            else:
                del self._environments[environment]
