"""The harm budget: an amount of failing requests, not a question of evidence."""

from collections.abc import Iterable

import pytest

from flagd_server.domain.guard.arms import Counts
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.harm import excess_failures
from flagd_server.domain.guard.records import Cell, Event
from tests.server.domain.guard.recordings import QUARTER, feed, guard

THREE = ("i1", "i2", "i3")


def requests(
    variant: str, exposures: int, errors: int, instance: str = "i1", token: str = ""
) -> Cell:
    """Failing requests whose units are known to have failed before: no evidence in them."""
    return Cell("default", variant, QUARTER, 1, instance, exposures, errors, token=token)


def spend(life: FlagGuard, seconds: Iterable[int], *instances: str, errors: int = 2) -> None:
    for t in seconds:
        instance = instances[t % len(instances)]
        cells = requests("on", 25, errors, instance), requests("off", 75, 0, instance)
        life.observe(Event(float(t), cells))


@pytest.mark.parametrize(
    ("treatment", "control", "excess"),
    [
        ((100, 10), (100, 10), 0.0),
        ((100, 30), (100, 10), 20.0),
        ((100, 30), (300, 30), 20.0),
        ((100, 5), (100, 10), 0.0),
        ((100, 30), (0, 0), 0.0),
        ((0, 0), (100, 10), 0.0),
    ],
)
def test_the_excess_is_what_the_controls_rate_does_not_explain(
    treatment: tuple[int, int], control: tuple[int, int], excess: float
) -> None:
    assert excess_failures(Counts(*treatment), Counts(*control)) == pytest.approx(excess)


def test_a_spent_budget_kills_without_evidence_and_says_what_was_spent() -> None:
    life = guard(harm_budget=100)
    spend(life, range(49), *THREE)
    assert not life.has_killed
    spend(life, range(49, 50), *THREE)
    decision = life.decision
    assert (decision.kill, decision.guard, decision.e_value) == (True, "harm_budget", 1.0)
    assert (decision.split, decision.treatment, decision.control) == ("default", "on", "off")
    assert decision.reason == (
        "“on” has cost 100 failing requests more than “off” would have; its budget is 100"
    )


def test_without_a_budget_no_amount_kills() -> None:
    life = guard()
    spend(life, range(500), *THREE)
    assert not life.has_killed


def test_what_fails_on_both_sides_spends_nothing() -> None:
    life = guard(harm_budget=10)
    for t in range(200):
        cells = requests("on", 25, 5, THREE[t % 3]), requests("off", 75, 15, THREE[t % 3])
        feed(life, float(t), *cells)
    assert not life.has_killed


def test_without_exposures_of_the_control_nothing_is_known_to_be_too_much() -> None:
    life = guard(harm_budget=10)
    for t in range(50):
        feed(life, float(t), requests("on", 25, 5, THREE[t % 3]))
    assert not life.has_killed
    feed(life, 50.0, *(requests("off", 75, 0, name) for name in THREE))
    assert life.has_killed


class TestLoudest:
    def test_one_process_of_three_spends_no_budget_alone(self) -> None:
        life = guard(harm_budget=100)
        spend(life, range(60), *THREE, errors=0)
        for t in range(60, 160):
            cells = requests("on", 25, 20, "i1"), requests("off", 75, 0, "i1")
            feed(life, float(t), *cells)
        assert not life.has_killed

    def test_nor_by_falling_silent(self) -> None:
        life = guard(harm_budget=100)
        spend(life, range(60), *THREE, errors=0)
        feed(life, 60.0, requests("on", 1_000, 1_000, "i1"), requests("off", 75, 0, "i1"))
        for t in range(70, 2_000, 10):
            for name in ("i2", "i3"):
                feed(life, float(t), requests("on", 25, 0, name), requests("off", 75, 0, name))
        assert not life.has_killed

    def test_nor_one_token_of_two(self) -> None:
        life = guard(harm_budget=100)
        for t in range(100):
            name = f"f{t % 5}"
            feed(
                life,
                float(t),
                requests("on", 25, 0, "i1", "shop"),
                requests("off", 75, 0, "i1", "shop"),
                requests("on", 25, 25, name, "leaked"),
            )
        assert not life.has_killed
        # Not by silence either: the other token goes on saying that nothing fails.
        for t in range(100, 2_000, 10):
            cells = requests("on", 25, 0, "i1", "shop"), requests("off", 75, 0, "i1", "shop")
            feed(life, float(t), *cells)
        assert not life.has_killed

    def test_without_the_loudest_half_a_budget_is_enough(self) -> None:
        life = guard(harm_budget=100)
        for t in range(20):
            for name, errors in zip(THREE, (6, 2, 1), strict=True):
                feed(life, float(t), requests("on", 25, errors, name), requests("off", 75, 0, name))
        assert life.decision.guard == "harm_budget"
