"""The rows of the suite: what is simulated in each, and the goal that the guard is held to."""

from dataclasses import dataclass, replace
from enum import Enum

from flagd_server.domain.guard.records import DEFAULT_ALPHA
from flagd_server.simulation.bounds import wald_bound_s
from flagd_server.simulation.scenario import (
    DAY_S,
    HOUR_S,
    Fault,
    Renamed,
    Scenario,
    Trouble,
    bursts,
    diurnal,
    outage,
)

ROBUSTNESS_GOAL = 0.02
_LATE_S = 27 * HOUR_S
# Far past the bound, so that a slow run counts as slow and not as blind.
_PATIENCE = 40.0


class Group(Enum):
    """What a row measures."""

    FALSE_KILLS = "false kills, at most alpha"
    ALSO_HARMLESS = "false kills at other shares and by latency, at most alpha"
    ROBUSTNESS = "false kills of features that only look bad, at most 2 %"
    DELAY = "delay from fault to kill, in multiples of Wald's bound"


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        goal: of the share killed, or of the delay in multiples of the bound; None where the row
            only informs.
        scenario: None for the recorded traffic, which is then split at `real_share` percent.
    """

    group: Group
    name: str
    goal: float | None
    scenario: Scenario | None = None
    real_share: int | None = None

    @property
    def bound_s(self) -> float:
        """Wald's bound for the fault of a row of delays."""
        scenario = self.scenario
        assert scenario is not None, "recorded traffic has no fault"
        fault = scenario.fault
        assert fault is not None, "only a fault has a bound"
        if fault.is_slowness:  # a user is looked at once an hour
            looks_per_s = scenario.units / HOUR_S
            return wald_bound_s(scenario.slow, fault.ratio, requests_per_s=looks_per_s)
        share = scenario.ramp[0][1] / 100.0
        return wald_bound_s(scenario.base, fault.ratio, share=share)


def _harmless() -> list[Case]:
    scenarios = [
        Scenario("plain"),
        Scenario("outage in both arms", failing=outage),
        Scenario("bursts", failing=bursts),
        Scenario(
            "diurnal with ramp",
            load=diurnal,
            ramp=((0.0, 1.0), (HOUR_S, 5.0), (2 * HOUR_S, 25.0), (3 * HOUR_S, 50.0)),
        ),
        Scenario("retry storms", retries=20, failing=bursts),
        Scenario("48 processes", processes=48, duration_s=2 * HOUR_S),
        Scenario("sick instance", processes=8, trouble=Trouble(1, 0.3, HOUR_S, 3 * HOUR_S)),
        Scenario(
            "bad version",
            processes=8,
            trouble=Trouble(4, 0.1, HOUR_S, 4 * HOUR_S, is_release=True),
        ),
        Scenario("heavy users", zipf=1.2),
        Scenario(
            "five announced changes",
            ramp=tuple((0.7 * HOUR_S * step, 5.0 + 9.0 * step) for step in range(6)),
        ),
    ]
    rows = [Case(Group.FALSE_KILLS, s.name, DEFAULT_ALPHA, s) for s in scenarios]
    for share in (5, 25, 50):
        name = f"recorded traffic, share {share} %"
        rows.append(Case(Group.FALSE_KILLS, name, DEFAULT_ALPHA, real_share=share))
    return rows


def _also_harmless() -> list[Case]:
    plain, down = Scenario("plain"), Scenario("outage in both arms", failing=outage)
    scenarios = [
        replace(scenario, name=f"{scenario.name}, share {share:g} %", ramp=((0.0, share),))
        for scenario in (plain, down)
        for share in (1.0, 5.0, 50.0)
    ]
    scenarios.append(Scenario("plain, with slow users and first exposures", slow=0.01, sampled=0.1))
    return [Case(Group.ALSO_HARMLESS, s.name, DEFAULT_ALPHA, s) for s in scenarios]


def _robust() -> list[Case]:
    scenarios = [
        scenario
        for base in (0.001, 0.01, 0.05)
        for scenario in (
            Scenario(f"renamed errors, base {base:.1%}", base, renamed=Renamed()),
            Scenario(f"users ask three times as often, base {base:.1%}", base, asks=3.0),
            Scenario(f"users ask a third as often, base {base:.1%}", base, asks=1 / 3),
        )
    ]
    scenarios += [
        Scenario("half of one kind renamed, base 1.0%", renamed=Renamed(1, 0.5)),
        Scenario("one kind renamed, base 1.0%", renamed=Renamed(1)),
        Scenario("half of all kinds renamed, base 1.0%", renamed=Renamed(share=0.5)),
    ]
    scenarios = [replace(scenario, duration_s=2 * HOUR_S) for scenario in scenarios]
    return [Case(Group.ROBUSTNESS, s.name, ROBUSTNESS_GOAL, s) for s in scenarios]


def _faulty(
    name: str,
    base: float,
    fault: Fault,
    goal: float | None = None,
    *,
    share: float = 25.0,
    units: int = 20_000,
) -> Case:
    bound_s = wald_bound_s(base, fault.ratio, share=share / 100.0)
    scenario = Scenario(
        f"{name}, {base:.1%} ×{fault.ratio:g}",
        base=base,
        duration_s=fault.at_s + min(_PATIENCE * bound_s, DAY_S),
        units=units,
        ramp=((0.0, share),),
        fault=fault,
    )
    return Case(Group.DELAY, scenario.name, goal, scenario)


def _delays() -> list[Case]:
    rows = [
        _faulty("fresh, new kind", 0.001, Fault(5.0, True), 0.95),
        _faulty("fresh, new kind", 0.01, Fault(2.0, True), 0.5),
        _faulty("fresh, new kind", 0.05, Fault(1.5, True), 0.65),
        _faulty("fresh, new kind", 0.001, Fault(20.0, True)),
        _faulty("fresh, old kinds", 0.001, Fault(5.0), 1.6),
        _faulty("fresh, old kinds", 0.01, Fault(2.0)),
        _faulty("fresh, old kinds", 0.05, Fault(1.5)),
    ]
    for share in (1.0, 5.0, 50.0):
        at = f"fresh, share {share:g} %"
        rows.append(_faulty(f"{at}, new kind", 0.01, Fault(2.0, True), share=share))
        rows.append(_faulty(f"{at}, old kinds", 0.001, Fault(5.0), share=share))
    for base, ratio, is_new, goal in (
        (0.01, 2.0, True, 0.8),
        (0.001, 5.0, False, 1.55),
        (0.01, 2.0, False, 2.6),
    ):
        name = f"after 24 h, announced, {_kinds(is_new)}"
        rows.append(_faulty(name, base, Fault(ratio, is_new, DAY_S, True), goal))
    for units, goals in ((20_000, (2.5, 4.0, 9.0)), (200_000, (2.0, 3.0, 5.0))):
        for (base, ratio, is_new), goal in zip(
            ((0.01, 2.0, True), (0.001, 5.0, False), (0.01, 2.0, False)), goals, strict=True
        ):
            name = f"after 27 h, unannounced, {units:,} units, {_kinds(is_new)}"
            rows.append(_faulty(name, base, Fault(ratio, is_new, _LATE_S), goal, units=units))
    slow = Scenario("fresh, slow users, 1.0% ×3", slow=0.01, fault=Fault(3.0, is_slowness=True))
    return [*rows, Case(Group.DELAY, slow.name, None, slow)]


def _kinds(is_new: bool) -> str:
    return "new kind" if is_new else "old kinds"


CASES = (*_harmless(), *_also_harmless(), *_robust(), *_delays())
