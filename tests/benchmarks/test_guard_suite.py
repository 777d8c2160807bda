"""The suite of the guard: its rows, its file of results, its tables."""

import json
from math import inf
from pathlib import Path

import pytest

from benchmarks import guard
from benchmarks._harness import Row, informs
from benchmarks.guard import __main__ as program
from benchmarks.guard.cases import CASES, Group
from benchmarks.guard.lives import GUARD, PEERS, Job, Life, Results, ResultsError, run_life
from benchmarks.guard.table import Line, as_rows, lines, markdown

PLAIN = next(case for case in CASES if case.name == "plain")
FRESH = next(case for case in CASES if case.name == "fresh, new kind, 5.0% ×1.5")
LATE = next(case for case in CASES if case.name.startswith("after 24 h"))
RECORDED = next(case for case in CASES if case.real_share == 25)


def life(case: str, seed: int, end: float | None, peer: float | None = None) -> Life:
    return Life(case, seed, {GUARD: end, **dict.fromkeys(PEERS, peer)})


def test_every_row_has_a_name_of_its_own_and_a_scenario_or_recorded_traffic() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all((case.scenario is None) != (case.real_share is None) for case in CASES)


def test_a_scenario_is_named_as_its_row_so_that_rows_draw_different_lives() -> None:
    assert all(case.scenario.name == case.name for case in CASES if case.scenario is not None)


def test_every_false_kill_row_has_a_goal_and_every_delay_a_bound() -> None:
    for case in CASES:
        if case.group is Group.DELAY:
            assert 0.0 < case.bound_s < inf
        else:
            assert case.goal is not None


@pytest.mark.parametrize("case", [FRESH, RECORDED], ids=lambda case: case.name)
def test_a_life_is_judged_by_the_guard_and_its_peers(case: program.Case) -> None:
    found = run_life(Job(case.name, 0))
    assert found == run_life(Job(case.name, 0))
    assert tuple(found.killed_after_s) == (GUARD, *PEERS)
    alone = run_life(Job(case.name, 0, with_peers=False))
    assert alone.killed_after_s == {GUARD: found.killed_after_s[GUARD]}


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lives.jsonl"
    jobs = [Job("plain", seed) for seed in range(3)]
    Results(path).add(life("plain", 1, None))
    with path.open("a") as file:
        file.write('{"case": "plain", "se')
    again = Results(path)
    assert again.lives == [life("plain", 1, None)]
    assert [job.seed for job in again.missing(jobs)] == [0, 2]
    again.add(life("plain", 2, 5.0))
    assert Results(path).lives == [life("plain", 1, None), life("plain", 2, 5.0)]


def test_results_of_other_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lives.jsonl"
    path.write_text(json.dumps({"code": "another"}) + "\n")
    with pytest.raises(ResultsError, match="was written by other code"):
        Results(path)


def test_false_kills_are_told_with_their_bound() -> None:
    (line,) = lines([life("plain", seed, 9.0 if seed == 0 else None) for seed in range(100)])
    assert line.spoken(GUARD) == "1 (≤ 4.7 %)"
    assert line.spoken(PEERS[0]) == "0 (≤ 3 %)"
    assert (line.goal, line.verdict) == ("≤ 0.1 %", "MISSED")


def test_a_delay_is_the_median_of_the_lives_that_were_not_killed_before() -> None:
    bound = LATE.bound_s
    ends = [-50.0, 0.5 * bound, 1.0 * bound, None]
    line = Line(LATE, [life(LATE.name, seed, end) for seed, end in enumerate(ends)])
    assert line.spoken(GUARD) == "1.00 ×, 25% killed before"
    assert line.spoken(PEERS[0]) == "not found"
    before = Line(LATE, [life(LATE.name, 0, 0.5 * bound, -1.0)])
    assert before.spoken(PEERS[0]) == "all killed before"
    assert (before.goal, before.verdict) == ("≤ 0.8 ×", "ok")


def test_a_group_without_lives_has_no_table() -> None:
    text = markdown(lines([life("plain", 0, None)]))
    assert [row for row in text.splitlines() if row.startswith("### ")] == [
        "### False kills, at most alpha"
    ]
    assert "| plain | 1 | 0 (≤ 95 %) | ≤ 0.1 % | ok | 0 (≤ 95 %)" in text


def test_the_benchmarks_show_the_guard_alone() -> None:
    (row,) = as_rows(lines([Life(FRESH.name, 0, {GUARD: FRESH.bound_s})]))
    assert row.name == "fault fresh, new kind, 5.0% ×1.5: delay, 1 runs"
    assert (row.figure, row.goal, row.ok) == (1.0, "≤ 0.65", False)


def test_the_quick_run_measures_costs_and_a_few_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = informs("cost", 1.0, "µs")
    monkeypatch.setattr(guard, "costs", lambda small: [cost])
    monkeypatch.setattr(guard, "sizes", list)
    monkeypatch.setattr(guard, "beat", lambda small: [])
    monkeypatch.setattr(guard, "CASES", (FRESH, RECORDED))
    rows = guard.run(small=True)
    assert [row.name for row in rows] == [
        "cost",
        "false kills: recorded traffic, share 25 %",
        "fault fresh, new kind, 5.0% ×1.5: delay, 3 runs",
    ]
    assert rows[1] == Row(rows[1].name, 0.0, "% of 2", "≤ 0.1", ok=True)


def test_the_whole_run_writes_its_section_and_keeps_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, kept = tmp_path / "RESULTS.md", tmp_path / "lives.jsonl"
    report.write_text("# Benchmarks\n\n## guard\n\nquick\n")
    arguments = ["--rows", "recorded traffic, share 5 %", "--workers", "1"]
    arguments += ["--results", str(kept), "--write", str(report)]
    assert program.main([*arguments, "--lives", "2"]) == 0
    assert program.main([*arguments, "--lives", "3"]) == 0
    assert len(kept.read_text().splitlines()) == 1 + 3
    text = report.read_text("utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## guard",
        "## guard, whole run",
    ]
    assert "| recorded traffic, share 5 % | 3 |" in text
    assert "| recorded traffic, share 5 % | 3 |" in capsys.readouterr().out


def test_rows_that_do_not_exist_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--rows", "nonsense"]) == 2
    assert "no row's name contains any of ['nonsense']" in capsys.readouterr().err
