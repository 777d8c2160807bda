"""The page against pages that were read by people and found good.

To change the words, change the code, write the pages anew with
`python -m tests.server.domain.guard.test_prose`, and read the difference.
"""

from copy import deepcopy
from pathlib import Path

import pytest

from flagd_server.domain.guard.prose.chart import chart
from flagd_server.domain.guard.prose.layout import WIDTH
from flagd_server.domain.guard.prose.page import earlier_reports, page, page_without_guard
from flagd_server.domain.guard.prose.words import (
    amount,
    clean,
    clock,
    counted,
    fraction,
    listed,
    odds,
    percent,
    span,
    times,
)
from tests.server.domain.guard.evidence_documents import (
    DOCUMENTS,
    T0,
    comparison,
    report,
    version_verdict,
)

PAGES = Path(__file__).parent / "pages"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_reads_as_it_was_found_good(name: str) -> None:
    assert page(DOCUMENTS[name]) == (PAGES / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_is_no_wider_than_a_terminal_and_about_a_page_long(name: str) -> None:
    lines = page(DOCUMENTS[name]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= 85


def test_what_others_wrote_can_not_steer_the_terminal_or_break_the_page() -> None:
    document = deepcopy(DOCUMENTS["kill_for_errors"])
    document["error_kinds"][0] |= {
        "sample": "\x1b[2J\x07 gone\nNEW LINE" + "x" * 500,
        "where": "y" * 256,
    }
    document["comparisons"][0]["stream"] = f"error:{'K' * 58}, epoch 12 ({'cause ' * 30})"
    text = page(document)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\nNEW" not in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_long_life_is_still_about_a_page() -> None:
    text = page(report([comparison("CTTTC" * 40)]))
    assert len(text.splitlines()) <= 85
    assert "the last 120 of 200" in text


def test_a_version_that_runs_alone_is_compared_with_none() -> None:
    verdict = {**version_verdict("cannot tell yet", None, "too little"), "older": None}
    text = page(report([comparison("T" * 11)], versions=[verdict]))
    assert "shop: only version v42 is running, so there is none to compare it with." in text


def test_a_place_is_cut_where_it_tells_least() -> None:
    document = report([comparison("T" * 11)])
    document["error_kinds"][0]["where"] = f"{'package.' * 12}charge:38"
    assert "package.charge:38\n" in page(document)


def test_a_flag_without_guard_has_a_page_as_well() -> None:
    text = page_without_guard("production", "new-checkout")
    assert text.startswith("new-checkout in production: not watched now\n")


def test_earlier_reports_are_listed_with_what_was_done() -> None:
    rows = [
        {"id": "ev-2", "at": "2026-11-27T02:10:20.125Z", "action": "kill"},
        {"id": "ev-1", "at": "2026-11-26T02:10:20.125Z", "action": "braked"},
    ]
    assert earlier_reports(rows).splitlines()[2:] == [
        "  ev-2   27 November 2026 at 02:10:20 UTC   switched off",
        "  ev-1   26 November 2026 at 02:10:20 UTC   left to a person",
    ]
    assert earlier_reports([]) == ""


def test_the_chart_marks_where_the_guard_acts() -> None:
    rows = list(chart([1.0, 10.0, 100.0, 1_000.0, 10_000.0], 1_000.0))
    (marked,) = (row for row in rows if row.endswith("acts"))
    assert marked.split()[0] == "1,000"
    assert all(len(row) <= WIDTH for row in rows)


@pytest.mark.parametrize("path", [[0.0] * 3, [1e150] * 300, [1.0], [0.001, 1e9]])
def test_any_path_can_be_drawn(path: list[float]) -> None:
    assert all(len(row) <= WIDTH for row in chart(path, 5_000.0))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (amount(0.04), "0"),
        (amount(1.0), "1"),
        (amount(9.96), "10"),
        (amount(41_234.0), "41,000"),
        (amount(999_999.0), "1,000,000"),
        (amount(3_240_000.0), "3.2 million"),
        (amount(1e150), "over 1,000 trillion"),
        (counted(1, "visitor"), "1 visitor"),
        (counted(2_300, "visitor"), "2,300 visitors"),
        (percent(0.0), "0%"),
        (percent(0.00003), "under 0.01%"),
        (percent(0.0004), "0.04%"),
        (percent(0.0567), "5.7%"),
        (fraction(0.25), "one in four"),
        (fraction(0.5), "half"),
        (fraction(0.01), "one in 100"),
        (fraction(0.27), "27 in 100"),
        (fraction(0.75), "three in four"),
        (odds(0.25**11), "one in four million"),
        (odds(1 / 40_000), "one in 40,000"),
        (odds(1 / 3), "one in three"),
        (odds(0.7), "better than even"),
        (odds(0.0), "less than one in 1,000 trillion"),
        (times(1.0), "as often"),
        (times(12.2), "12 times as often"),
        (span(0.42), "0.4 seconds"),
        (span(120.0), "2 minutes"),
        (span(97_200.0), "27 hours"),
        (span(604_800.0), "7 days"),
        (listed([]), ""),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (clean(" a\tb\u202ec "), "a b c"),
        (clock(T0), "02:00:00"),
        (clock(T0, near=T0 + 86_400), "27 Nov 02:00"),
    ],
)
def test_numbers_are_said_as_people_say_them(said: str, expected: str) -> None:
    assert said == expected


def test_what_it_cost_is_not_told_while_nobody_is_without_the_feature() -> None:
    document = deepcopy(DOCUMENTS["running"])
    document["harm"] = {"budget": 50, "excess": 0.0}
    for each in document["comparisons"]:
        each["control"] |= {"exposures": 0, "errors": 0, "error_rate": 0.0}
    text = page(document)
    assert "nobody can tell" in text
    assert "fail no more often" not in text


if __name__ == "__main__":
    for name, document in DOCUMENTS.items():
        (PAGES / f"{name}.txt").write_text(page(document), encoding="utf-8")
