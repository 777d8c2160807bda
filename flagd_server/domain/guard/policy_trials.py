"""Policies side by side over the same recorded events: who would have killed, when, at what harm?

The harm is counted from the events and not by the guards, so that it is the same yardstick for all.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flagd_server.domain.guard.backtest import Replay
from flagd_server.domain.guard.metrics import ERROR_PREFIX, ERRORS, SLOW
from flagd_server.domain.guard.records import Decision, Event, Policy, RecordError, parse_policy

# A comma parts two settings only where another key follows: a value may be a JSON list.
_NEXT_SETTING = re.compile(r",(?=\w+=)")
_GUARDS = {metric.name: metric.guard for metric in (ERRORS, *SLOW.values())}


@dataclass(frozen=True, slots=True)
class Harm:
    """What the treatment did to its users up to some moment.

    Attributes:
        failing_units: units that failed; that were slow, where latency is what counted.
        excess_errors: its failing requests beyond what the control's rate would have made of its
            exposures; negative where it failed less.
    """

    exposures: int
    errors: int
    failing_units: int
    excess_errors: float


class Point(NamedTuple):
    """How near the nearest stream is to its threshold; `is_held`: held back from a kill."""

    t: float
    nearness: float
    is_held: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one policy.

    Attributes:
        decision: the kill; where there was none, the one nearest to its threshold.
        t: when that came about.
        harm: until the kill, or the end; None where there was no pair of arms to compare.
        path: how near it came, at each change.
    """

    name: str
    policy: Policy
    decision: Decision
    t: float
    harm: Harm | None
    path: tuple[Point, ...]

    @property
    def held_from(self) -> float | None:
        """When it was first held back from a kill, None where it never was."""
        return next((point.t for point in self.path if point.is_held), None)

    @property
    def nearness(self) -> float:
        """How near the evidence came to its threshold: 1 and more is enough."""
        return self.decision.e_value / self.decision.threshold


@dataclass(slots=True)
class Arm:
    """What happened to the users of one variant.

    Attributes:
        falls: guard ("error_rate" or "latency") → unit → when it first failed or was slow.
    """

    exposures: int = 0
    errors: int = 0
    falls: dict[str, dict[str, float]] = field(default_factory=dict)

    def falls_of(self, decision: Decision) -> list[float]:
        """Return when each unit fell, of those that a decision is about; else that failed."""
        guard = decision.guard if decision.guard in _GUARDS.values() else ERRORS.guard
        return list(self.falls.get(guard, {}).values())


@dataclass(frozen=True, slots=True)
class PolicyComparison:
    """The outcomes of all policies, in the order asked for, over the events they had in common.

    Attributes:
        started_at: of the life, where that is known, else of the first event.
        arms: (split, variant) → everything that happened to its users.
    """

    started_at: float
    ended_at: float
    events: int
    outcomes: tuple[Outcome, ...]
    arms: Mapping[tuple[str, str], Arm]


def compare_policies(replays: Mapping[str, Replay], events: Iterable[Event]) -> PolicyComparison:
    """Run every policy, by name, over the same events, which are read once.

    Raises:
        RecordError: there are no events.
    """
    trials = [_Trial(name, replay) for name, replay in replays.items()]
    arms: dict[tuple[str, str], Arm] = {}
    started_at = next(iter(replays.values())).started_at
    count, t = 0, 0.0
    for event in events:
        count, t = count + 1, event.t
        if started_at is None:
            started_at = t
        _count(arms, event)
        for trial in trials:
            trial.observe(event, arms)
    if started_at is None or count == 0:
        raise RecordError("there are no events to try a policy on")
    outcomes = tuple(trial.outcome(arms) for trial in trials)
    return PolicyComparison(started_at, t, count, outcomes, arms)


@dataclass(slots=True)
class _Trial:
    """A policy under way. Once it has killed it hears no more: the flag would be off."""

    name: str
    replay: Replay
    nearest: Decision | None = None
    nearest_t: float = 0.0
    harm: Harm | None = None
    path: list[Point] = field(default_factory=list)

    def observe(self, event: Event, arms: Mapping[tuple[str, str], Arm]) -> None:
        if self.nearest is not None and self.nearest.kill:
            return
        decision = self.replay.observe(event)
        point = Point(event.t, decision.e_value / decision.threshold, decision.hold)
        if not self.path or self.path[-1][1:] != point[1:] or decision.kill:
            self.path.append(point)
        if self.nearest is None or _rank(decision) > _rank(self.nearest):
            self.nearest, self.nearest_t = decision, event.t
        if decision.kill:
            self.harm = _harm(arms, decision)

    def outcome(self, arms: Mapping[tuple[str, str], Arm]) -> Outcome:
        assert self.nearest is not None, "there was an event"
        return Outcome(
            name=self.name,
            policy=self.replay.policy,
            decision=self.nearest,
            t=self.nearest_t,
            harm=self.harm if self.nearest.kill else _harm(arms, self.nearest),
            path=tuple(self.path),
        )


def _rank(decision: Decision) -> tuple[bool, bool, float]:
    """Order decisions by how near they are to a kill, those that had nothing to compare last."""
    return decision.kill, decision.split is not None, decision.e_value / decision.threshold


def _count(arms: dict[tuple[str, str], Arm], event: Event) -> None:
    for cell in event.cells:
        if cell.split is None:
            continue
        arm = arms.setdefault((cell.split, cell.variant), Arm())
        arm.exposures += cell.exposures
        arm.errors += cell.errors
        for kind, units in cell.units.items():
            guard = _GUARDS.get(ERRORS.name if kind.startswith(ERROR_PREFIX) else kind)
            if guard is not None:
                falls = arm.falls.setdefault(guard, {})
                for unit in units:
                    falls.setdefault(unit, event.t)


def _harm(arms: Mapping[tuple[str, str], Arm], decision: Decision) -> Harm | None:
    if decision.split is None or decision.treatment is None or decision.control is None:
        return None
    treatment = arms.get((decision.split, decision.treatment), Arm())
    control = arms.get((decision.split, decision.control), Arm())
    rate = control.errors / control.exposures if control.exposures else 0.0
    return Harm(
        treatment.exposures,
        treatment.errors,
        len(treatment.falls_of(decision)),
        treatment.errors - rate * treatment.exposures,
    )


def changed_policy(base: Policy, settings: Mapping[str, Any]) -> Policy:
    """Return the policy with some settings changed, each as `parse_policy` reads it.

    Raises:
        RecordError: there is no such setting, or its value is out of range.
    """
    parsed = parse_policy({"config": dict(settings)})
    return replace(base, **{name: getattr(parsed, name) for name in settings})


def parse_settings(text: str) -> dict[str, Any]:
    """Read `alpha=0.001,margin=1.2`; values are JSON, or else text.

    Raises:
        RecordError: a part is no key=value.
    """
    settings: dict[str, Any] = {}
    for part in _NEXT_SETTING.split(text):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise RecordError(f"expected key=value, got {part!r:.60}")
        try:
            settings[name] = json.loads(value)
        except (ValueError, RecursionError):
            settings[name] = value
    return settings


def parse_policies(text: str) -> dict[str, dict[str, Any]]:
    """Read `{"strict": {"alpha": 0.0001}, …}`: settings by the policy's name.

    Raises:
        RecordError: it is no such JSON.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"expected policies by name as JSON, {error}") from None
    if not isinstance(document, dict):
        raise RecordError(f"expected policies by name, got {document!r:.60}")
    for name, settings in document.items():
        if not isinstance(settings, dict):
            raise RecordError(f"{name}: expected an object of settings, got {settings!r:.60}")
    return document
