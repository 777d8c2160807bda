"""The guarantee of every metric, by running through every way in which small cases can fall.

`test_guard_enumeration.py` does it for the streams of errors; here are latency, where what counts
depends on the side, the two-sided test of sampled exposures, and the factors themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

import pytest

from flagd_sdk.core.guard.coin import CoinBets
from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.metrics import ERRORS, SAMPLE_RATIO, SLOW, Metric
from flagd_server.domain.guard.records import Cell
from tests.server.domain.guard.recordings import see

SHARES = [0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.99, 1.0]
MARGINS = [1.0, 1.05, 1.2, 2.0, 5.0, 10.0]
HASHES = [n * 0x9E3779B97F4A7C15 % (1 << 64) for n in range(1, 40)]
# Per metric: the kind that its units show on either side, and the ratio at which it has mean 1.
KINDS = {ERRORS: "error:A", SLOW["p99"]: "slow:p99", SLOW["p90"]: "slow:p90"} | {
    SAMPLE_RATIO: "exposed"
}
# Units by summary; the last of the five comes again, which must change nothing.
ARRIVALS = {
    "one by one": (0, 1, 2, 3, 4, 5, 6, 7),
    "in pairs": (0, 0, 1, 1, 2, 2, 3, 3),
    "at once": (0,) * 8,
}


def coin(s: float, ratio: float) -> float:
    """The chance that a failing unit is in the treatment, where failing is so much likelier."""
    return s if s == 1.0 else ratio * s / (ratio * s + 1.0 - s)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("s", SHARES)
def test_at_the_margin_each_factor_of_each_bet_has_mean_one(s: float, margin: float) -> None:
    bets, p = CoinBets.for_margin(margin), coin(s, margin)
    treatment, control = bets.multipliers([(s, 1, 0)]), bets.multipliers([(s, 0, 1)])
    for won, lost in zip(treatment, control, strict=True):
        assert p * won + (1.0 - p) * lost == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("true_ratio", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("s", SHARES)
def test_below_the_margin_no_factor_has_a_mean_above_one(
    s: float, margin: float, true_ratio: float
) -> None:
    bets, p = CoinBets.for_margin(margin), coin(s, true_ratio)
    treatment, control = bets.multipliers([(s, 1, 0)]), bets.multipliers([(s, 0, 1)])
    for won, lost in zip(treatment, control, strict=True):
        assert p * won + (1.0 - p) * lost <= 1.0 + 1e-12


@pytest.mark.parametrize("s", SHARES)
def test_two_sided_each_factor_has_mean_one_where_units_fall_by_the_weights(s: float) -> None:
    bets = CoinBets.two_sided()
    assert min(bets.ratios) < 1.0 < max(bets.ratios)
    treatment, control = bets.multipliers([(s, 1, 0)]), bets.multipliers([(s, 0, 1)])
    for won, lost in zip(treatment, control, strict=True):
        assert s * won + (1.0 - s) * lost == pytest.approx(1.0, abs=1e-12)


def cells_of(
    units: Sequence[int], treated: Sequence[bool], share: float, metric: Metric
) -> list[Cell]:
    on = round(share * 100_000)
    return [
        Cell(
            split="default",
            variant="on" if treated[unit] else "off",
            weights={"on": on, "off": 100_000 - on},
            config_version=on,
            instance="i1",
            exposures=1,
            errors=0,
            units={KINDS[metric]: (f"{HASHES[unit]:016x}",)},
        )
        for unit in units
    ]


def falls(
    metric: Metric, arrivals: Sequence[int], shares: Sequence[float], ratio: float, tau: int
) -> Iterator[tuple[float, list[Mapping[str, float]]]]:
    """Yield (probability, stream → e-value after each summary) for each way the units can fall."""
    chances = [coin(share, ratio) for share in shares]
    for treated in product((False, True), repeat=len(shares)):
        arms = Arms("default", "on", "off")
        comparison = Comparison.start(arms, metric, 1.05, 0.0)
        comparison.tau = tau
        path: list[Mapping[str, float]] = []
        for summary in range(max(arrivals) + 1):
            t = 700.0 * summary
            if summary == 2:
                comparison.announce(t, "weights")
            now = [unit for unit, at in enumerate(arrivals) if at == summary]
            # The unit before is reported again, by another summary: no second toss.
            again = [now[0] - 1] if summary else []
            cells = [
                each
                for unit in [*now, *again]
                for each in cells_of([unit], treated, shares[unit], metric)
            ]
            see(comparison, t, cells)
            path.append(
                {
                    comparison.name_of(epoch, stream): stream.coin.value
                    for epoch, stream in comparison.streams()
                }
            )
        yield prod(p if side else 1 - p for p, side in zip(chances, treated, strict=True)), path


RAMP = (0.01, 0.05, 0.05, 0.25, 0.25, 0.5, 0.5, 0.9)
FIXED = (0.25,) * 8


@pytest.mark.parametrize("tau", [1 << 64, 1 << 63], ids=["all units", "thinned by hash"])
@pytest.mark.parametrize("shares", [FIXED, RAMP], ids=["fixed", "ramp"])
@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS.keys())
@pytest.mark.parametrize("metric", KINDS, ids=lambda metric: metric.name)
def test_every_stream_of_every_metric_has_mean_one_at_every_look_and_seldom_gets_far(
    metric: Metric, arrivals: Sequence[int], shares: Sequence[float], tau: int
) -> None:
    null = 1.0 if metric is SAMPLE_RATIO else 1.05
    means: list[dict[str, float]] = [{} for _ in range(max(arrivals) + 1)]
    reached: dict[tuple[str, float], float] = {}
    for probability, path in falls(metric, arrivals, shares, null, tau):
        for at, values in zip(means, path, strict=True):
            for name, value in values.items():
                at[name] = at.get(name, 0.0) + probability * value
        for bar in (1.2, 2.0, 5.0, 20.0, 100.0):
            for name in path[-1]:
                if any(values.get(name, 0.0) >= bar for values in path):
                    reached[name, bar] = reached.get((name, bar), 0.0) + probability
    for at in means:
        assert at == pytest.approx(dict.fromkeys(at, 1.0), abs=1e-9)
    assert all(chance <= 1.0 / bar for (_, bar), chance in reached.items())


@pytest.mark.parametrize("slowdown_heard", [0.0, 0.4, 1.0])
def test_a_treatment_slowed_within_the_tolerated_share_has_no_mean_above_one(
    slowdown_heard: float,
) -> None:
    """Near the threshold a slow unit counts in the control only.

    Of the units that would be slow in the control, this share would be slow beyond the threshold
    times 1.05 in the treatment, were it slowed by as much as is tolerated; the others are near.
    """
    units, s = 6, 0.25
    total = 0.0
    for sides in product((False, True), repeat=units):
        for far in product((False, True), repeat=units):
            probability = prod(
                (s if treated else 1 - s) * (slowdown_heard if is_far else 1 - slowdown_heard)
                for treated, is_far in zip(sides, far, strict=True)
            )
            if probability == 0.0:
                continue
            comparison = Comparison.start(Arms("default", "on", "off"), SLOW["p99"], 1.05, 0.0)
            for unit, (treated, is_far) in enumerate(zip(sides, far, strict=True)):
                cell = Cell(
                    split="default",
                    variant="on" if treated else "off",
                    weights={"on": 25_000, "off": 75_000},
                    config_version=1,
                    instance="i1",
                    exposures=1,
                    errors=0,
                    units={"slow:p99" if is_far else "near:p99": (f"{HASHES[unit]:016x}",)},
                )
                see(comparison, float(unit), [cell])
            total += probability * comparison.epochs[0].errors.coin.value
    assert total <= 1.0 + 1e-9
