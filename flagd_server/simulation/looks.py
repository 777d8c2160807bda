"""Which users are looked at when: once an hour for latency, and once for the sample ratio."""

from collections.abc import Iterator
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from flagd_server.simulation.poisson import poisson
from flagd_server.simulation.population import ALL_HASHES, Arm, Population
from flagd_server.simulation.scenario import HOUR_S, Fault, Scenario

SLOW, NEAR, EXPOSED = "slow:p99", "near:p99", "exposed"
# Of those over the threshold, the part that is not over it by more than the margin of latency.
NEAR_PART = 0.1


class Look(NamedTuple):
    """One user's event; `at` in seconds of the life."""

    at: float
    kind: str
    unit: int
    by_fault: bool


class Looks:
    """What is still to come, drawn ahead: an hour for latency, the whole life for exposures.

    A user is first exposed after a time that is exponential with his rate of requests.
    """

    def __init__(self, scenario: Scenario, population: Population, random: Random) -> None:
        self._scenario, self._population, self._random = scenario, population, random
        self._planned: list[Look] = []
        self._hours = 0
        if scenario.sampled:
            self._plan_first_exposures()

    def due(self, t: float, seconds: int, load: float, arms: tuple[Arm, Arm]) -> Iterator[Look]:
        """Yield what falls into these seconds.

        Args:
            load: requests a second of all users without the feature; `arms` the present ones.
        """
        if self._scenario.slow and t >= self._hours * HOUR_S:
            self._hours += 1
            for is_control, arm in enumerate(arms):
                if arm.members:
                    self._plan_slowness(t, load, arm, is_treatment=not is_control)
        while self._planned and self._planned[0].at < t + seconds:
            yield heappop(self._planned)

    def _plan_first_exposures(self) -> None:
        """Draw when those are first exposed whose hash is under the sampling threshold."""
        below = self._scenario.sampled * ALL_HASHES
        for unit, volume in enumerate(self._population.volumes):
            if int(self._population.hash_of(unit), 16) < below:
                at = self._random.expovariate(volume * self._scenario.requests_per_s)
                heappush(self._planned, Look(at, EXPOSED, unit, False))

    def _plan_slowness(self, t: float, load: float, arm: Arm, *, is_treatment: bool) -> None:
        """Draw who of an arm will be slow in this hour."""
        scenario, fault = self._scenario, self._scenario.fault
        usual = len(arm.members) * scenario.slow
        causes: list[tuple[str, float, Fault | None]] = [
            (SLOW, usual * (1.0 - NEAR_PART), None),
            (NEAR, usual * NEAR_PART, None),
        ]
        if is_treatment and fault is not None and fault.is_slowness:
            causes.append((SLOW, usual * (fault.ratio - 1.0), fault))
        requests_per_s = load * (scenario.asks if is_treatment else 1.0)
        seen: set[int] = set()
        for kind, mean, cause in causes:
            since_s = 0.0 if cause is None else cause.at_s
            count = poisson(self._random, mean)
            for unit in self._random.choices(arm.members, cum_weights=arm.frailties, k=count):
                rate = self._population.volumes[unit] * requests_per_s
                at = t + self._random.expovariate(rate)
                if unit not in seen and since_s <= at < t + HOUR_S:
                    seen.add(unit)
                    heappush(self._planned, Look(at, kind, unit, cause is not None))
