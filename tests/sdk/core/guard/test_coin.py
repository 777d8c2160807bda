import itertools
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.guard.coin import DEFAULT_MARGIN, CoinBets, EProcess, Onset

BETS = CoinBets.for_margin(DEFAULT_MARGIN)
WEEK_S = 7 * 86_400.0
FIRST_MASS = 0.8


def mean_factor(bets: CoinBets, s: float, true_ratio: float) -> list[float]:
    in_treatment = true_ratio * s / (true_ratio * s + 1 - s)
    treatment, control = bets.multipliers([(s, 1, 0)]), bets.multipliers([(s, 0, 1)])
    return [
        in_treatment * a + (1 - in_treatment) * b for a, b in zip(treatment, control, strict=True)
    ]


@given(
    s=st.floats(0.0001, 0.9999),
    margin=st.floats(1.0, 3.0),
    excess=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=8),
)
def test_a_factor_has_mean_exactly_one_at_the_margin(
    s: float, margin: float, excess: list[float]
) -> None:
    prior = (1.0, *[0.0] * (len(excess) - 1))
    bets = CoinBets.of(margin, tuple(margin + e for e in excess), prior)
    assert mean_factor(bets, s, margin) == pytest.approx([1.0] * len(excess), abs=1e-9)


@given(s=st.floats(0.001, 0.999), margin=st.floats(1.02, 3.0), part=st.floats(0.0, 0.99))
def test_a_factor_has_mean_below_one_where_the_true_ratio_is_below_the_margin(
    s: float, margin: float, part: float
) -> None:
    bets = CoinBets.for_margin(margin)
    assert max(mean_factor(bets, s, part * margin)) < 1.0


@pytest.mark.parametrize("r", [1.3, 1.6, 2.2, 5.0, 12.0, 50.0])
def test_factors_are_the_published_ones(r: float) -> None:
    s, m = 0.25, 1.05
    k = BETS.ratios.index(r)
    assert BETS.multipliers([(s, 1, 0)])[k] == pytest.approx(
        r * (m * s + 1 - s) / (m * (r * s + 1 - s))
    )
    assert BETS.multipliers([(s, 0, 1)])[k] == pytest.approx((m * s + 1 - s) / (r * s + 1 - s))


def test_a_grid_for_kinds_is_checked_too() -> None:
    with pytest.raises(ValueError, match="kind_prior: expected one share"):
        CoinBets.of(1.05, (2.0, 3.0), (0.5, 0.5), (0.5, 0.6))


def test_the_grid_keeps_its_distance_to_another_margin() -> None:
    assert CoinBets.for_margin(2.1).ratios == pytest.approx([2.6, 3.2, 4.4, 10.0, 24.0, 100.0])


def test_a_batch_multiplies_what_its_tosses_would_one_by_one() -> None:
    one_by_one = [1.0] * len(BETS.ratios)
    tosses = [(0.25, 1, 0), (0.25, 0, 1), (0.25, 1, 0), (0.5, 0, 1), (0.01, 1, 0)]
    for toss in tosses:
        one_by_one = [a * b for a, b in zip(one_by_one, BETS.multipliers([toss]), strict=True)]
    batch = [(0.01, 1, 0), (0.25, 2, 1), (0.5, 0, 1)]
    assert BETS.multipliers(batch) == pytest.approx(one_by_one)


def test_a_batch_without_tosses_changes_nothing() -> None:
    assert BETS.multipliers([]) == [1.0] * len(BETS.ratios)


@pytest.mark.parametrize("s", [0.0, 1.0])
def test_a_share_of_exposures_at_either_end_is_weighed_too(s: float) -> None:
    assert all(isfinite(factor) for factor in BETS.multipliers([(s, 3, 5)]))


@pytest.mark.parametrize(
    ("margin", "ratios", "prior", "message"),
    [
        (1.05, (1.05, 2.0), (0.5, 0.5), "ratios: 1.05 must be above the margin"),
        (1.05, (2.0, float("nan")), (0.5, 0.5), "ratios: nan"),
        (0.99, (2.0,), (1.0,), "margin: expected a number of at least 1"),
        (float("nan"), (2.0,), (1.0,), "margin"),
        (1.05, (2.0, 3.0), (1.0,), "prior: expected one share"),
        (1.05, (2.0, 3.0), (0.5, 0.6), "prior"),
        (1.05, (2.0, 3.0), (1.5, -0.5), "prior"),
    ],
)
def test_a_grid_that_would_break_the_guarantee_is_refused(
    margin: float, ratios: tuple[float, ...], prior: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CoinBets.of(margin, ratios, prior)


@pytest.mark.parametrize("fades", [True, False])
def test_the_prior_on_the_beginning_is_used_up_at_its_horizon(fades: bool) -> None:
    onset = Onset(FIRST_MASS, WEEK_S, fades)
    days = [onset.elapsed(t) for t in (0.0, 1.0, 60.0, 86_400.0, WEEK_S)]
    assert days[0] == 0.0
    assert all(before < after for before, after in itertools.pairwise(days))
    assert days[-1] == pytest.approx(1.0)
    assert onset.elapsed(1e12) == 1.0


def test_a_beginning_that_fades_is_the_likelier_the_sooner() -> None:
    onset = Onset(FIRST_MASS, WEEK_S, fades=True)
    assert onset.elapsed(60.0) == pytest.approx(0.0752, abs=1e-4)
    assert Onset(FIRST_MASS, WEEK_S, fades=False).elapsed(WEEK_S / 2) == 0.5


def test_evidence_starts_at_one_and_follows_the_published_recursion() -> None:
    process = EProcess.start(BETS)
    assert process.value == 1.0
    first, second = BETS.multipliers([(0.25, 1, 0)]), BETS.multipliers([(0.25, 0, 2)])
    mass = 0.01
    process.update(BETS.prior, FIRST_MASS, first)
    process.update(BETS.prior, mass, second)
    expected = sum(
        (FIRST_MASS * p * a + mass * p) * b
        for p, a, b in zip(BETS.prior, first, second, strict=True)
    )
    assert process.value == pytest.approx(expected + 1.0 - FIRST_MASS - mass)


def test_evidence_stays_finite_however_much_there_is() -> None:
    process = EProcess.start(BETS)
    for _ in range(5):
        process.update(BETS.prior, 0.1, BETS.multipliers([(0.01, 1_000_000, 0)]))
    assert process.value == 1e150
    process.update(BETS.prior, 0.1, BETS.multipliers([(0.99, 0, 1_000_000)]))
    assert 0.0 <= process.value <= 1.0
