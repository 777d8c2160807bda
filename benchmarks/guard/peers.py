"""What others do with the same events: pure, and judged as the guard is.

Each counts failed requests over requests of the treatment "on" and the control "off"; none knows
of units or kinds. They ask whether the treatment is worse at all, without the guard's margin.
"""

from dataclasses import dataclass, field
from math import log, sqrt
from statistics import NormalDist

from flagd_server.domain.guard.records import DEFAULT_ALPHA, Event
from flagd_server.domain.guard.traffic import TREATMENT

_MINUTE_S = 60.0


@dataclass(slots=True)
class _Rates:
    """Requests and failed requests of both arms."""

    requests: list[int] = field(default_factory=lambda: [0, 0])
    failed: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, event: Event) -> None:
        for cell in event.cells:
            side = cell.variant != TREATMENT
            self.requests[side] += cell.exposures
            self.failed[side] += cell.errors


@dataclass(slots=True)
class _EachMinute:
    """Says when a minute, counted from the first event, is over."""

    next_t: float | None = None

    def is_over(self, t: float) -> bool:
        if self.next_t is None:
            self.next_t = t + _MINUTE_S
        if t < self.next_t:
            return False
        while t >= self.next_t:
            self.next_t += _MINUTE_S
        return True


class FixedThreshold:
    """Flagger's check: the treatment's success rate over a minute is at least 99 %, and when ten
    checks in all have failed it is rolled back. A minute without requests is no check.

    Source: fluxcd/flagger, docs/gitbook/usage/how-it-works.md ("interval: 1m", "threshold: 10",
    "request-success-rate … min: 99", and on the control loop: "increment the failed checks
    counter").
    """

    least_success = 0.99
    checks_failed_at_most = 10

    def __init__(self) -> None:
        self.has_killed = False
        self._minute = _EachMinute()
        self._rates = _Rates()
        self._failed_checks = 0

    def observe(self, event: Event) -> None:
        if self._minute.is_over(event.t):
            requests, failed = self._rates.requests[0], self._rates.failed[0]
            if requests and 1.0 - failed / requests < self.least_success:
                self._failed_checks += 1
                self.has_killed = self._failed_checks >= self.checks_failed_at_most
            self._rates = _Rates()
        self._rates.add(event)


class RepeatedZTest:
    """The two-proportion z-test with pooled variance, one-sided, run again each minute on all
    that was counted so far, as if each time were the only one."""

    def __init__(self, alpha: float = DEFAULT_ALPHA) -> None:
        self.has_killed = False
        self._minute = _EachMinute()
        self._rates = _Rates()
        self._critical = NormalDist().inv_cdf(1.0 - alpha)

    def observe(self, event: Event) -> None:
        if self._minute.is_over(event.t):
            self.has_killed = self.score() > self._critical
        self._rates.add(event)

    def score(self) -> float:
        """Return z, 0 while there is nothing to compare."""
        (n_t, n_c), (y_t, y_c) = self._rates.requests, self._rates.failed
        if not n_t or not n_c:
            return 0.0
        pooled = (y_t + y_c) / (n_t + n_c)
        variance = pooled * (1.0 - pooled) * (1.0 / n_t + 1.0 / n_c)
        return (y_t / n_t - y_c / n_c) / sqrt(variance) if variance > 0.0 else 0.0


class SequentialInterval:
    """GrowthBook's sequential test: kill once the interval of the difference lies above 0.

    An asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
    "Time-uniform central limit theory and asymptotic confidence sequences", arXiv 2103.06476v7:
    eq. 9 its half-width, eq. 161 its rho), with n the requests of both arms, s² the squared
    standard error of the difference times n, and GrowthBook's tuning parameter of 5,000.

    Source: growthbook/growthbook, packages/stats/gbstats/frequentist/tests.py
    (`sequential_rho`, `sequential_interval_halfwidth`, `SequentialTwoSidedTTest`).
    """

    tightest_at = 5_000.0

    def __init__(self, alpha: float = DEFAULT_ALPHA) -> None:
        self.has_killed = False
        self._rates = _Rates()
        self._alpha = alpha
        bits = -2.0 * log(alpha)
        self._rho_squared = (bits + log(bits + 1.0)) / self.tightest_at

    def observe(self, event: Event) -> None:
        self._rates.add(event)
        self.has_killed = self.lower_end() > 0.0

    def lower_end(self) -> float:
        """Return the lower end of the interval of (treatment - control), 0 without one."""
        (n_t, n_c), (y_t, y_c) = self._rates.requests, self._rates.failed
        if not n_t or not n_c:
            return 0.0
        n, p_t, p_c = n_t + n_c, y_t / n_t, y_c / n_c
        if p_t <= p_c:
            return 0.0
        squared_error = p_t * (1.0 - p_t) / n_t + p_c * (1.0 - p_c) / n_c
        scale = n * self._rho_squared + 1.0
        width = 2.0 * scale * log(sqrt(scale) / self._alpha) / (n * n * self._rho_squared)
        return p_t - p_c - sqrt(squared_error * n * width)
