import json
from math import comb, exp
from random import Random

import pytest

from flagd_sdk.core.guard.coin import AT_A_CHANGE
from flagd_server.stats.burn import (
    FAST_BURN,
    OBJECTIVE_MISSED,
    PRIOR,
    RATIOS,
    BurnTest,
    allowed_rate,
    burn_rate,
    log_factor,
)

HOUR_S = 3_600.0
# The mean over Poisson counts is summed up to here; what lies beyond is below 1e-12.
POISSON_UP_TO = 200


@pytest.mark.parametrize(
    ("budget_share", "window_s", "published"),
    [(0.02, HOUR_S, 14.4), (0.05, 6 * HOUR_S, 6.0), (0.10, 3 * 24 * HOUR_S, 1.0)],
)
def test_burn_rates_are_those_of_the_site_reliability_workbook(
    budget_share: float, window_s: float, published: float
) -> None:
    assert burn_rate(budget_share, window_s) == pytest.approx(published)


def test_the_fast_burn_of_an_objective_of_three_nines_is_1_44_per_cent() -> None:
    assert allowed_rate(0.999, FAST_BURN) == pytest.approx(0.0144)
    assert allowed_rate(0.999, OBJECTIVE_MISSED) == pytest.approx(0.001)


def test_the_bets_are_above_the_allowed_rate_and_whole() -> None:
    assert all(ratio > 1.0 for ratio in RATIOS)
    assert sum(PRIOR) == pytest.approx(1.0)
    assert len(PRIOR) == len(RATIOS)


