"""Did a kill help? What the flag's requests were like before it, against after it.

A kill takes the feature from those who had it, so the share of requests that fail (or are slow)
should fall to what it was for those who did not have it. Two hypotheses stand: nothing has changed,
and the whole of that fall has come. An interval for the ratio of the shares refutes one, the other,
or neither.

The interval is that of the coin test with exposures in place of weights: of two samples that fail
alike, a failure falls on the later one with that one's share of the exposures. It holds at every
time, so it may be read for several windows; but requests of one user repeat one another, so it is
approximate, and asked to be surer than the report's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from flagd_server.domain.guard.metrics import SLOW
from flagd_server.domain.latency_hours import QUANTILES, add_up, quantile_bucket
from flagd_server.stats.intervals import ratio_interval

ALPHA = 0.01
# Where there was no control, a fall of so much is what a kill that helps should bring at least.
_FALL_WITHOUT_CONTROL = 0.8


class Outcome(StrEnum):
    FELL = "fell"
    DID_NOT_FALL = "did not fall"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests there were, and how many of them failed (or were slow)."""

    exposures: int = 0
    bad: int = 0

    @property
    def share(self) -> float:
        return self.bad / self.exposures if self.exposures else 0.0

    def to_document(self) -> dict[str, Any]:
        return {"exposures": self.exposures, "bad": self.bad, "share": self.share}


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What became of the share of bad requests.

    Attributes:
        expected_share: what it should have fallen to; None where nobody was without the feature.
        low, high: of the ratio after to before.
    """

    outcome: Outcome
    before: Requests
    after: Requests
    expected_share: float | None
    low: float
    high: float

    def to_document(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome.value,
            "before": self.before.to_document(),
            "after": self.after.to_document(),
            "expected_share": self.expected_share,
            "ratio_interval": {
                "confidence": 1.0 - ALPHA,
                "low": self.low,
                "high": self.high if isfinite(self.high) else None,
            },
        }


def look_back(before: Requests, after: Requests, control: Requests, left: float = 0.0) -> Aftermath:
    """Compare all requests of the flag before and after its kill, or its rollback.

    Args:
        control: those among `before` that did not have the feature.
        left: of those who had the feature, the share that has it still: 0 after a kill.
    """
    exposures, bad = before.exposures + after.exposures, before.bad + after.bad
    expected = None
    if control.exposures:
        expected = control.share + left * max(0.0, before.share - control.share)
    if not before.exposures or not after.exposures or not bad:
        return Aftermath(Outcome.CANNOT_TELL, before, after, expected, 0.0, float("inf"))
    low, high = ratio_interval([(after.exposures / exposures, after.bad, before.bad)], ALPHA)
    if high < 1.0:
        outcome = Outcome.FELL
    elif low > _ratio_if_it_helped(before, expected):
        outcome = Outcome.DID_NOT_FALL
    else:
        outcome = Outcome.CANNOT_TELL
    return Aftermath(outcome, before, after, expected, low, high)


def _ratio_if_it_helped(before: Requests, expected: float | None) -> float:
    if expected is None:
        return _FALL_WITHOUT_CONTROL
    return min(1.0, expected / before.share) if before.bad else 1.0


def slow_quantile(stream: str) -> float | None:
    """Return the quantile by which a stream of slow requests calls them so; None for errors'."""
    return next(
        (share for name, share in QUANTILES.items() if stream.startswith(SLOW[name].name)), None
    )


def slow_from(latencies: Iterable[Mapping[int, int]], quantile: float) -> int:
    """Return the first bucket beyond the quantile of these durations: what counts as slow."""
    merged = add_up(latencies)
    return quantile_bucket(merged, quantile) + 1 if any(merged.values()) else 0


def first_failure(document: Mapping[str, Any]) -> float | None:
    """Return when the first unit that speaks for the decision of a report failed, as far as shown.

    Seconds on the clock of the events; None where no comparison with failing units decided.
    """
    decision = document["decision"]
    arms = (decision.get("split"), decision.get("treatment"), decision.get("control"))
    times = [
        toss["t"]
        for row in document.get("comparisons", ())
        if (row["split"], row["treatment"]["variant"], row["control"]["variant"]) == arms
        and row["stream"] == decision["stream"]
        for toss in row["tosses"]
        if toss["variant"] == arms[1]
    ]
    return min(times, default=None)
