"""The benchmark beside peers: its check of answers, and the contenders that are installed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import workload
from benchmarks.peers.contenders import CONTENDERS

REPOSITORY = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"

Answers = dict[str, dict[str, bool]]


def right_answers() -> Answers:
    """Return key → user → answer, a share being those whose number leaves a small rest."""
    users = workload.users()
    rest = {user["id"]: index / len(users) for index, user in enumerate(users)}
    return {
        workload.CHECKOUT: {user["id"]: rest[user["id"]] < 0.25 for user in users},
        workload.PRICING: {
            user["id"]: workload.meets_a_rule(user) or rest[user["id"]] < 0.10 for user in users
        },
    }


def faults(answers: Answers) -> list[str]:
    asked = [(user, user["id"]) for user in workload.users()]
    return workload.faults(lambda key, unit: answers[key][unit], asked)


def test_right_answers_have_no_faults() -> None:
    assert faults(right_answers()) == []


@pytest.mark.parametrize("key", [workload.CHECKOUT, workload.PRICING])
def test_a_wrong_share_is_a_fault(key: str) -> None:
    answers = right_answers()
    turned = 0
    for unit, is_on in answers[key].items():
        if not is_on and turned < workload.USERS // 20:
            answers[key][unit] = True
            turned += 1
    assert [fault.split(":")[0] for fault in faults(answers)] == [key]


def test_a_user_who_meets_a_rule_and_is_left_out_is_a_fault() -> None:
    answers = right_answers()
    user = next(user for user in workload.users() if workload.meets_a_rule(user))
    answers[workload.PRICING][user["id"]] = False
    (fault,) = faults(answers)
    assert fault == "pricing: off for 1 users who meet a rule"


def test_an_answer_that_changes_is_a_fault() -> None:
    answers, asked = right_answers(), []

    def is_on(key: str, unit: str) -> bool:
        asked.append(unit)
        return answers[key][unit] != (len(asked) == 3 * workload.USERS)

    found = workload.faults(is_on, [(user, user["id"]) for user in workload.users()])
    assert len(found) == 1
    assert "keep" in found[0]


@pytest.mark.parametrize("name", ["flagd-release", "OpenFeature in memory", "by hand"])
@pytest.mark.parametrize("recording", ["recording", "not recording"])
def test_a_contender_passes_the_check_and_is_timed(name: str, recording: str) -> None:
    assert name in CONTENDERS
    commands = "check\ntime 0.001 both flags\ntwo 0.001 both flags\n"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.worker", name, recording, NOBODY],
        cwd=REPOSITORY,
        input=commands,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (_, _), wrong, (alone,), (together,) = map(json.loads, done.stdout.splitlines())
    assert wrong == []
    assert 0 < alone < 0.01
    assert 0 < together < 0.01
