"""Two samples compared by their exposures: does one version fail more often than another?

Nobody tosses a coin for a version, so the treatment's share of a window's exposures,
s = n_T / (n_T + n_C), stands in the coin's place: if neither fails more often, a failing unit of
that window is the treatment's with probability s. What the two share in a window (an outage, a
burst, the hour of the day) cancels. Failing units are to be counted at most once an hour by whoever
calls, so that the repeats of one are one.

The result is approximate, and so it gates and explains, and never kills:

- Versions are not assigned at random. A sick instance, a shard with heavier users or a region that
  was upgraded first looks like its version.
- Exposures are not units: what makes units ask more often moves s without moving the failures.
- Failures still cluster. The windows' dispersion, estimated from the data, tempers the evidence by
  the power 1 / max(1, phi); successive differences see what changes from window to window, not what
  stays for an hour. And the evidence must hold without the window that speaks loudest, since one
  burst on one side is one event, however many units it takes.

Sources: Lindon and Malek, "Anytime-valid inference for multinomial count data", 2020 (the test);
von Neumann, Kent, Bellinson and Hart, "The mean square successive difference", Annals of
Mathematical Statistics 12, 1941 (the dispersion); McCullagh and Nelder, "Generalized Linear
Models", 1989, section 4.5 (dividing a log-likelihood by it).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, sqrt

from flagd_sdk.core.guard.coin import (
    AT_A_CHANGE,
    DEFAULT_MARGIN,
    LOG_CEILING,
    CoinBets,
    EProcess,
    Tosses,
)
from flagd_server.stats.intervals import log_evidence_below, ratio_estimate, ratio_interval

CONFIDENCE = 0.95
# What dispersion is taken to be before the windows have told, and for how many windows that counts:
# a few windows alike by chance must not pass for independence.
PRIOR_DISPERSION = 3.0
PRIOR_WINDOWS = 10
_DOUBLED = 2.0

Stratum = tuple[int, int, int, int]
"""(treatment's exposures, its failing units, control's exposures, its failing units)."""


_Told = tuple[float, list[Tosses]]
"""A window's beginning, and its failing units by s."""


@dataclass(frozen=True, slots=True)
class Window:
    """What both did in one stretch of time, `t` in seconds being its beginning.

    Attributes:
        strata: parts within which they are compared, such as the variants of a flag. Strata share
            one ratio: their log evidence adds up.
    """

    t: float
    strata: tuple[Stratum, ...]


@dataclass(frozen=True, slots=True)
class TwoSample:
    """How often the treatment fails, compared with the control.

    Attributes:
        windows: those in which both were exposed and some unit failed; others say nothing.
        treatment_exposures, control_exposures: of all strata in which both were exposed.
        treatment_units, control_units: failing units there.
        expected_share: the share of failing units that chance alone gives the treatment.
        dispersion: phi, 1 where failures are independent; tempers the evidence where above.
        worse, better: e-values, as approximate as the method, that the treatment fails more often
            than the control by more than the margin, and the reverse; 1 without data.
        double_refuted, half_refuted: the same against "at least twice as often as the control" and
            "at most half as often".
        ratio, low, high: failure rates, treatment to control, with an interval of `CONFIDENCE`.
    """

    windows: int
    treatment_exposures: int
    control_exposures: int
    treatment_units: int
    control_units: int
    expected_share: float
    dispersion: float
    worse: float
    better: float
    double_refuted: float
    half_refuted: float
    ratio: float
    low: float
    high: float