@pytest.mark.parametrize("exposures", [1, 2, 3, 7, 20, 60])
@pytest.mark.parametrize("allowed", [0.0001, 0.001, 0.0144, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_factor_has_mean_at_most_one_over_independent_failures(
    exposures: int, allowed: float, part: float, ratio: float
) -> None:
    p = allowed * part
    mean = sum(
        comb(exposures, y)
        * p**y
        * (1 - p) ** (exposures - y)
        * exp(log_factor(exposures, y, allowed, ratio))
        for y in range(exposures + 1)
    )
    assert mean <= 1.0 + 1e-9


@pytest.mark.parametrize("exposures", [1, 30, 500])
@pytest.mark.parametrize("allowed", [0.0001, 0.001, 0.0144])
@pytest.mark.parametrize("ratio", [1.3, 2.0, 5.0])
def test_a_factor_has_mean_exactly_one_over_poisson_counts_at_the_allowed_rate(
    exposures: int, allowed: float, ratio: float
) -> None:
    chance, mean = exp(-exposures * allowed), 0.0
    for y in range(POISSON_UP_TO):
        mean += chance * exp(log_factor(exposures, y, allowed, ratio))
        chance *= exposures * allowed / (y + 1)
    assert mean == pytest.approx(1.0, abs=1e-9)


def test_the_mean_of_the_value_never_rises_above_one_over_all_courses_of_three_windows() -> None:
    n, d = 4, 0.2

    def mean_after(windows: int, counts: tuple[int, ...]) -> float:
        if len(counts) == windows:
            test = BurnTest.start(d, 0.0)
            for k, y in enumerate(counts):
                test.update(600.0 * k, n, y)
            return test.value
        return sum(
            comb(n, y) * d**y * (1 - d) ** (n - y) * mean_after(windows, (*counts, y))
            for y in range(n + 1)
        )

    means = [mean_after(windows, ()) for windows in range(4)]
    assert means[0] == 1.0
    assert all(mean <= 1.0 for mean in means)


def test_the_first_window_multiplies_the_bets_of_the_first_mass() -> None:
    test = BurnTest.start(0.001, 0.0)
    bets = sum(
        share * exp(log_factor(50, 3, 0.001, ratio))
        for share, ratio in zip(PRIOR, RATIOS, strict=True)
    )
    assert test.update(0.0, 50, 3) == pytest.approx(
        1 - AT_A_CHANGE.first + AT_A_CHANGE.first * bets
    )
    assert test.evidence.mass == AT_A_CHANGE.first
    test.update(60.0, 50, 0)
    assert test.evidence.mass == pytest.approx(
        AT_A_CHANGE.first + (1 - AT_A_CHANGE.first) * AT_A_CHANGE.elapsed(60.0)
    )


def failing(random: Random, exposures: int, rate: float) -> int:
    return sum(random.random() < rate for _ in range(exposures))


def test_a_service_that_meets_its_objective_exactly_is_rarely_said_to_burn() -> None:
    lives, fired = 200, 0
    for life in range(lives):
        random, test = Random(f"burn {life}"), BurnTest.start(0.02, 0.0)
        fired += any(test.update(60.0 * k, 50, failing(random, 50, 0.02)) >= 20 for k in range(120))
    assert fired <= 0.05 * lives


def test_a_breach_after_a_healthy_day_is_found_and_dated() -> None:
    random, test, day = Random("breach"), BurnTest.start(0.01, 0.0), 24 * 60
    for minute in range(day):
        test.update(60.0 * minute, 100, failing(random, 100, 0.005))
    assert test.value < 1.0
    minute = day
    while test.value < 1_000.0:
        test.update(60.0 * minute, 100, failing(random, 100, 0.10))
        minute += 1
    assert minute - day <= 6
    assert test.began is not None
    assert 0.0 <= test.began - 60.0 * day <= 60.0


def test_an_end_of_the_breach_is_noticed() -> None:
    test = BurnTest.start(0.01, 0.0)
    test.update(0.0, 100, 3)
    assert test.began == 0.0
    for minute in range(1, 120):
        test.update(60.0 * minute, 1_000, 0)
    assert test.began is None


def test_one_more_failure_never_lowers_the_value() -> None:
    for y in range(20):
        fewer, more = BurnTest.start(0.05, 0.0), BurnTest.start(0.05, 0.0)
        assert fewer.update(0.0, 20, y) < more.update(0.0, 20, y + 1)


def test_a_budget_that_nothing_burns_fast_enough_never_fires() -> None:
    test = BurnTest.start(allowed_rate(0.9, FAST_BURN), 0.0)
    for minute in range(60):
        test.update(60.0 * minute, 1_000, 1_000)
    assert test.value < 1.0


def test_an_endless_outage_stays_a_finite_number() -> None:
    test = BurnTest.start(0.001, 0.0)
    for minute in range(100):
        test.update(60.0 * minute, 10_000, 10_000)
    assert 1e100 < test.value < float("inf")


def test_a_window_without_exposures_says_nothing() -> None:
    test = BurnTest.start(0.001, 0.0)
    assert test.update(60.0, 0, 0) == 1.0
    assert test == BurnTest.start(0.001, 0.0)


def test_a_restart_continues_with_the_same_bits() -> None:
    whole, halves = BurnTest.start(0.01, 5.0), BurnTest.start(0.01, 5.0)
    for k in range(40):
        whole.update(60.0 * k + 5.0, 100 + k, k % 5)
        halves.update(60.0 * k + 5.0, 100 + k, k % 5)
        halves = BurnTest.from_document(json.loads(json.dumps(halves.to_document())))
    assert halves == whole


@pytest.mark.parametrize(("exposures", "count"), [(5, 6), (5, -1)])
def test_impossible_counts_are_refused(exposures: int, count: int) -> None:
    test = BurnTest.start(0.01, 0.0)
    with pytest.raises(ValueError, match=f"failing: expected 0 to {exposures}"):
        test.update(0.0, exposures, count)
    assert test == BurnTest.start(0.01, 0.0)


@pytest.mark.parametrize(
    ("objective", "burn", "message"),
    [
        (1.0, 1.0, "objective"),
        (0.0, 1.0, "objective"),
        (float("nan"), 1.0, "objective"),
        (0.9, 0.0, "burn"),
    ],
)
def test_an_objective_or_burn_rate_out_of_range_is_refused(
    objective: float, burn: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        allowed_rate(objective, burn)
