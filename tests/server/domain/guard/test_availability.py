"""Objectives: what they hold, what they may kill, and what they lower the bar for."""

import json
from random import Random

import pytest

from flagd_server.domain.guard.availability import Availability
from flagd_server.domain.guard.epochs import KINDS_SHARE
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.judgement import BURNING_E
from flagd_server.domain.guard.records import Cell, Event, Policy
from tests.server.domain.guard.recordings import QUARTER, cell, feed

SLO = {"shop": 0.999}
EVERYBODY = {"on": 100_000, "off": 0}


def served(exposures: int, errors: int, service: str = "shop") -> Cell:
    """Return a cell of a flag that everybody has: no split decides, so there is no coin."""
    return Cell(None, "on", {}, 1, "i1", exposures, errors, service=service)


def life(**policy: object) -> FlagGuard:
    fields = {"control": "off", "slos": SLO, **policy}
    return FlagGuard(Policy(**fields), 0.0)  # type: ignore[arg-type]


def run(guard: FlagGuard, seconds: range, rate: float, *, seed: int = 1) -> None:
    random = Random(seed)
    for t in seconds:
        errors = sum(random.random() < rate for _ in range(50))
        feed(guard, float(t), served(50, errors))


def test_within_the_objective_nothing_is_held() -> None:
    guard = life()
    run(guard, range(3_600), 0.0008)
    decision = guard.decision
    assert not decision.hold
    assert decision.blind == ("no control",)


def test_a_missed_objective_holds_and_says_by_how_much() -> None:
    guard = life()
    run(guard, range(1_000), 0.0005)
    run(guard, range(1_000, 1_120), 0.05)
    decision = guard.decision
    assert (decision.hold, decision.kill, decision.guard) == (True, False, "availability")
    assert "shop misses its objective of 99.900%" in decision.reason
    assert "14.4 times" in decision.reason


def test_it_kills_where_the_policy_says_so_and_the_flag_was_changed_just_before() -> None:
    guard = life(on_burn="kill")
    run(guard, range(3_000), 0.0005)
    feed(guard, 3_000.0, announced="rules")
    run(guard, range(3_001, 3_200), 0.05)
    assert guard.has_killed
    assert guard.decision.guard == "availability"


def test_a_breach_that_no_change_of_the_flag_precedes_kills_nothing() -> None:
    guard = life(on_burn="kill")
    run(guard, range(3_000), 0.0005)
    feed(guard, 3_000.0, announced="version 7 of shop")
    run(guard, range(3_001, 3_200), 0.05)
    assert not guard.has_killed
    assert guard.decision.hold
    assert "not within 15 minutes" in guard.decision.reason


def test_services_without_an_objective_are_not_tested() -> None:
    guard = life()
    for t in range(100):
        feed(guard, float(t), served(50, 25, service="batch"))
    assert not guard.decision.hold
    assert guard.availability.counts == {}


def test_where_availability_is_not_guarded_objectives_say_nothing() -> None:
    guard = life(guards=("error_rate",))
    run(guard, range(200), 0.5)
    assert not guard.decision.hold


def both(t: int, on: list[int], off: list[int], each: int = 25) -> Event:
    cells = (
        cell("on", on, exposures=each)._replace(service="shop"),
        cell("off", off, exposures=3 * each)._replace(service="shop"),
    )
    return Event(float(t), cells)


def test_an_outage_in_both_arms_burns_and_kills_nothing() -> None:
    guard, units = life(on_burn="kill"), iter(range(1_000_000))
    random = Random(3)
    for t in range(60):
        failing = [next(units) for _ in range(40)]
        on = [unit for unit in failing if random.random() < QUARTER["on"] / 100_000]
        guard.observe(both(t, on, [unit for unit in failing if unit not in on]))
    assert guard.availability.breach(0.001) is not None
    assert not guard.has_killed


def test_a_breach_lowers_the_bar_for_the_comparison() -> None:
    quiet, burning = life(slos={}), life()
    for guard in (quiet, burning):
        for t in range(7):
            guard.observe(both(t, [t], [], each=2))
    assert not quiet.has_killed
    assert burning.has_killed
    assert burning.decision.threshold == pytest.approx(BURNING_E / (KINDS_SHARE / 2))
    assert burning.decision.guard == "error_rate"


def test_a_restart_leaves_the_same_bits() -> None:
    guard = life()
    run(guard, range(50), 0.02)
    again = FlagGuard.from_document(json.loads(json.dumps(guard.to_document())))
    for each in (guard, again):
        run(each, range(50, 90), 0.02, seed=2)
    assert again.to_document() == guard.to_document()


def test_an_objective_whose_fast_burn_cannot_happen_has_one_test() -> None:
    watched = Availability({"shop": 0.9})
    watched.observe(0.0, [served(10, 10)])
    (row,) = watched.report()
    assert len(watched.tests["shop"]) == 1
    assert row["missed_e_value"] == row["fast_burn_e_value"]