def compare(windows: Iterable[Window], margin: float = DEFAULT_MARGIN) -> TwoSample:
    """Compare treatment and control over windows in the order of time.

    Raises:
        ValueError: the margin is below 1.
    """
    exposed_t = exposed_c = 0
    told: list[_Told] = []
    for window in windows:
        tosses = []
        for in_treatment, failed_t, in_control, failed_c in window.strata:
            if in_treatment and in_control:
                exposed_t += in_treatment
                exposed_c += in_control
                if failed_t or failed_c:
                    share = in_treatment / (in_treatment + in_control)
                    tosses.append((share, failed_t, failed_c))
        if tosses:
            told.append((window.t, tosses))
    every = [toss for _, tosses in told for toss in tosses]
    reverse = [_swap(toss) for toss in every]
    units_t, units_c = sum(toss[1] for toss in every), sum(toss[2] for toss in every)
    expected = sum(share * (treated + spared) for share, treated, spared in every)
    ratio = ratio_estimate(
        sum((1.0 - share) * treated for share, treated, _ in every),
        sum(share * spared for share, _, spared in every),
    )
    dispersion = estimate_dispersion([tosses for _, tosses in told], ratio)
    power = 1.0 / max(1.0, dispersion)
    bets = CoinBets.for_margin(margin)
    low, high = ratio_interval(every, 1.0 - CONFIDENCE, 1.0 / power)
    return TwoSample(
        windows=len(told),
        treatment_exposures=exposed_t,
        control_exposures=exposed_c,
        treatment_units=units_t,
        control_units=units_c,
        expected_share=expected / (units_t + units_c) if every else 0.0,
        dispersion=dispersion,
        worse=_evidence(bets, told, power),
        better=_evidence(bets, [(t, [_swap(toss) for toss in part]) for t, part in told], power),
        double_refuted=_capped_exp(power * log_evidence_below(every, _DOUBLED)),
        half_refuted=_capped_exp(power * log_evidence_below(reverse, _DOUBLED)),
        ratio=ratio,
        low=low,
        high=high,
    )


def estimate_dispersion(windows: Sequence[Sequence[Tosses]], ratio: float) -> float:
    """Return phi = Σ (z_i+1 − z_i)² / 2 (k − 1), drawn to `PRIOR_DISPERSION` while k is small.

    z_i is a window's treatment units less what they would be at the ratio, over the deviation of
    that. What a difference in the ratio adds to all windows alike falls out of the differences.

    Args:
        windows: the tosses of each, in the order of time.
        ratio: the estimated one, treatment to control, above 0.
    """
    z = [_standardised(tosses, ratio) for tosses in windows]
    squares = sum((after - before) ** 2 for before, after in pairwise(z)) / 2.0
    differences = max(0, len(z) - 1)
    return (squares + PRIOR_WINDOWS * PRIOR_DISPERSION) / (differences + PRIOR_WINDOWS)


def _standardised(tosses: Iterable[Tosses], ratio: float) -> float:
    excess = variance = 0.0
    for share, treated, spared in tosses:
        p = ratio * share / (ratio * share + 1.0 - share)
        excess += treated - p * (treated + spared)
        variance += (treated + spared) * p * (1.0 - p)
    return excess / sqrt(variance)


def _evidence(bets: CoinBets, windows: Sequence[_Told], power: float) -> float:
    """Run the coin's e-process over all windows but the loudest, each tempered and one batch."""
    process = EProcess.start(bets)
    loudest = max(windows, key=lambda told: _excess(told[1]), default=None)
    used = None
    for told in windows:
        if told is loudest:
            continue
        t, tosses = told
        now = AT_A_CHANGE.elapsed(t - windows[0][0])
        factors = [factor**power for factor in bets.multipliers(tosses)]
        process.update(bets.prior, AT_A_CHANGE.mass(now, used), factors)
        used = now
    return process.value


def _excess(tosses: Iterable[Tosses]) -> float:
    """Return how many treatment units there are beyond what chance alone gives."""
    return sum(treated - share * (treated + spared) for share, treated, spared in tosses)


def _swap(toss: Tosses) -> Tosses:
    share, treated, spared = toss
    return 1.0 - share, spared, treated


def _capped_exp(value: float) -> float:
    return exp(min(value, LOG_CEILING))
