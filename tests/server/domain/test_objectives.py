"""Error budgets, burn rates and the alerts on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.latency import latency_bucket
from flagd_server.domain.objectives import (
    BUDGET,
    BURN_RULES,
    BURN_WINDOWS,
    NOTHING,
    Counted,
    LatencyObjective,
    ObjectiveState,
    SloState,
)

WINDOWS = (*BURN_WINDOWS, BUDGET)


def state(target: float = 0.999, **windows: Counted) -> ObjectiveState:
    given = {name.removeprefix("w"): counted for name, counted in windows.items()}
    return ObjectiveState("availability", target, dict.fromkeys(WINDOWS, NOTHING) | given)


def burning(burn: float, target: float = 0.999, events: int = 1_000_000) -> Counted:
    return Counted.of(events, round(burn * (1 - target) * events))


def test_the_rules_are_those_of_the_workbook() -> None:
    assert [(rule.alert, round(rule.burn, 6), rule.long, rule.short) for rule in BURN_RULES] == [
        ("page", 14.4, "1h", "5m"),
        ("page", 6.0, "6h", "30m"),
        ("ticket", 3.0, "1d", "2h"),
        ("ticket", 1.0, "3d", "6h"),
    ]
    for rule in BURN_RULES:
        assert BURN_WINDOWS[rule.long] == 12 * BURN_WINDOWS[rule.short]


def test_a_burn_rate_is_the_failing_share_in_budgets() -> None:
    seen = state(w1h=Counted.of(10_000, 144))
    assert seen.burn("1h") == pytest.approx(14.4)
    assert seen.burn("5m") is None
    assert seen.budget_left is None
    assert state(budget=Counted.of(10_000, 4)).budget_left == pytest.approx(0.6)
    assert state(budget=Counted.of(10_000, 25)).budget_left == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("windows", "alert"),
    [
        ({}, None),
        ({"w1h": burning(14.5), "w5m": burning(14.5)}, "page"),
        ({"w1h": burning(14.5), "w5m": burning(14.0)}, None),
        ({"w1h": burning(14.0), "w5m": burning(900)}, None),
        ({"w1h": burning(14.5)}, None),
        ({"w1h": burning(14.5), "w5m": Counted.of(0, 0)}, None),
        ({"w6h": burning(6.1), "w30m": burning(6.1)}, "page"),
        ({"w1d": burning(3.1), "w2h": burning(3.1)}, "ticket"),
        ({"w3d": burning(1.1), "w6h": burning(1.1)}, "ticket"),
        ({"w3d": burning(0.9), "w6h": burning(5.0)}, None),
        ({"w6h": burning(7), "w30m": burning(7), "w3d": burning(2)}, "page"),
    ],
)
def test_an_alert_needs_both_windows(windows: dict[str, Counted], alert: str | None) -> None:
    assert state(**windows).alert == alert


def test_a_few_failures_wake_nobody() -> None:
    few = Counted.of(100, 4)
    assert state(w1h=few, w5m=few).burn("1h") == pytest.approx(40)
    assert state(w1h=few, w5m=few).alert is None
    more = Counted.of(100, 5)
    assert state(w1h=more, w5m=few).alert == "page"
    shares = Counted(0.05)
    assert state(w1h=shares, w5m=shares).alert == "page"


def test_telling_that_nothing_burns_takes_enough_exposures() -> None:
    """Without failures among n the share is below 3 / n."""
    assert state(w1h=Counted.of(0, 0)).lacks("1h", 1.0) == 3_000
    assert state(w1h=Counted.of(2_999, 0)).lacks("1h", 1.0) == 1
    assert state(w1h=Counted.of(3_000, 0)).lacks("1h", 1.0) == 0
    assert state(w1h=Counted.of(208, 0)).lacks("1h", 14.4) == 1
    assert state(w1h=Counted(0.0)).lacks("1h", 1.0) == 0


def test_the_state_of_a_service_is_its_most_urgent_objective() -> None:
    quiet, ticket = state(), state(w1d=burning(4), w2h=burning(4))
    page = state(w1h=burning(20), w5m=burning(20))

    def of(*objectives: ObjectiveState) -> str | None:
        return SloState("production", "shop", 30, "exposures", objectives).alert

    assert of(quiet) is None
    assert of(quiet, ticket) == "ticket"
    assert of(ticket, page) == "page"


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=8, max_size=8),
    st.floats(0.5, 0.99999),
)
def test_any_counts_make_a_document(rows: list[tuple[int, int]], target: float) -> None:
    windows = {
        name: Counted.of(max(row), min(row)) for name, row in zip(WINDOWS, rows, strict=True)
    }
    one = ObjectiveState("availability", target, windows)
    (document,) = SloState("production", "shop", 30, "exposures", (one,)).to_document()[
        "objectives"
    ]
    left = document["error_budget_left"]
    assert left is None or left <= 1.0
    assert all(rate is None or rate >= 0 for rate in document["burn_rates"].values())


@given(st.floats(0.001, 3_600))
def test_whatever_took_longer_counts_as_slow_and_little_else(threshold_s: float) -> None:
    objective = LatencyObjective(threshold_s, 0.99)
    longer_us = round(threshold_s * 1e6) + 1
    assert latency_bucket(longer_us) >= objective.first_slow_bucket
    shorter_us = int(threshold_s * 1e6 * 0.874)
    assert latency_bucket(shorter_us) < objective.first_slow_bucket
    assert threshold_s * 0.874 <= objective.counted_over_s <= threshold_s * 1.001 + 1e-6
