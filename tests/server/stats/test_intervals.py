from math import comb, inf
from random import Random

import pytest

from flagd_sdk.core.guard.coin import Tosses
from flagd_server.stats.intervals import ratio_estimate, ratio_interval, tail_probability


def test_without_data_the_ratio_is_one_and_anything_is_possible() -> None:
    assert ratio_estimate(0.0, 0.0) == 1.0
    assert ratio_interval([(0.25, 0, 0)], 0.05) == (0.0, inf)


def test_the_ratio_is_estimated_across_changing_weights() -> None:
    # At a true ratio of 3 the treatment has 3s of 3s + 1 - s.
    tosses = [(0.25, 500, 500), (0.5, 750, 250)]
    treatment_mass = sum((1 - s) * found for s, found, _ in tosses)
    control_mass = sum(s * found for s, _, found in tosses)
    assert ratio_estimate(treatment_mass, control_mass) == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 4.0])
def test_the_interval_holds_at_all_times_together(ratio: float) -> None:
    random, s, missed, lives = Random(f"interval {ratio}"), 0.25, 0, 60
    for _ in range(lives):
        treated = spared = 0
        for _ in range(120):
            if random.random() < ratio * s / (ratio * s + 1 - s):
                treated += 1
            else:
                spared += 1
            low, high = ratio_interval([(s, treated, spared)], 0.1)
            if not low <= ratio <= high:
                missed += 1
                break
    assert missed <= 0.1 * lives


def test_the_interval_narrows_around_the_ratio() -> None:
    low, high = ratio_interval([(0.25, 5_000, 5_000)], 0.05)
    assert 2.4 < low < 3.0 < high < 3.7


def test_an_end_beyond_the_grid_is_open() -> None:
    low, high = ratio_interval([(0.5, 40, 0)], 0.05)
    assert low > 1.0
    assert high == inf
    low, high = ratio_interval([(0.5, 0, 40)], 0.05)
    assert low == 0.0
    assert high < 1.0


def test_the_chance_of_eleven_of_eleven_at_a_quarter_is_one_in_four_million() -> None:
    assert tail_probability([(0.25, 11, 0)]) == pytest.approx(0.25**11)


def test_the_chance_is_the_binomial_tail() -> None:
    exact = sum(comb(40, k) * 0.3**k * 0.7 ** (40 - k) for k in range(20, 41))
    assert tail_probability([(0.3, 20, 20)]) == pytest.approx(exact)
    assert tail_probability([(0.3, 5, 15), (0.3, 15, 5)]) == pytest.approx(exact)
    assert tail_probability([(0.3, 0, 40)]) == pytest.approx(1.0)


@pytest.mark.parametrize(("s", "treated", "spared"), [(0.25, 200, 400), (0.5, 350, 251)])
def test_with_many_tosses_an_upper_bound_takes_the_place_of_the_exact_chance(
    s: float, treated: int, spared: int
) -> None:
    n = treated + spared
    exact = sum(comb(n, k) * s**k * (1 - s) ** (n - k) for k in range(treated, n + 1))
    assert exact < tail_probability([(s, treated, spared)]) < 30 * exact


def test_many_tosses_that_all_fell_on_the_treatment_have_a_bound_too() -> None:
    assert tail_probability([(0.5, 600, 0)]) == pytest.approx(0.5**600)


@pytest.mark.parametrize("tosses", [[(0.5, 200, 400)], [(0.0, 0, 600)]])
def test_no_excess_at_all_may_always_be_chance(tosses: list[Tosses]) -> None:
    assert tail_probability(tosses) == 1.0
