"""What must agree: an e-process of its own, whatever names the errors take."""

from collections.abc import Callable
from itertools import product
from math import exp

import pytest

from flagd_sdk.core.guard.agreement import Agreement
from flagd_sdk.core.guard.tosses import Toss, TossLog

ALL_HASHES = 1 << 64
UNITS = 10
SHARES = (0.25, 0.25, 0.5, 0.25, 0.1, 0.25, 0.5, 0.25, 0.9, 0.25)
NEW, OLD, OTHER = 0, 1, 2

Naming = Callable[[int, bool], int]
"""(unit, is in the treatment) → the kind under which it fails."""


def log_of(
    sides: tuple[bool, ...],
    kind_of: Naming,
    per_batch: int = 1,
    shares: tuple[float, ...] = (0.25,),
) -> TossLog:
    log = TossLog()
    for start in range(0, len(sides), per_batch):
        batch = start // per_batch
        log.add_batch(
            float(batch),
            0.4,
            [
                Toss(batch, n, kind_of(n, sides[n]), int(sides[n]), shares[n % len(shares)], 0, 0)
                for n in range(start, min(start + per_batch, len(sides)))
            ],
        )
    return log


def heard(log: TossLog, kind: int | None = NEW, began: float = 0.0) -> Agreement:
    agreement = Agreement.since(began, kind, log, ALL_HASHES)
    agreement.catch_up(log)
    return agreement


def nothing(unit: int, in_treatment: bool) -> int:
    return OLD if unit % 2 else OTHER


def everything(unit: int, in_treatment: bool) -> int:
    return NEW if in_treatment else OLD


def every_other_error(unit: int, in_treatment: bool) -> int:
    return NEW if in_treatment and unit % 2 else OLD


def one_kind(unit: int, in_treatment: bool) -> int:
    return NEW if in_treatment and unit % 3 == 0 else unit % 3


@pytest.mark.parametrize("naming", [nothing, everything, every_other_error, one_kind])
@pytest.mark.parametrize("per_batch", [1, 3])
@pytest.mark.parametrize("kind", [None, NEW, OLD])
def test_in_the_mean_it_is_one_whatever_changed_its_name(
    naming: Naming, per_batch: int, kind: int | None
) -> None:
    mean = 0.0
    for sides in product((False, True), repeat=UNITS):
        probability = 1.0
        for share, in_treatment in zip(SHARES, sides, strict=True):
            probability *= share if in_treatment else 1.0 - share
        agreement = heard(log_of(sides, naming, per_batch, SHARES), kind)
        assert agreement.coin <= exp(agreement.log_coin)
        mean += probability * exp(agreement.log_coin)
    assert mean == pytest.approx(1.0)


@pytest.mark.parametrize("bar", [2.0, 6.0])
@pytest.mark.parametrize("naming", [everything, every_other_error, one_kind])
def test_the_chance_of_ever_reaching_a_bar_is_at_most_one_in_it(naming: Naming, bar: float) -> None:
    reached = 0.0
    for sides in product((False, True), repeat=UNITS):
        log = log_of(sides, naming, 1, SHARES)
        agreement, parts, highest = heard(TossLog()), TossLog(), 0.0
        probability = 1.0
        for toss in log:
            parts.add_batch(float(toss.batch), 0.4, [toss])
            agreement.catch_up(parts)
            highest = max(highest, agreement.log_coin)
            probability *= toss.share if toss.in_treatment else 1.0 - toss.share
        reached += probability * (exp(highest) >= bar)
    assert 0.0 < reached <= 1.0 / bar


def test_the_more_exposures_explain_the_less_is_left() -> None:
    agreement = heard(log_of((True, True, True, False) * 2, nothing), None)
    assert agreement.coin > 1.0
    assert agreement.rate < agreement.coin


def test_a_new_kind_among_errors_that_stay_agrees_sooner_than_names_that_changed() -> None:
    """By the total alone, which is the same, it could not be told."""
    sides = (True, True, False) * 8
    added = log_of(sides, lambda n, on: NEW if on and n % 3 == 0 else OLD)
    assert heard(added).coin > heard(log_of(sides, everything)).coin


def test_what_the_old_names_lack_counts_against_a_new_one() -> None:
    """Three of three with the new name; of the nine with old ones a quarter should be treated."""
    sides = (True, False, False, False) * 3
    balanced = log_of((True, *sides), lambda n, on: NEW if n == 0 else OLD)
    lacking = log_of(sides, everything)
    assert heard(balanced).coin == pytest.approx(exp(heard(balanced).log_coin))
    assert heard(lacking).coin < 0.2 * exp(heard(lacking).log_coin)


def test_a_unit_is_heard_once_from_where_the_evidence_began() -> None:
    log = log_of((True, False, True), nothing)
    log.add_batch(3.0, 0.4, [Toss(3, 0, OLD, 1, 0.25, 0, 0), Toss(3, 2, OLD, 1, 0.25, 0, 0)])
    whole, later = heard(log), heard(log, began=2.0)
    assert sum(whole.found.values()) == 2
    assert sum(later.found.values()) == 2
    assert not later.spared


def test_fed_in_parts_it_has_the_same_bits() -> None:
    sides = (True, False, True, True, False, False, True, True)
    log, parts = TossLog(), Agreement.since(0.0, NEW, TossLog(), ALL_HASHES)
    for toss in log_of(sides, everything):
        log.add_batch(float(toss.batch), 0.4, [toss])
        parts.catch_up(log)
    whole = heard(log)
    assert (parts.log_coin, parts.log_rate) == (whole.log_coin, whole.log_rate)


def test_it_stays_finite() -> None:
    log = TossLog()
    tosses = [Toss(0, n, NEW, 1, 0.01, 0, 0) for n in range(3_000)]
    log.add_batch(0.0, 0.01, tosses[:1_000])
    log.add_batch(1.0, 0.01, [t._replace(batch=1) for t in tosses[1_000:]])
    assert heard(log).coin < 1e150
