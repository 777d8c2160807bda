"""Runs a simulated life under one judge or several, until each has killed the flag or it ends."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Event, Policy
from flagd_server.domain.guard.traffic import CONTROL
from flagd_server.simulation.scenario import Scenario
from flagd_server.simulation.traffic import Traffic


class Judge(Protocol):
    """What watches a flag: the guard, or another method on the same events."""

    @property
    def has_killed(self) -> bool: ...

    def observe(self, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a life ended for one judge.

    Attributes:
        killed_after_s: from the fault (or the start) to the kill; below 0 where a healthy flag
            was killed before its fault; None without a kill.
        exposures: requests served the faulty treatment until then, `failed` those that it made
            fail or slow, `users` how many users met that.
    """

    killed_after_s: float | None
    exposures: int = 0
    failed: int = 0
    users: int = 0


def guard(policy: Policy | None = None) -> FlagGuard:
    """Return a guard as production runs it, of a flag whose off variant is the control."""
    return FlagGuard(policy or Policy(off_variant=CONTROL), 0.0)


def live(scenario: Scenario, seed: int, judge: Judge | None = None) -> Ending:
    """Run one life under one judge, the guard by default."""
    return race(scenario, seed, {"": judge or guard()})[""]


def race(scenario: Scenario, seed: int, judges: Mapping[str, Judge]) -> dict[str, Ending]:
    """Run one life under several judges, each of which sees it until it kills."""
    traffic = Traffic(scenario, seed)
    endings = {
        name: _ending(t - scenario.began_s, traffic) for name, t in kills(traffic.events(), judges)
    }
    return {name: endings.get(name) or _ending(None, traffic) for name in judges}


def kills(events: Iterable[Event], judges: Mapping[str, Judge]) -> Iterator[tuple[str, float]]:
    """Yield (judge, t) as each kills the flag; read no further once all have."""
    awake = dict(judges)
    for event in events:
        killed = []
        for name, judge in awake.items():
            judge.observe(event)
            if judge.has_killed:
                killed.append(name)
        for name in killed:
            del awake[name]
            yield name, event.t
        if not awake:
            return


def _ending(killed_after_s: float | None, traffic: Traffic) -> Ending:
    harm = traffic.harm
    return Ending(killed_after_s, harm.exposures, harm.requests, len(harm.units))
