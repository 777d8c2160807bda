import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as program
from benchmarks._harness import (
    Row,
    at_least,
    at_most,
    informs,
    interleaved,
    ratio,
    rewrite,
    rows_as_json,
)

ROWS = [at_most("slow", 2.0, "×", 2.5), informs("floor", 1234.5, "ns")]
MISSED = [at_least("threads", 0.5, "×", 0.95)]


def test_a_row_is_held_to_its_goal() -> None:
    assert at_most("a", 2.5, "×", 2.5) == Row("a", 2.5, "×", "≤ 2.5", ok=True)
    assert not at_most("a", 2.51, "×", 2.5).ok
    assert at_least("a", 0.95, "×", 0.95).ok
    assert not at_least("a", 0.94, "×", 0.95).ok


def test_subjects_take_turns_after_a_first_time_that_does_not_count() -> None:
    order: list[str] = []

    def subject(name: str) -> float:
        order.append(name)
        return float(len(order))

    times = interleaved({name: lambda name=name: subject(name) for name in "ab"}, 2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert times == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_ratio_leaves_out_the_rounds_in_which_others_were_busy() -> None:
    floor = [1.0, 1.0, 1.0, 5.0, 9.0]
    assert ratio([2.0, 2.0, 3.0, 50.0, 9.0], floor) == 2.0


def draw_name(rows: list[Row], path: Path) -> None:
    path.write_text(rows[0].name)


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "benchmarks.evaluation": SimpleNamespace(__doc__="First.", run=lambda small: ROWS),
        "benchmarks.propagation": SimpleNamespace(__doc__="Second.", run=lambda small: MISSED),
        "benchmarks.load": SimpleNamespace(
            __doc__="Drawn.", run=lambda small: [ROWS[1]], plot=draw_name
        ),
        "benchmarks.guard": SimpleNamespace(__doc__="Third.", run=lambda small: [ROWS[1]]),
    }
    monkeypatch.setattr(program, "import_module", found.__getitem__)


@pytest.mark.usefixtures("benchmarks")
def test_the_goal_stands_beside_each_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["evaluation", "--json"]) == 0
    *table, last = capsys.readouterr().out.strip().splitlines()
    assert [line.split() for line in table[2:]] == [
        ["slow", "2", "×", "≤", "2.5", "ok"],
        ["floor", "1,234", "ns"],
    ]
    assert last == rows_as_json(ROWS)
    assert [*json.loads(last)[0]] == ["name", "figure", "unit", "goal", "ok"]


@pytest.mark.usefixtures("benchmarks")
def test_a_goal_missed_is_told_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["propagation"]) == 0
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.usefixtures("benchmarks")
def test_all_of_them_go_into_one_report(tmp_path: Path) -> None:
    report = tmp_path / "RESULTS.md"
    assert program.main(["all", "--small", "--write", str(report)]) == 0
    text = report.read_text("utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Benchmarks",
        "## evaluation",
        "## propagation",
        "## load",
        "## guard",
    ]
    assert "![load](load.svg)" in text
    assert (tmp_path / "load.svg").read_text() == "floor"
    assert "| slow | 2 × | ≤ 2.5 | ok |" in text
    assert "small run" in text


def test_a_section_is_made_anew_and_the_others_stay_in_place() -> None:
    report = "# Old\n\n## one\n\nfirst\n\n### part\n\n## two\n\nsecond\n"
    assert rewrite(report, {"one": "new"}) == "# Old\n\n## one\n\nnew\n\n## two\n\nsecond\n"
    assert rewrite(report, {"three": "third"}, "# New").startswith("# New\n\n## one\n\nfirst\n")
    assert rewrite("", {"one": "first"}) == "## one\n\nfirst\n"


def test_floor_and_subject_take_the_same_decisions() -> None:
    """A floor that decided otherwise would be no floor."""
    from benchmarks import _flags
    from flagd_sdk.core.evaluator import evaluate
    from flagd_sdk.core.parsing import parse_flag_set

    flags = parse_flag_set(
        _flags.flag_set_document([_flags.boolean_flag("flag-0"), _flags.rules_flag("rules-0")])
    )
    served = set()
    for context in _flags.users(2000):
        on = _flags.boolean_by_hand("flag-0", str(context["targetingKey"]))
        assert evaluate(flags, "flag-0", False, context).value is on
        details = evaluate(flags, "rules-0", "", context)
        assert details.value == _flags.rules_by_hand(context)
        served.add((details.reason, details.variant))
    assert len(served) == 7  # three rules, four variants
