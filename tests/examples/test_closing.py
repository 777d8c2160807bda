import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from examples.demo.closing import by_hand, in_words, report_in_short
from examples.demo.figures import Figures, Kill
from examples.demo.processes import Cluster

FLAG_URL = "http://127.0.0.1:8013/api/v1/flags/new-checkout/environments/production"
KILL = Kill("kill-1", 1.0, "guard", "it hurts", {"id": "ev-1"}, {}, {})
FIGURES = Figures(
    scenario="faulty",
    requests={"old": 3_000, "new": 500},
    unanswered=0,
    errors_from_before=90,
    failed_by_flag=40,
    killed=True,
    seconds_to_kill=3.25,
    requests_to_kill={"old": 400, "new": 150},
    decision_to_last_process_ms=8.4,
)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.admin_token = "fr_admin_secret"
    made.shops = {"shop-1": "http://127.0.0.1:5001"}
    return made


def commands(lines: list[str]) -> list[list[str]]:
    """Split the lines of the shell as the shell does."""
    return [shlex.split(line, comments=True) for line in lines if line.startswith("  ")]


def bodies(lines: list[str]) -> list[object]:
    return [
        json.loads(words[words.index("-d") + 1].rstrip(";"))
        for words in commands(lines)
        if "-d" in words
    ]


def test_after_a_kill_one_can_read_the_report_restore_and_mend(cluster: Cluster) -> None:
    lines = list(by_hand(cluster, FLAG_URL, KILL))

    assert [f"FLAG={FLAG_URL}"] in commands(lines)
    assert ["AUTH=Authorization: Bearer fr_admin_secret"] in commands(lines)
    assert any("$FLAG/evidence/ev-1?format=text" in words for words in commands(lines))
    assert bodies(lines) == [{"kill": "kill-1", "reason": "to see what happens"}, {"share": 0}]


def test_the_report_is_shown_as_far_as_its_table(cluster: Cluster) -> None:
    page = "title\n=====\n\n  why\n\nSEEN\n  eleven\n\n   on  off\n\nSURE\n"
    text = "\n".join(report_in_short(replace(KILL, page=page)))

    assert "title" in text
    assert "on  off" in text
    assert "SURE" not in text


def test_a_flag_that_was_not_killed_can_be(cluster: Cluster) -> None:
    lines = list(by_hand(cluster, FLAG_URL, None))

    assert any("$FLAG/kill?wait_s=5" in words for words in commands(lines))
    assert bodies(lines) == [{"reason": "to see it"}]


def test_the_closing_lines_say_what_was_measured() -> None:
    text = "\n".join(in_words(FIGURES))

    for figure in ("3,500", "500", "90", "3.25 s", "550", "150", "8.4 ms", "40"):
        assert figure in text


def test_without_a_kill_there_is_nothing_to_say_about_one() -> None:
    text = "\n".join(in_words(replace(FIGURES, killed=False)))

    assert "killed" in text
    assert "decision" not in text
