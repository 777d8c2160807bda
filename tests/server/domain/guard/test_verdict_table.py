from itertools import product
from math import comb

import pytest

from flagd_server.domain.guard.verdict_table import (
    HARM_BAR,
    REFUTED_BAR,
    TABLE,
    Findings,
    FlagEffect,
    VersionCoin,
    VersionEffect,
    Word,
    effect_of_version,
    find_row,
)
from flagd_server.stats.two_sample import Window, compare

HARMS, HARMLESS = FlagEffect.HARMS, FlagEffect.HARMLESS
UNKNOWN, ABSENT = FlagEffect.UNKNOWN, FlagEffect.ABSENT
WORSE, BETTER, SAME = VersionEffect.WORSE, VersionEffect.BETTER, VersionEffect.SAME
UNSEEN, ALONE = VersionEffect.UNKNOWN, VersionEffect.ABSENT

# One line for each row of the table, and what it must not be mistaken for.
EXPECTED = [
    (HARMS, UNKNOWN, WORSE, WORSE, Word.BOTH),
    (HARMS, HARMS, BETTER, UNSEEN, Word.BOTH),
    (HARMS, HARMS, SAME, SAME, Word.FLAG),
    (HARMS, HARMS, UNSEEN, WORSE, Word.FLAG),
    (HARMS, HARMLESS, UNSEEN, UNSEEN, Word.FLAG_HERE),
    (HARMS, UNKNOWN, UNSEEN, WORSE, Word.FLAG_HERE),
    (HARMS, UNKNOWN, SAME, WORSE, Word.FLAG_HERE),
    (HARMS, ABSENT, ALONE, ALONE, Word.FLAG),
    (HARMS, UNKNOWN, UNSEEN, SAME, Word.FLAG),
    (HARMS, UNKNOWN, UNSEEN, UNSEEN, Word.FLAG),
    (HARMLESS, HARMLESS, WORSE, WORSE, Word.VERSION),
    (UNKNOWN, UNKNOWN, WORSE, WORSE, Word.VERSION),
    (HARMLESS, UNKNOWN, UNSEEN, WORSE, Word.VERSION),
    (ABSENT, ABSENT, UNSEEN, WORSE, Word.VERSION),
    (HARMLESS, UNKNOWN, UNSEEN, SAME, Word.NEITHER),
    (HARMLESS, ABSENT, ALONE, ALONE, Word.NEITHER),
    (HARMLESS, HARMLESS, UNSEEN, UNSEEN, Word.CANNOT_TELL),
    (UNKNOWN, HARMLESS, SAME, SAME, Word.CANNOT_TELL),
    (UNKNOWN, UNKNOWN, UNSEEN, WORSE, Word.CANNOT_TELL),
    (ABSENT, ABSENT, SAME, SAME, Word.CANNOT_TELL),
    (ABSENT, ABSENT, ALONE, ALONE, Word.CANNOT_TELL),
]


@pytest.mark.parametrize(("here", "there", "off", "fixed", "word"), EXPECTED)
def test_the_verdict_is_the_tables(
    here: FlagEffect, there: FlagEffect, off: VersionEffect, fixed: VersionEffect, word: Word
) -> None:
    assert find_row(Findings(here, there, off, fixed)).word is word


def test_every_row_of_the_table_is_held_by_a_case() -> None:
    held = {find_row(Findings(*case[:4])) for case in EXPECTED}
    assert held == set(TABLE)


def test_nothing_is_blamed_or_cleared_without_a_finding_that_says_so() -> None:
    for findings in map(Findings._make, product(FlagEffect, FlagEffect, *[VersionEffect] * 2)):
        word = find_row(findings).word
        if word in (Word.FLAG, Word.FLAG_HERE, Word.BOTH):
            assert findings.flag_here is HARMS
        if word in (Word.VERSION, Word.BOTH):
            assert {findings.flag_off, findings.flag_fixed} & {WORSE, BETTER}
        if word is Word.NEITHER:
            assert findings.flag_here is HARMLESS
            assert findings.flag_fixed in (SAME, ALONE)


def test_the_words_are_those_of_the_contract() -> None:
    assert [str(word) for word in Word] == [
        "flag",
        "version",
        "both",
        "flag on this version only",
        "neither",
        "cannot tell yet",
    ]


def test_a_coin_with_enough_evidence_harms() -> None:
    assert VersionCoin(HARM_BAR, 12, 1, 0.25).effect is HARMS
    assert VersionCoin(HARM_BAR - 1, 12, 1, 0.25).effect is UNKNOWN


@pytest.mark.parametrize(
    ("treated", "spared", "share", "effect"),
    [
        (0, 0, 0.0, UNKNOWN),
        # (1 + s)^n / 2^treated at s = 1/2: 1.5^8 = 25.6 refutes a doubling, 1.5^7 = 17.1 does not.
        (0, 8, 0.5, HARMLESS),
        (0, 7, 0.5, UNKNOWN),
        (1, 8, 0.5, UNKNOWN),
        (15, 45, 0.25, UNKNOWN),
        (16, 48, 0.25, HARMLESS),
        (32, 32, 0.25, UNKNOWN),
    ],
)
def test_a_coin_is_harmless_where_a_doubling_is_refuted(
    treated: int, spared: int, share: float, effect: FlagEffect
) -> None:
    assert VersionCoin(1.0, treated, spared, share).effect is effect


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("units", [5, 40, 150])
def test_a_doubling_is_cleared_with_a_probability_of_one_in_twenty_at_most(
    share: float, units: int
) -> None:
    doubled = 2 * share / (1 + share)
    wrong = sum(
        comb(units, treated) * doubled**treated * (1 - doubled) ** (units - treated)
        for treated in range(units + 1)
        if VersionCoin(1.0, treated, units - treated, share).effect is HARMLESS
    )
    assert wrong <= 1 / REFUTED_BAR


@pytest.mark.parametrize(
    ("stratum", "effect"),
    [
        ((500, 5, 500, 0), WORSE),
        ((500, 0, 500, 5), BETTER),
        ((500, 5, 500, 5), SAME),
        ((500, 0, 500, 0), UNSEEN),
    ],
)
def test_the_effect_of_a_version(stratum: tuple[int, int, int, int], effect: VersionEffect) -> None:
    windows = [Window(60.0 * k, (stratum,)) for k in range(30)]
    assert effect_of_version(compare(windows)) is effect
    assert effect_of_version(compare(windows[:1])) is UNSEEN


def test_an_effect_is_reversed_as_seen_from_the_other() -> None:
    assert [effect.reversed() for effect in (WORSE, BETTER, SAME, UNSEEN, ALONE)] == [
        BETTER,
        WORSE,
        SAME,
        UNSEEN,
        ALONE,
    ]
