from dataclasses import replace
from typing import Any

import pytest

from examples.demo.figures import LEAST_NEW, LEAST_OLD, Figures, Kill, close, problems, unix_time
from examples.demo.replay import Answer

FAULT = "PaymentGatewayError"
SHOPS = ["shop-1", "shop-2"]


def answer(
    sent_at: float, checkout: str = "new", fault: str = "", *, failed_before: bool = False
) -> Answer:
    return Answer(sent_at, sent_at + 0.01, checkout, fault, failed_before)


def kill(**changes: Any) -> Kill:
    standard = Kill(
        id="kill-1",
        at=105.0,
        source="guard",
        reason="it hurts",
        evidence={
            "decision": {"e_value": 9e4, "threshold": 3e4, "stream": "errors, life"},
            "error_kinds": [{"kind": f"error:{FAULT}", "variant": "on"}],
        },
        applied_at={"shop-1": 105.004, "shop-2": 105.0075},
        receipt={"processes": 2, "confirmed": 2},
    )
    return replace(standard, **changes)


ANSWERS = [
    answer(99.0, "old", failed_before=True),
    answer(100.0),
    answer(101.0, fault=FAULT),
    answer(102.0, "old"),
    answer(103.0, fault=FAULT, failed_before=True),
    answer(104.995, fault=FAULT),  # answered after the decision
    answer(106.0, "old"),
]


def test_the_time_and_the_exposures_run_from_the_first_injected_error_to_the_decision() -> None:
    figures = close(ANSWERS, kill(), is_healthy=False)

    assert figures.seconds_to_kill == 4.0
    assert figures.requests_to_kill == {"old": 1, "new": 2}


def test_the_last_process_counts() -> None:
    figures = close(ANSWERS, kill(), is_healthy=False)

    assert figures.decision_to_process_ms == {"shop-1": 4.0, "shop-2": 7.5}
    assert figures.decision_to_last_process_ms == 7.5


def test_a_request_that_had_failed_in_the_log_did_not_fail_because_of_the_flag() -> None:
    figures = close(ANSWERS, kill(), is_healthy=False)

    assert figures.failed_by_flag == 2
    assert figures.errors_from_before == 2


def test_all_is_well_where_the_guard_killed_and_every_process_followed() -> None:
    assert problems(close(ANSWERS, kill(), is_healthy=False), kill(), FAULT, SHOPS) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "operator"}, "not from the guard"),
        ({"at": 100.5, "applied_at": {"shop-1": 104.999, "shop-2": 104.999}}, "before the first"),
        ({"evidence": {"error_kinds": [{"kind": "error:404", "variant": "on"}]}}, "does not name"),
        (
            {"evidence": {"error_kinds": [{"kind": f"error:{FAULT}", "variant": "off"}]}},
            "does not name",
        ),
        ({"applied_at": {"shop-1": 105.1}}, "shop-2 did not apply"),
        ({"receipt": {"processes": 2, "confirmed": 1}}, "1 of 2 processes"),
        ({"receipt": {"processes": 3, "confirmed": 3}}, "3 of 3 processes"),
        ({"applied_at": {"shop-1": 102.0, "shop-2": 102.0}}, "2 requests failed"),
    ],
)
def test_whatever_else_happened_is_a_problem(changes: dict[str, Any], complaint: str) -> None:
    other = kill(**changes)
    answers = [*ANSWERS, answer(105.5, fault=FAULT)] if "2 requests" in complaint else ANSWERS

    found = problems(close(answers, other, is_healthy=False), other, FAULT, SHOPS)

    assert len(found) == 1
    assert complaint in found[0]


def test_a_fault_that_nobody_stopped_is_a_problem() -> None:
    found = problems(close(ANSWERS, None, is_healthy=False), None, FAULT, SHOPS)

    assert found == ["the guard did not kill the flag"]


def healthy(old: int, new: int, killed: bool = False) -> Figures:
    counted = close(ANSWERS[:1], None, is_healthy=True)
    return replace(counted, requests={"old": old, "new": new}, killed=killed)


def test_a_healthy_flag_that_is_left_alone_is_well() -> None:
    assert problems(healthy(LEAST_OLD, LEAST_NEW), None, FAULT, SHOPS) == []


@pytest.mark.parametrize(
    ("figures", "complaint"),
    [
        (healthy(LEAST_OLD, LEAST_NEW, killed=True), "a healthy flag was killed"),
        (healthy(LEAST_OLD - 1, LEAST_NEW), "went to the old checkout"),
        (healthy(LEAST_OLD, LEAST_NEW - 1), "went to the new checkout"),
        (replace(healthy(LEAST_OLD, LEAST_NEW), unanswered=3), "3 visits got no answer"),
        (replace(healthy(LEAST_OLD, LEAST_NEW), errors_from_before=0), "as it had in the log"),
    ],
)
def test_a_healthy_run_that_proves_nothing_is_a_problem(figures: Figures, complaint: str) -> None:
    found = problems(figures, None, FAULT, SHOPS)

    assert len(found) == 1
    assert complaint in found[0]


def test_times_of_the_wire_are_read() -> None:
    assert unix_time("2026-11-23T19:14:37.123Z") == 1795461277.123
