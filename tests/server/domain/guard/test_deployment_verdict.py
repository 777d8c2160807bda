"""What the verdicts on the flags of a deployment come to together: rule by rule."""

from dataclasses import replace

import pytest

from flagd_server.domain.guard.deployment_verdict import (
    CountedBy,
    FlagFinding,
    ServiceFinding,
    judge_deployment,
    killed_finding,
)
from flagd_server.domain.guard.verdict_table import VersionEffect, Word
from flagd_server.stats.two_sample import Window, compare

OLD = FlagFinding("old", Word.CANNOT_TELL, None, "too little", True, False)
NEW = replace(OLD, flag="new", was_brought=True)
NEITHER = replace(NEW, word=Word.NEITHER, reason="harmless")


def service(newer: int, older: int, *, is_without_killed: bool = False) -> ServiceFinding:
    """Return sixty minutes in which so many of 1,000 units failed."""
    windows = [Window(60.0 * n, ((1_000, newer, 1_000, older),)) for n in range(60)]
    return ServiceFinding("v1", "old", CountedBy.UNITS, is_without_killed, compare(windows))


WORSE, SAME, BETTER, UNKNOWN = service(9, 1), service(9, 9), service(1, 9), service(0, 0)


def test_the_comparisons_are_what_they_are_called() -> None:
    effects = [each.effect for each in (WORSE, SAME, BETTER, UNKNOWN)]
    assert effects == [
        VersionEffect.WORSE,
        VersionEffect.SAME,
        VersionEffect.BETTER,
        VersionEffect.UNKNOWN,
    ]


@pytest.mark.parametrize(
    ("flags", "compared", "word"),
    [
        ([], None, Word.CANNOT_TELL),
        ([], SAME, Word.NEITHER),
        ([], WORSE, Word.VERSION),
        ([OLD], SAME, Word.NEITHER),
        ([NEW], SAME, Word.CANNOT_TELL),
        ([NEW], BETTER, Word.CANNOT_TELL),
        ([NEW], WORSE, Word.VERSION),
        ([replace(NEW, is_tossed=False)], SAME, Word.NEITHER),
        ([NEITHER], SAME, Word.NEITHER),
        ([NEITHER], BETTER, Word.NEITHER),
        ([NEITHER], None, Word.NEITHER),
        ([NEITHER], UNKNOWN, Word.CANNOT_TELL),
        ([replace(OLD, word=Word.VERSION, version="v2")], UNKNOWN, Word.VERSION),
        ([replace(OLD, word=Word.VERSION, version="v1")], BETTER, Word.NEITHER),
        ([replace(NEW, word=Word.FLAG)], SAME, Word.FLAG),
        ([replace(OLD, word=Word.FLAG), NEITHER], SAME, Word.FLAG),
        # Another flag, or all requests, see the flag's own doing as the version's.
        ([replace(NEW, word=Word.FLAG)], WORSE, Word.FLAG),
        (
            [replace(NEW, word=Word.FLAG), replace(OLD, word=Word.VERSION, version="v2")],
            WORSE,
            Word.FLAG,
        ),
        ([replace(NEW, word=Word.BOTH, version="v2")], UNKNOWN, Word.BOTH),
        ([replace(NEW, word=Word.BOTH, version="v1")], UNKNOWN, Word.FLAG),
        ([replace(OLD, word=Word.FLAG_HERE, version="v2")], SAME, Word.FLAG_HERE),
        ([replace(OLD, word=Word.FLAG_HERE, version="v1")], SAME, Word.NEITHER),
        (
            [replace(OLD, word=Word.FLAG_HERE, version="v2"), replace(NEW, word=Word.FLAG)],
            SAME,
            Word.FLAG,
        ),
    ],
)
def test_the_word(flags: list[FlagFinding], compared: ServiceFinding | None, word: Word) -> None:
    verdict = judge_deployment("v2", flags, compared)
    assert verdict.word is word, verdict
    assert all(verdict.reasons)
    assert verdict.reasons


def test_once_the_flag_is_off_what_remains_is_the_versions() -> None:
    killed = replace(NEW, word=Word.FLAG, evidence="ev-1")
    since = service(9, 1, is_without_killed=True)
    assert judge_deployment("v2", [killed], since).word is Word.BOTH
    assert judge_deployment("v2", [killed], WORSE).word is Word.FLAG
    alive = replace(OLD, word=Word.FLAG)
    assert judge_deployment("v2", [killed, alive], since).word is Word.FLAG
    calm = service(9, 9, is_without_killed=True)
    assert judge_deployment("v2", [killed], calm).word is Word.FLAG


def test_what_came_with_a_bad_version_and_has_no_control_is_named() -> None:
    verdict = judge_deployment("v2", [replace(NEW, is_tossed=False)], WORSE)
    assert "turning that off would tell" in verdict.reasons[-1]
    assert "new" in verdict.reasons[-1]


def report(word: Word, version: str | None = None, newer: str = "v2") -> dict:
    pair = {"service": "shop", "verdict": word.value, "version": version}
    return {
        "id": "ev-1",
        "decision": {"reason": "12 of 13 failing units had it"},
        "versions": [{**pair, "newer": newer, "older": "v1"}],
    }


@pytest.mark.parametrize(
    ("document", "word", "hurts"),
    [
        (report(Word.CANNOT_TELL), Word.FLAG, True),
        (report(Word.VERSION, "v2"), Word.FLAG, True),
        (report(Word.BOTH, "v2"), Word.BOTH, True),
        (report(Word.FLAG_HERE, "v2"), Word.FLAG_HERE, True),
        (report(Word.FLAG_HERE, "v1"), Word.FLAG_HERE, False),
    ],
)
def test_what_the_guard_killed_was_at_fault(document: dict, word: Word, hurts: bool) -> None:
    finding = killed_finding("new", "v2", "shop", document, was_brought=True)
    assert finding is not None
    assert (finding.word, finding.hurts("v2")) == (word, hurts)


def test_a_kill_without_a_failing_unit_of_the_version_says_nothing_of_it() -> None:
    assert killed_finding("new", "v3", "shop", report(Word.FLAG), was_brought=True) is None
    assert killed_finding("new", "v2", "till", report(Word.FLAG), was_brought=True) is None
