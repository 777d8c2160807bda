"""What simulated lives are measured by: a bound on delays, and how sure a count of kills is."""

from math import exp, lgamma, log, log1p

from flagd_server.domain.guard.records import DEFAULT_ALPHA


def wald_bound_s(
    base: float,
    ratio: float,
    *,
    share: float = 0.25,
    requests_per_s: float = 50.0,
    alpha: float = DEFAULT_ALPHA,
) -> float:
    """Return Wald's bound on the mean delay of any test that errs with probability alpha.

    For two samples of independent requests of unknown base rate, blind to kinds:
    log(1/alpha) / KL requests, KL being the mean information of one request against the nearest
    equal rate (Wald, "Sequential tests of statistical hypotheses", 1945).

    Args:
        base: failing share of the control's requests; `ratio` times as much in the treatment.
        share: the treatment's part of the requests, 0 to 1.
    """
    pooled = base * (1.0 - share + ratio * share)
    information = _entropy(pooled) - share * _entropy(ratio * base) - (1 - share) * _entropy(base)
    return log(1.0 / alpha) / information / requests_per_s


def upper_bound(found: int, total: int, confidence: float = 0.95) -> float:
    """Return the upper end of an exact one-sided interval for a probability; 1 without trials.

    The greatest p for which at most `found` of `total` is not less likely than 1 - confidence
    (Clopper and Pearson, "The use of confidence or fiducial limits", 1934); for none it is close
    to 3 / total at 95 %.
    """
    if found >= total:
        return 1.0
    low, high = found / total, 1.0
    for _ in range(60):  # halves what is left each time, down to the last bit
        p = (low + high) / 2
        if _at_most(found, total, p) > 1.0 - confidence:
            low = p
        else:
            high = p
    return high


def _at_most(found: int, total: int, p: float) -> float:
    """Return the probability of at most so many successes, for p between 0 and 1."""
    if not 0.0 < p < 1.0:
        return 1.0 - p
    return sum(
        exp(
            lgamma(total + 1)
            - lgamma(k + 1)
            - lgamma(total - k + 1)
            + k * log(p)
            + (total - k) * log1p(-p)
        )
        for k in range(found + 1)
    )


def _entropy(p: float) -> float:
    return -(p * log(p) + (1.0 - p) * log(1.0 - p))
