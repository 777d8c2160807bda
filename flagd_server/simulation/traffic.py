"""Draws a life: what the server takes in, event by event, as the guard reads it.

Only what the guard reads is drawn: how many requests each arm made, and which units failed, were
slow, or were exposed first. A process reports within a second of a failure, and at each beat.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from operator import itemgetter
from random import Random
from typing import NamedTuple

from flagd_server.domain.guard.records import Cell, Event
from flagd_server.domain.guard.traffic import BUCKETS, CONTROL, TREATMENT
from flagd_server.simulation.looks import EXPOSED, Looks
from flagd_server.simulation.poisson import poisson
from flagd_server.simulation.population import Population
from flagd_server.simulation.scenario import KINDS, Fault, Scenario

SPLIT = "default"
NEW_KIND = "error:New"

_ERROR = "error:"
_OLD_KINDS = tuple(f"error:K{k}" for k in range(KINDS))
_RENAMED_KINDS = tuple(f"error:New{k}" for k in range(KINDS))
_KIND_WEIGHTS = tuple(accumulate(1.0 / (k + 1) for k in range(KINDS)))
_VARIANTS = (TREATMENT, CONTROL)
# Each process reports every second for ten minutes from the start and from a fault's beginning;
# else at its heartbeat and after a failure, as the exposures between them change no decision.
_BEAT_S, _HEARTBEAT_S, _CLOSELY_S = 1, 10, 600.0


class _Finding(NamedTuple):
    """One unit event; sorts by when and by whom it is reported.

    Attributes:
        second: within the beat.
        side: 0 in the treatment, 1 in the control.
    """

    second: int
    process: int
    side: int
    kind: str
    unit: int
    by_fault: bool


_when_and_who = itemgetter(0, 1)


@dataclass(slots=True)
class Harm:
    """What the fault has done so far.

    Attributes:
        exposures: requests that were served the treatment since it began.
        requests: those it made fail, or slow.
        units: the distinct users who met it.
    """

    exposures: int = 0
    requests: int = 0
    units: set[int] = field(default_factory=set)


class Traffic:
    """One life, to be drawn once by `events`; a function of its scenario and seed.

    Attributes:
        harm: up to the event that was yielded last.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.harm = Harm()
        self._scenario = scenario
        self._random = Random(f"{scenario.name}/{seed}")
        self._population = Population(scenario.units, scenario.zipf, self._random)
        self._tries = 1 + scenario.retries
        self._instances = tuple(f"i{number}" for number in range(scenario.processes))
        self._ramp = list(scenario.ramp)
        self._version = 0
        self._weights: dict[str, int] = {}
        self._arms = self._population.arms(0)
        self._looks = Looks(scenario, self._population, self._random)
        self._fault: Fault | None = None  # once it has begun
        self._has_released = False
        # Requests a second that one process serves of either arm, in the present beat.
        self._rates = (0.0, 0.0)

    def events(self) -> Iterator[Event]:
        """Yield what the server would take in, in its order."""
        scenario, t = self._scenario, 0.0
        yield from self._changes(t)
        while t < scenario.duration_s:
            seconds = self._beat_s(t)
            yield from self._beat(t, seconds)
            t += seconds
            yield from self._changes(t)

    def _beat_s(self, t: float) -> int:
        fault = self._scenario.fault
        is_close = t < _CLOSELY_S or (
            fault is not None and abs(t - fault.at_s) < _CLOSELY_S  # so that it begins with a beat
        )
        return _BEAT_S if is_close else _HEARTBEAT_S

    def _changes(self, t: float) -> Iterator[Event]:
        """Make the changes that are due; yield those that the server announces."""
        while self._ramp and t >= self._ramp[0][0]:
            _, percent = self._ramp.pop(0)
            on = round(percent * BUCKETS / 100)
            self._weights = {TREATMENT: on, CONTROL: BUCKETS - on}
            self._arms = self._population.arms(on)
            self._version += 1
            if self._version > 1:
                yield Event(t, announced="weights")
        fault = self._scenario.fault
        if self._fault is None and fault is not None and t >= fault.at_s:
            self._fault = fault
            if fault.is_announced:
                yield Event(t, announced="version")
        trouble = self._scenario.trouble
        if trouble is not None and trouble.is_release and not self._has_released:
            self._has_released = t >= trouble.from_s
            if self._has_released:
                yield Event(t, announced="version")

    def _beat(self, t: float, seconds: int) -> Iterator[Event]:
        scenario = self._scenario
        load = scenario.requests_per_s * scenario.load(t)
        treated, spared = self._arms
        self._rates = (
            load * scenario.asks * treated.volume / scenario.processes,
            load * spared.volume / scenario.processes,
        )
        findings = self._failures(t, seconds, load)
        findings += self._looked_at(t, seconds, load)
        findings.sort()
        reported = [0] * scenario.processes
        for (second, process), group in groupby(findings, _when_and_who):
            yield self._report(t, process, reported[process], second + 1, tuple(group))
            reported[process] = second + 1
        for process, since in enumerate(reported):
            if since < seconds:
                yield self._report(t, process, since, seconds, ())

    def _failures(self, t: float, seconds: int, load: float) -> list[_Finding]:
        scenario, fault, trouble = self._scenario, self._fault, self._scenario.trouble
        failing = load * seconds * scenario.base * scenario.failing(t)
        is_troubled = trouble is not None and trouble.from_s <= t < trouble.until_s
        findings: list[_Finding] = []
        for side, arm in enumerate(self._arms):
            asks = 1.0 if side else scenario.asks
            mean = failing * arm.failure * asks
            findings += self._renamed(side, self._draw(side, seconds, mean, _OLD_KINDS))
            if fault is not None and not fault.is_slowness and side == 0:
                kinds = (NEW_KIND,) if fault.has_new_kind else _OLD_KINDS
                more = mean * (fault.ratio - 1.0)
                findings += self._draw(side, seconds, more, kinds, by_fault=True)
            if is_troubled:
                assert trouble is not None
                sick = load * seconds * arm.volume * asks * trouble.extra_rate
                sick *= trouble.processes / scenario.processes
                findings += self._draw(side, seconds, sick, _OLD_KINDS, sick_of=trouble.processes)
        return findings

    def _draw(
        self,
        side: int,
        seconds: int,
        mean: float,
        kinds: Sequence[str],
        *,
        by_fault: bool = False,
        sick_of: int = 0,
    ) -> list[_Finding]:
        """Draw a beat's failures of one arm; a sick process fails users whatever their frailty."""
        count = poisson(self._random, mean)
        if not count:
            return []
        arm, random = self._arms[side], self._random.random
        weights = arm.volumes if sick_of else arm.failures
        processes = sick_of or self._scenario.processes
        total = _KIND_WEIGHTS[len(kinds) - 1]
        return [
            _Finding(
                int(random() * seconds),
                int(random() * processes),
                side,
                kinds[bisect(_KIND_WEIGHTS, random() * total)],
                unit,
                by_fault,
            )
            for unit in self._random.choices(arm.members, cum_weights=weights, k=count)
        ]

    def _renamed(self, side: int, findings: list[_Finding]) -> list[_Finding]:
        renamed = self._scenario.renamed
        if renamed is None or side:
            return findings
        changed = dict(zip(_OLD_KINDS[: renamed.kinds], _RENAMED_KINDS, strict=False))
        return [
            finding._replace(kind=changed[finding.kind])
            if finding.kind in changed and self._random.random() < renamed.share
            else finding
            for finding in findings
        ]

    def _looked_at(self, t: float, seconds: int, load: float) -> list[_Finding]:
        """Return the users who prove slow, or are first exposed, in this beat."""
        random, processes = self._random.random, self._scenario.processes
        findings: list[_Finding] = []
        for at, kind, unit, by_fault in self._looks.due(t, seconds, load, self._arms):
            side = int(not self._population.is_treated(unit, self._weights[TREATMENT]))
            if kind != EXPOSED or side or random() >= self._scenario.lost:
                process = int(random() * processes)
                findings.append(_Finding(int(at - t), process, side, kind, unit, by_fault))
        return findings

    def _report(
        self, t: float, process: int, since: int, until: int, findings: Sequence[_Finding]
    ) -> Event:
        """Return the summary of one process over seconds [since, until) of the beat."""
        cells = []
        for side, rate in enumerate(self._rates):
            exposures, errors = poisson(self._random, rate * (until - since)), 0
            units: dict[str, tuple[str, ...]] = {}
            for finding in findings:
                if finding.side == side:
                    unit = self._population.hash_of(finding.unit)
                    units[finding.kind] = (*units.get(finding.kind, ()), unit)
                    if finding.kind.startswith(_ERROR):
                        errors += self._tries
            exposures += errors - errors // self._tries  # to try again is a request too
            exposures = max(exposures, errors)
            if exposures or units:
                cells.append(
                    Cell(
                        SPLIT,
                        _VARIANTS[side],
                        self._weights,
                        self._version,
                        self._instances[process],
                        exposures,
                        errors,
                        units,
                    )
                )
            if side == 0 and self._fault is not None:
                self.harm.exposures += exposures
        for finding in findings:
            if finding.by_fault:
                self.harm.requests += self._tries
                self.harm.units.add(finding.unit)
        return Event(t + until, tuple(cells))
