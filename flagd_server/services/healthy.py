"""Marks configurations as healthy that were changed by hand and have stood their time.

Stages of a rollout are marked by the rollout, at their end.
"""

from math import inf
from typing import Protocol

from flagd_server.clock import Clock
from flagd_server.domain.guard.lifecycle import has_two_arms
from flagd_server.domain.healthy import is_proven
from flagd_server.domain.rollout import BAKING
from flagd_server.services.guarding import WatchState
from flagd_server.services.rollout_moves import rollout_of
from flagd_server.storage.base import Ledger, Reader
from flagd_server.storage.records import ConfigurationVersion
from flagd_server.storage.release_records import HealthyVersion

_LOOK_EVERY_S = 10.0
# Time in which nobody looked does not count: the machine slept, or the server was away.
_LONGEST_LOOK_S = 3 * _LOOK_EVERY_S


class GuardStates(Protocol):
    """How the guard stands to every flag that it watches."""

    def states(self, at: float) -> list[WatchState]: ...


class _Standing:
    """How long one version of a flag has stood under a guard that saw it and was quiet."""

    __slots__ = ("due_s", "stood_s", "version")

    def __init__(self, version: int, due_s: float) -> None:
        self.version = version
        self.stood_s = 0.0
        self.due_s = due_s


class HealthWatch:
    """Used by one thread. What has stood so far is in memory: a restart begins it anew.

    Args:
        after_s: how long a version has to stand.
    """

    def __init__(self, storage: Ledger, guard: GuardStates, clock: Clock, after_s: float) -> None:
        self._storage = storage
        self._guard = guard
        self._clock = clock
        self._after_s = after_s
        self._looked_at: float | None = None
        self._standings: dict[tuple[str, str], _Standing] = {}

    def forget(self) -> None:
        """Drop what is in memory: what stands begins to stand now."""
        self._looked_at = None
        self._standings = {}

    def tick(self, now_s: float) -> None:
        """Look at every guarded flag, every ten seconds; mark what has stood its time.

        Args:
            now_s: monotonic.
        """
        if self._looked_at is not None and now_s < self._looked_at + _LOOK_EVERY_S:
            return
        since_s = 0.0 if self._looked_at is None else now_s - self._looked_at
        self._looked_at = now_s
        states = self._guard.states(self._clock.now().timestamp())
        self._standings = {
            (state.environment, state.flag): self._look(state, min(since_s, _LONGEST_LOOK_S))
            for state in states
        }

    def _look(self, state: WatchState, since_s: float) -> _Standing:
        standing = self._standings.get((state.environment, state.flag))
        if standing is None or standing.version != state.version:
            return _Standing(state.version, self._after_s)
        if not state.blind and not state.is_held:
            standing.stood_s += since_s
            if standing.stood_s >= standing.due_s:
                # Counting what was served takes longer the longer that is, so ever more rarely.
                standing.due_s = inf if self._is_settled(state) else 1.1 * standing.stood_s
        return standing

    def _is_settled(self, state: WatchState) -> bool:
        """Mark the version if all else is as it has to be; return whether to look no more."""
        with self._storage.read() as reader:
            present = reader.configuration(state.environment, state.flag)
            if present is None or present.version != state.version:
                return False  # the guard takes notice with the next report
            if present.healthy_at is not None or not has_two_arms(present.configuration):
                return True
            if _is_stage(reader, present) or not _is_proven(reader, present):
                return False
        with self._storage.transaction() as tx:
            # Its environment may have been deleted.
            if tx.configuration_version(present.environment, present.flag, present.version):
                why = f"it was served for {self._after_s:.0f} seconds with nothing against it"
                tx.mark_healthy(
                    HealthyVersion(
                        present.environment,
                        present.flag,
                        present.version,
                        self._clock.now(),
                        why,
                    )
                )
        return True


def _is_stage(reader: Reader, present: ConfigurationVersion) -> bool:
    """Return whether a rollout has the version under its own eyes, as none has that is paused."""
    for record in reader.rollouts(present.environment, present.flag)[:1]:
        rollout = rollout_of(record)
        if rollout.state in BAKING:
            return rollout.config_version == present.version
    return False


def _is_proven(reader: Reader, present: ConfigurationVersion) -> bool:
    served: dict[tuple[str, str], int] = {}
    for row in reader.counts(present.environment, present.flag, int(present.at.timestamp()) // 60):
        if row.split is not None and row.config_version == present.version:
            key = row.split, row.variant
            served[key] = served.get(key, 0) + row.exposures
    return is_proven(present.configuration.split_weights(), served)
