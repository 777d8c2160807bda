import json

import pytest

from flagd_server.cli import main
from flagd_server.domain.stages import DEFAULT_STAGES

QUICK = [
    "--users",
    "2000",
    "--lives",
    "3",
    "--healthy-lives",
    "1",
    "--hours",
    "0.5",
    "--workers",
    "1",
]


def test_a_row_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *QUICK, "--ratio", "8", "--stages", "25,50%"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2,000 users, 50 requests a second; errors of a kind of its own, ×8")
    rows = [line for line in lines if "0 of 3" in line]
    assert [row.split()[0] for row in rows] == ["25", "50"]
    assert "a healthy flag" in lines[-1].lower()


def test_the_same_question_has_the_same_answer(capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for workers in ("1", "2"):
        assert main(["simulate", *QUICK, "--ratio", "8", "--json", "--workers", workers]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    (stage,) = answers[0]["stages"]
    assert stage["share"] == 25.0
    assert stage["killed"] == 3
    assert 0 < stage["users"]["median"] <= stage["failed"]["median"]
    assert stage["false_kills"] == 0


def test_the_default_stages_keep_a_holdback(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*QUICK, "--lives", "1", "--healthy-lives", "0", "--hours", "0.1", "--json"]
    assert main(["simulate", *options, "--stages"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert tuple(stage["share"] for stage in stages) == DEFAULT_STAGES
    assert max(DEFAULT_STAGES) < 100.0


def test_a_harm_budget_ends_a_fault_that_evidence_alone_would_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed = []
    options = [*QUICK, "--kind", "old", "--ratio", "1.5", "--share", "50", "--json"]
    for budget in ([], ["--harm-budget", "20"]):
        assert main(["simulate", *options, "--alpha", "1e-9", *budget]) == 0
        (stage,) = json.loads(capsys.readouterr().out)["stages"]
        killed.append(stage["killed"])
    assert killed == [0, 3]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--base", "0", "--base: expected a number above 0, at most 99.99, got '0'"),
        ("--share", "100", "--share: expected a number above 0, at most 99.99, got '100'"),
        ("--stages", "1,x", "--stages: expected a number above 0, at most 99.99, got 'x'"),
        ("--ratio", "1", "--ratio: expected a number above 1, at most 10000, got '1'"),
        ("--users", "1", "--users: expected a whole number from 2, got '1'"),
        ("--alpha", "nan", "--alpha: expected a number above 0, at most 1, got 'nan'"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(
    option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", option, value])
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
