"""Effect sizes for reports: how much more often do units fail with the feature?"""

from collections.abc import Iterable, Sequence
from math import exp, inf, log, log1p

from flagd_sdk.core.guard.coin import Tosses

_GRID_LOW, _GRID_HIGH, _GRID_SIZE = 1 / 8, 128.0, 64
_GRID = tuple(
    exp(log(_GRID_LOW) + k * (log(_GRID_HIGH) - log(_GRID_LOW)) / (_GRID_SIZE - 1))
    for k in range(_GRID_SIZE)
)
_HALF_A_TOSS = 0.5


def ratio_estimate(treatment_mass: float, control_mass: float) -> float:
    """Return the estimated ratio of failure probabilities, treatment to control.

    Args:
        treatment_mass: Σ (1 - s) over the failing units found in the treatment.
        control_mass: Σ s over those found in the control.

    The sums are Mantel and Haenszel's (1959) with each toss its own stratum, so weights may
    change between tosses. Half a toss is added to each side: 1 without data, finite always.
    """
    return (treatment_mass + _HALF_A_TOSS) / (control_mass + _HALF_A_TOSS)


def ratio_interval(
    tosses: Sequence[Tosses], alpha: float, dispersion: float = 1.0
) -> tuple[float, float]:
    """Return an interval for a constant ratio that holds at every time at once.

    {q : L(q) > log mean_k exp L(q_k) - log(1/alpha)} over a grid of 64 ratios from 1/8 to 128:
    the mixture over the grid is a test martingale against each q (Robbins' method of mixtures).
    An end that lies beyond the grid comes back as 0 or infinity.

    Args:
        tosses: (s, treatment units, control units), in any order.
        alpha: probability that the interval ever misses the ratio, over all times.
        dispersion: what the log-likelihood is divided by where tosses repeat one another; with
            anything but 1 the interval is approximate.
    """
    likelihood = [_log_likelihood(tosses, q) / dispersion for q in _GRID]
    top = max(likelihood)
    log_mean = top + log(sum(exp(value - top) for value in likelihood) / _GRID_SIZE)
    kept = [k for k, value in enumerate(likelihood) if value > log_mean - log(1 / alpha)]
    low = 0.0 if kept[0] == 0 else _GRID[kept[0] - 1]
    high = inf if kept[-1] == _GRID_SIZE - 1 else _GRID[kept[-1] + 1]
    return low, high


def _log_likelihood(tosses: Sequence[Tosses], q: float) -> float:
    total = 0.0
    for s, in_treatment, in_control in tosses:
        odds = q * s + 1.0 - s
        if in_treatment:
            total += in_treatment * log(q * s / odds)
        if in_control:
            total += in_control * log((1.0 - s) / odds)
    return total


def log_evidence_below(tosses: Iterable[Tosses], ratio: float) -> float:
    """Return the log of an e-value against "the true ratio is at least `ratio`", betting on 1.

    A toss with coin s multiplies by (1 + (R - 1) s) / R in the treatment and by 1 + (R - 1) s in
    the control: mean exactly 1 at the ratio R > 1, and less above it. It says whether there was
    enough to see such a ratio and none was seen, which the absence of evidence does not.
    """
    return sum(
        (in_treatment + in_control) * log1p((ratio - 1.0) * s) - in_treatment * log(ratio)
        for s, in_treatment, in_control in tosses
    )


def tail_probability(tosses: Sequence[Tosses]) -> float:
    """Return the chance of at least as many treatment units, if the feature did nothing.

    Exact (Poisson-binomial, by convolution) for up to 500 tosses, else Chernoff's upper bound.
    It describes one look at the end and is for the reader's sense of size: it decides nothing.
    """
    found = sum(in_treatment for _, in_treatment, _ in tosses)
    total = found + sum(in_control for _, _, in_control in tosses)
    if total > _EXACT_UP_TO:
        return _chernoff(tosses, found, total)
    law = [1.0]
    for s, in_treatment, in_control in tosses:
        for _ in range(in_treatment + in_control):
            law = [
                (law[k] * (1.0 - s) if k < len(law) else 0.0) + (law[k - 1] * s if k else 0.0)
                for k in range(len(law) + 1)
            ]
    return min(1.0, sum(law[found:]))


_EXACT_UP_TO = 500


def _chernoff(tosses: Sequence[Tosses], found: int, total: int) -> float:
    mean = sum(s * (a + b) for s, a, b in tosses) / total
    share = found / total
    if share <= mean or mean <= 0.0:
        return 1.0
    divergence = share * log(share / mean)
    if share < 1.0:
        divergence += (1.0 - share) * log((1.0 - share) / (1.0 - mean))
    return exp(-total * divergence)
