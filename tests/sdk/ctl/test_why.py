"""How evidence is put into words, of reports as the API gives them."""

from typing import Any

from rich.console import Console

from flagd_sdk.ctl.commands.evidence import _render
from flagd_sdk.ctl.output import Output
from tests.sdk.ctl.states import KILL

Json = dict[str, Any]


def arm(variant: str, exposures: int, errors: int) -> Json:
    rate = errors / exposures
    return {
        "variant": variant,
        "exposures": exposures,
        "errors": errors,
        "error_rate": rate,
        "failing_units": errors,
    }


def comparison(e_value: float, split: str = "default", metric: str = "errors") -> Json:
    return {
        "metric": metric,
        "split": split,
        "treatment": arm("on", 1_000, 50),
        "control": arm("off", 3_000, 15),
        "e_value": e_value,
        "threshold": 1_000.0,
        "expected_share": 0.25,
        "path": [{"t": 1_000.0, "e_value": 1.0}, {"t": 1_030.0, "e_value": e_value}],
    }


def report(**fields: Any) -> Json:
    decision = {"reason": "it hurts", "split": "default", "treatment": "on"}
    return {
        "at": "2026-03-01T12:00:00.000Z",
        "decision": decision,
        "life_started_at": 990.0,
        "comparisons": [comparison(5_000.0), comparison(9_000.0, split="other")],
        "error_kinds": [],
        "notes": [],
        **fields,
    }


def words(**document: Any) -> str:
    out = Output()
    whole = {
        "environment": "production",
        "flag": "new",
        "state": "killed" if document.get("kill") else "on",
        "kill": None,
        "receipt": None,
        "report": None,
        "watch": {"mode": "no control", "reason": "everybody is served the same"},
        "running": None,
        **document,
    }
    console = Console(width=100, markup=False, highlight=False, color_system=None)
    with console.capture() as captured:
        for each in _render(whole, out):
            console.print(each)
    return captured.get()


def test_the_reason_is_said_once_and_the_decisive_comparison_is_drawn() -> None:
    text = words(kill=KILL | {"evidence": "ev-1"}, report=report())
    assert text.count("it hurts") == 1
    assert "5,000 ┤" in text
    assert "9,000" not in text, "the other split did not decide"
    assert "50 of 65 users that failed were served on; 25.0% would be" in text


def test_a_rollback_says_where_it_went() -> None:
    back = {
        "variant": "on",
        "from_percent": 25.0,
        "to_percent": 5.0,
        "to_version": 3,
    }
    text = words(report=report(rollback=back))
    assert "went back from 25 % of on to 5 %, as in version 3, which was healthy" in text
    assert "the guard decided at 2026-03-01 12:00:00Z (now it is on)" in text


def test_why_a_flag_was_killed_and_not_rolled_back() -> None:
    text = words(kill=KILL, report=report(rollback=None, not_rolled_back="nothing was healthy"))
    assert "killed, and not rolled back: nothing was healthy" in text


def test_whom_a_kill_has_not_reached_is_named() -> None:
    receipt = {
        "processes": 3,
        "confirmed": 2,
        "unconfirmed": ["web-3"],
        "last_confirmed_after_ms": 12.0,
    }
    text = words(kill=KILL, receipt=receipt)
    assert "2 of 3 processes confirmed, the last after 12 ms" in text
    assert "not yet: web-3" in text


def test_a_report_without_a_path_and_of_another_metric_is_told_all_the_same() -> None:
    made = comparison(0.5, metric="slow:p99") | {"path": []}
    text = words(report=report(comparisons=[made]))
    assert "USERS THAT WERE SLOW (P99)" in text
    assert "┤" not in text
    assert "it hurts" in words(report=report(comparisons=[]))


def test_a_flag_that_nobody_watches_says_why() -> None:
    assert "no control; everybody is served the same" in words()
    running = {"decision": None, "comparisons": [], "blind": [{"detail": "no summaries"}]}
    assert "the guard cannot see: no summaries" in words(running=running | {"life_started_at": 1.0})


def test_what_became_known_later_follows() -> None:
    after = {
        "kind": "aftermath",
        "window_s": 120,
        "document": {"outcome": "fell", "before": {"share": 0.05}, "after": {"share": 0.005}},
    }
    told = {
        "kind": "told",
        "window_s": 0,
        "document": {"processes": 2, "confirmed": 2, "confirmed_after_ms": {"100": 8.0}},
    }
    text = words(report=report(notes=[told, after]))
    assert "2 of 2 processes confirmed, the last after 8 ms" in text
    assert "2 minutes after it: errors fell (5.00% of requests before, 0.50% after)" in text
