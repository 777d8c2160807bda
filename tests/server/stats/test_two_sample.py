from itertools import product
from math import comb, inf
from random import Random

import pytest

from flagd_server.stats import two_sample
from flagd_server.stats.two_sample import (
    PRIOR_DISPERSION,
    Stratum,
    TwoSample,
    Window,
    compare,
    estimate_dispersion,
)

LOOKS = (1, 2, 3, 5, 8, 12, 20, 40, 80, 160)


def swapped(windows: list[Window]) -> list[Window]:
    return [
        Window(window.t, tuple((c, yc, t, yt) for t, yt, c, yc in window.strata))
        for window in windows
    ]


def poisson(random: Random, mean: float) -> int:
    count, total = 0, random.expovariate(1.0)
    while total < mean:
        count += 1
        total += random.expovariate(1.0)
    return count


def simulate(
    seed: str,
    share: float,
    ratio: float = 1.0,
    mean: float = 4.0,
    burst: int = 1,
    minutes: int = 160,
) -> list[Window]:
    """Both arms' failing units, `mean` a minute together; with a burst, that many at a time."""
    random = Random(seed)

    def units(expected: float) -> int:
        return burst * poisson(random, expected / burst)

    windows = []
    for minute in range(minutes):
        treated = round(1_000 * share * random.uniform(0.8, 1.2))
        spared = 1_000 - treated
        stratum: Stratum = (
            treated,
            units(mean * ratio * treated / 1_000),
            spared,
            units(mean * spared / 1_000),
        )
        windows.append(Window(60.0 * minute, (stratum,)))
    return windows


def looked_at(windows: list[Window]) -> list[TwoSample]:
    return [compare(windows[:look]) for look in LOOKS]


def test_without_data_nothing_is_said() -> None:
    nothing = compare([])
    assert (nothing.worse, nothing.better) == (1.0, 1.0)
    assert (nothing.double_refuted, nothing.half_refuted) == (1.0, 1.0)
    assert (nothing.ratio, nothing.low, nothing.high) == (1.0, 0.0, inf)
    assert nothing.dispersion == PRIOR_DISPERSION


@pytest.mark.parametrize("stratum", [(0, 0, 100, 9), (100, 9, 0, 0), (50, 0, 50, 0)])
def test_a_window_of_one_arm_or_without_failures_says_nothing(stratum: Stratum) -> None:
    said = compare([Window(0.0, (stratum,))])
    assert said.windows == 0
    assert (said.worse, said.better, said.ratio) == (1.0, 1.0, 1.0)


def test_counts_are_those_of_strata_in_which_both_were_exposed() -> None:
    said = compare(
        [Window(0.0, ((100, 3, 300, 5), (70, 7, 0, 0))), Window(60.0, ((10, 0, 10, 0),))]
    )
    assert (said.treatment_exposures, said.control_exposures) == (110, 310)
    assert (said.treatment_units, said.control_units) == (3, 5)
    assert said.expected_share == pytest.approx(0.25)
    assert said.windows == 1


def test_the_two_directions_are_mirror_images() -> None:
    windows = simulate("mirror", 0.3, ratio=2.0)
    said, mirrored = compare(windows), compare(swapped(windows))
    assert mirrored.worse == pytest.approx(said.better)
    assert mirrored.better == pytest.approx(said.worse)
    assert mirrored.double_refuted == pytest.approx(said.half_refuted)
    assert mirrored.dispersion == pytest.approx(said.dispersion, rel=0.01)


def test_the_mean_of_the_evidence_is_at_most_one_over_all_outcomes_of_three_windows() -> None:
    # The dispersion is held: estimated from so few it is the prior, near enough. 27 outcomes for
    # each of the shares, of which each window's is a binomial of two units.
    for shares in [(0.5, 0.5, 0.5), (0.1, 0.3, 0.9)]:
        means = [0.0, 0.0]
        for counts in product(range(3), repeat=3):
            chance, windows = 1.0, []
            for k, (share, treated) in enumerate(zip(shares, counts, strict=True)):
                chance *= comb(2, treated) * share**treated * (1 - share) ** (2 - treated)
                exposed = round(100 * share)
                windows.append(Window(60.0 * k, ((exposed, treated, 100 - exposed, 2 - treated),)))
            said = compare(windows, margin=1.0)
            means[0] += chance * said.worse
            means[1] += chance * said.better
        assert max(means) <= 1.0


