"""Gates as a pipeline asks them: the answers are those of the contract (`GateVerdict`)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.flagctl_process import Flagctl
from tests.sdk.ctl.answering_server import Answer, AnsweringServer, problem


class Gates(AnsweringServer):
    """One gate that says these words one after the other, and the last of them again and again.

    A word "away" is a server that is not there just now.
    """

    words: tuple[str, ...] = ("healthy",)

    def answers(self, method: str, path: str) -> Answer:
        """Answer as the API does."""
        if not path.startswith("/api/v1/environments/production/gates/go"):
            return problem(404)
        if method == "POST":
            return 200, {}, json.dumps({"gate": "go"}).encode()
        asked = sum(path.endswith("/verdict") for _, path, _ in self.asked)
        word = self.words[min(asked, len(self.words)) - 1]
        if word == "away":
            return problem(503)
        reasons = [{"check": "slo", "verdict": word, "detail": f"the budget is {word}"}]
        document = {
            "gate": "go",
            "environment": "production",
            "verdict": word,
            "reasons": reasons,
            "at": "2026-03-01T12:00:00.000Z",
        }
        return 200, {}, json.dumps(document).encode()


@pytest.fixture
def gates() -> Iterator[Gates]:
    with Gates() as running:
        yield running


@pytest.fixture
def ctl(gates: Gates, tmp_path: Path) -> Flagctl:
    return Flagctl(gates.url, "fr_deploy_x", tmp_path)


@pytest.mark.parametrize(("word", "code"), [("healthy", 0), ("unhealthy", 1), ("inconclusive", 5)])
def test_the_exit_status_is_the_verdict(ctl: Flagctl, gates: Gates, word: str, code: int) -> None:
    gates.words = (word,)
    done = ctl.run("gate", "go", "--json")
    assert (done.code, done.document["verdict"]) == (code, word)
    assert done.err == ""


def test_it_is_waited_for_until_it_knows(ctl: Flagctl, gates: Gates) -> None:
    gates.words = ("inconclusive", "inconclusive", "away", "inconclusive", "healthy")
    done = ctl.run("gate", "go", "--wait", "--interval", "0.05s")
    assert done.code == 0
    assert "healthy" in done.out
    assert done.err.count("slo: the budget is inconclusive") == 1, "what is the same is said once"
    assert done.err.count("so it is") == 1
    gates.asked.clear()
    gates.words = ("inconclusive", "unhealthy", "healthy")
    assert ctl.run("gate", "go", "--wait", "--interval", "0.05s").code == 1


def test_the_time_is_up_when_nobody_can_tell(ctl: Flagctl, gates: Gates) -> None:
    gates.words = ("inconclusive",)
    done = ctl.run("gate", "go", "--wait", "--timeout", "0.2s", "--interval", "0.05s", "--json")
    assert (done.code, done.document["verdict"]) == (5, "inconclusive")
    gates.words = ("away",)
    assert ctl.run("gate", "go", "--wait", "--timeout", "0.2s", "--interval", "0.05s").code == 3


def test_a_person_approves_and_no_gate_is_healthy_by_absence(ctl: Flagctl, gates: Gates) -> None:
    assert ctl.run("gate", "go", "--approve", "looked at it").code == 0
    assert [(method, path.rpartition("/")[2]) for method, path, _ in gates.asked] == [
        ("POST", "approve"),
        ("GET", "verdict"),
    ]
    assert ctl.run("gate", "nope").code == 1
