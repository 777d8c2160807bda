"""When a guard cannot see, and that it says so."""

import pytest

from flagd_sdk.core.guard.window import WINDOW_S
from flagd_server.domain.guard.blindness import LEAST_EXPOSURES, NO_CONTROL, SILENCE_S
from flagd_server.domain.guard.flag_guard import FlagGuard
from tests.server.domain.guard.recordings import cell, feed, guard

PLENTY = 10 * LEAST_EXPOSURES


def reasons(life: FlagGuard, t: float) -> list[str]:
    return [blind.reason for blind in life.blindness(t)]


def exposed(life: FlagGuard, t: float, *, on: int = PLENTY, off: int = PLENTY) -> None:
    cells = [cell("on", exposures=on), cell("off", exposures=off)]
    feed(life, t, *(each for each in cells if each.exposures))


def test_a_guard_that_hears_of_both_arms_sees() -> None:
    life = guard()
    exposed(life, 1.0)
    assert reasons(life, 1.0) == []
    assert life.decision.blind == ()


def test_before_anybody_was_exposed_there_is_no_control() -> None:
    assert reasons(guard(), 0.0) == [NO_CONTROL]
    assert guard().decision.blind == (NO_CONTROL,)


def test_with_one_arm_there_is_no_control() -> None:
    life = guard()
    everybody = {"on": 100_000, "off": 0}
    feed(life, 1.0, cell("on", exposures=PLENTY, weights=everybody))
    assert reasons(life, 1.0) == [NO_CONTROL]


@pytest.mark.parametrize("start", [0.0, 1_000.0], ids=["clock from zero", "later"])
def test_a_minute_without_any_summary_blinds(start: float) -> None:
    life = guard()
    exposed(life, start)
    assert reasons(life, start + SILENCE_S) == []
    assert reasons(life, start + SILENCE_S + 1.0) == ["no summaries"]


def test_summaries_that_expose_nobody_are_no_sight() -> None:
    life = guard()
    exposed(life, 0.0)
    for t in range(10, 100, 10):
        feed(life, float(t), cell("on", exposures=0), cell("off", exposures=0))
    assert reasons(life, 100.0) == ["no summaries"]


@pytest.mark.parametrize("silent", ["on", "off"])
def test_an_arm_with_weight_that_is_served_to_nobody_blinds(silent: str) -> None:
    life = guard()
    exposed(life, 0.0)
    for t in range(30, 631, 30):
        exposed(life, float(t), **{silent: 0})
    assert reasons(life, WINDOW_S) == []
    assert reasons(life, WINDOW_S + 1.0) == ["one arm silent"]
    assert repr(silent) in life.blindness(WINDOW_S + 1.0)[0].detail


def test_an_arm_that_was_never_served_blinds_at_once() -> None:
    life = guard()
    exposed(life, 0.0, off=0)
    assert reasons(life, 0.0) == ["one arm silent"]


def test_too_few_exposures_of_the_treatment_blind() -> None:
    life = guard()
    exposed(life, 0.0, on=LEAST_EXPOSURES - 1)
    assert reasons(life, 0.0) == ["too few events"]
    exposed(life, 1.0, on=1)
    assert reasons(life, 1.0) == []


def test_each_pair_says_for_itself_why_it_is_blind_and_a_decision_names_each_reason_once() -> None:
    life = guard()
    thirds = {"red": 25_000, "blue": 25_000, "off": 50_000}
    feed(life, 0.0, *(cell(name, exposures=1, weights=thirds) for name in thirds))
    assert reasons(life, 0.0) == ["too few events", "too few events"]
    assert life.decision.blind == ("too few events",)


def test_too_few_events_do_not_withhold_a_kill() -> None:
    """They say only that no news is not good news; what was seen was enough."""
    life = guard()
    feed(life, 0.0, cell("on"), cell("off"))
    assert life.decision.blind == ("too few events",)
    for t in range(20):
        feed(life, float(t), cell("on", [t]), cell("off"))
    assert life.decision.kill
    assert life.decision.blind == ()
