"""The burn test: does a service fail more often than its objective allows?

It needs no control, and pays for that: it cannot tell a feature's fault from anybody else's, so it
pauses and notifies, and kills nothing unless a flag's policy asks for it. Like the coin test it may
be looked at after every window: under its null the value's mean is at most 1 at all times.

Assumption: in every window, given the past, the number of failing exposures is Poisson with mean
at most n d, or a sum of independent failures of probability at most d each. Requests of one unit
repeat one another, so real counts vary more than that: the value is a signal, never a proof.

Sources: Beyer and others (eds), "The Site Reliability Workbook", 2018, chapter 5 (burn rates);
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024, and Wald,
"Sequential Analysis", 1947 (the likelihood ratio as a bet).
"""

from dataclasses import asdict, dataclass
from math import exp, log
from typing import Any

from flagd_sdk.core.guard.coin import AT_A_CHANGE, LOG_CEILING, EProcess

_HOUR_S = 3_600.0
_PERIOD_S = 30 * 24 * _HOUR_S


def burn_rate(budget_share: float, window_s: float, period_s: float = _PERIOD_S) -> float:
    """Return how many times too fast a budget burns when this share of it goes in a window.

    Source: The Site Reliability Workbook, chapter 5, on alerts at several burn rates; 30 days.
    """
    return budget_share * period_s / window_s


OBJECTIVE_MISSED = 1.0
# Two per cent of a month's budget in an hour: what the workbook pages a human for.
FAST_BURN = burn_rate(0.02, _HOUR_S)

# Failure rates the test bets on, as multiples of the allowed one, and the share of each bet. Close
# ones find a slow burn; an outage at an objective of 99.9 % is a ratio of a thousand, which the
# last finds as fast as the thousandth would.
RATIOS = (1.3, 2.0, 5.0, 20.0, 100.0)
PRIOR = (0.2, 0.25, 0.25, 0.2, 0.1)


def allowed_rate(objective: float, burn: float = OBJECTIVE_MISSED) -> float:
    """Return d = B (1 - SLO), the failure rate at which a budget burns B times too fast.

    It may be above 1, where the objective leaves so large a budget that nothing burns it as fast.

    Raises:
        ValueError: the objective is not between 0 and 1, or the burn rate is not above 0.
    """
    if not 0.0 < objective < 1.0:
        raise ValueError(f"objective: expected a number between 0 and 1, got {objective!r}")
    if not burn > 0.0:
        raise ValueError(f"burn: expected a number above 0, got {burn!r}")
    return burn * (1.0 - objective)


def log_factor(exposures: int, failing: int, allowed: float, ratio: float) -> float:
    """Return l_r = y log r - n d (r - 1), the logarithm of one window's factor of the bet on r.

    For Poisson counts of mean n p the factor's mean is exp(n (p - d) (r - 1)), for n independent
    failures (1 + p (r - 1))^n exp(-n d (r - 1)): neither is above 1 where p is at most d.
    """
    return failing * log(ratio) - exposures * allowed * (ratio - 1.0)


@dataclass(slots=True)
class BurnTest:
    """Evidence that the failure rate is above `allowed`. Feed it windows in the order of time.

    Attributes:
        allowed: d, failing exposures per exposure.
        opened_at: in seconds, on the clock of the windows.
        evidence: the bets; the prior on when the breach began is that of the coin test.
        used: G at the last window; None before the first.
        lowest: the least value so far.
        began: when the breach began: the time of the first window after that least value.
    """

    allowed: float
    opened_at: float
    evidence: EProcess
    used: float | None = None
    lowest: float = 1.0
    began: float | None = None

    @classmethod
    def start(cls, allowed: float, at: float) -> "BurnTest":
        return cls(allowed, at, EProcess([0.0] * len(RATIOS)))

    @property
    def value(self) -> float:
        """The e-value, as approximate as the assumption."""
        return self.evidence.value

    def update(self, t: float, exposures: int, failing: int) -> float:
        """Multiply one window in and return the value after it.

        Args:
            t: when the window began, in seconds; never before the window before it.
            exposures, failing: the window's; a window without exposures says nothing.

        Raises:
            ValueError: a count is negative, or more failed than were exposed.
        """
        if not 0 <= failing <= exposures:
            raise ValueError(
                f"failing: expected 0 to {exposures} (the window's exposures), got {failing}"
            )
        if exposures == 0:
            return self.value
        now = AT_A_CHANGE.elapsed(t - self.opened_at)
        factors = [
            exp(min(log_factor(exposures, failing, self.allowed, r), LOG_CEILING)) for r in RATIOS
        ]
        self.evidence.update(PRIOR, AT_A_CHANGE.mass(now, self.used), factors)
        self.used = now
        value = self.value
        if value <= self.lowest:
            self.lowest = value
            self.began = None
        elif self.began is None:
            self.began = t
        return value

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "BurnTest":
        return cls(**{**document, "evidence": EProcess(**document["evidence"])})