def test_dispersion_by_successive_differences_on_a_small_case() -> None:
    # s = 1/2 and four units: z = (4 - 2) / 1, (0 - 2) / 1, (2 - 2) / 1 = 2, -2, 0.
    windows = [[(0.5, 4, 0)], [(0.5, 0, 4)], [(0.5, 2, 2)]]
    expected = ((16 + 4) / 2 + 10 * PRIOR_DISPERSION) / (2 + 10)
    assert estimate_dispersion(windows, 1.0) == pytest.approx(expected)


def test_a_level_shared_by_all_windows_is_no_dispersion() -> None:
    level = [[(0.5, 9, 1)]] * 200
    assert estimate_dispersion(level, 9.0) == pytest.approx(10 * PRIOR_DISPERSION / 209)
    assert estimate_dispersion(level, 1.0) == pytest.approx(10 * PRIOR_DISPERSION / 209)


@pytest.mark.parametrize(("burst", "expected"), [(1, 1.0), (5, 5.0)])
def test_dispersion_is_found_again(burst: int, expected: float) -> None:
    said = compare(simulate("dispersion", 0.4, mean=20.0, burst=burst, minutes=600))
    assert said.dispersion == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize(("burst", "at_most"), [(1, 0), (5, 3)])
def test_equal_arms_are_rarely_told_apart_however_often_looked_at(
    share: float, burst: int, at_most: int
) -> None:
    lives = 60
    told = sum(
        max(max(look.worse, look.better) for look in looked_at(windows)) >= 100
        for windows in (
            simulate(f"{share} {burst} {life}", share, burst=burst) for life in range(lives)
        )
    )
    assert told <= at_most


def test_an_outage_shared_by_both_arms_tells_nothing() -> None:
    windows = simulate("outage", 0.25)
    windows[40:50] = [Window(window.t, ((250, 100, 750, 300),)) for window in windows[40:50]]
    assert max(look.worse for look in looked_at(windows)) < 20


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_treatment_that_fails_four_times_as_often_is_found(share: float) -> None:
    said = compare(simulate("four times", share, ratio=4.0))
    assert said.worse >= 1_000
    assert said.better < 1
    assert said.low <= 4.0 <= said.high
    assert said.low > 1.5


def test_one_loud_window_alone_is_no_evidence() -> None:
    windows = [Window(60.0 * k, ((500, 1, 500, 1),)) for k in range(30)]
    windows[12] = Window(60.0 * 12, ((500, 200, 500, 1),))
    assert compare(windows).worse < 1


def test_a_doubling_is_refuted_where_there_was_enough_to_see_one() -> None:
    few, many = compare(simulate("few", 0.4, minutes=5)), compare(simulate("many", 0.4))
    assert min(few.double_refuted, few.half_refuted) < 20
    assert min(many.double_refuted, many.half_refuted) >= 20
    assert compare(simulate("doubled", 0.4, ratio=2.0)).double_refuted < 1


def test_strata_share_one_ratio_and_add_their_evidence() -> None:
    one = [Window(60.0 * k, ((500, 2, 500, 0),)) for k in range(6)]
    two = [Window(60.0 * k, ((500, 2, 500, 0), (100, 2, 100, 0))) for k in range(6)]
    assert compare(two).worse > compare(one).worse


def test_strata_of_other_rates_and_shares_do_not_feign_a_difference() -> None:
    # Simpson's paradox: pooled, the treatment fails twice as often as the control.
    windows = [Window(60.0 * k, ((800, 16, 200, 4), (200, 1, 800, 4))) for k in range(120)]
    said = compare(windows)
    assert said.ratio == pytest.approx(1.0, abs=0.05)
    assert said.worse < 1


def test_clustered_failures_widen_the_interval() -> None:
    calm = compare(simulate("width", 0.5, mean=10.0))
    bursts = compare(simulate("width", 0.5, mean=10.0, burst=10))
    assert bursts.high / bursts.low > calm.high / calm.low


def test_the_evidence_stays_a_finite_number() -> None:
    said = compare([Window(60.0 * k, ((500, 500, 500, 0),)) for k in range(60)])
    assert 1e100 < said.worse < inf


def test_a_margin_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        two_sample.compare([], margin=0.5)
