"""How slow is slow: a service's latency over earlier hours → the thresholds its SDKs are given.

What is measured is the control's latency, over the last 24 hours, so that a treatment can't raise
its own threshold. A threshold stays for an hour, whatever happens in it: units that are compared
with one another are held to the same. All of it is a function of (minute, histogram) of those 24
hours, so it can be rebuilt from what was stored.
"""

from collections.abc import Iterable, Mapping

from flagd_sdk.core.latency import bucket_bounds_us

HOURS_KEPT = 24
MIN_EXPOSURES = 1_000
"""Fewer than ten of them beyond a p99 would leave its place to chance."""
FIRST_MINUTES = 10
"""A service that was never measured has its first threshold after so many full minutes."""

QUANTILES: Mapping[str, float] = {"p90": 0.90, "p99": 0.99}


def measured_variant(weights: Mapping[str, int], control: str | None, off_variant: str) -> str:
    """Return the variant of a split whose latency is the norm.

    It is the guard's control, else the off variant, where they have weight, else the heaviest. No
    outcome is looked at.
    """
    for candidate in (control, off_variant):
        if candidate is not None and weights.get(candidate):
            return candidate
    return max(sorted(weights), key=weights.__getitem__)


class _Hour:
    __slots__ = ("buckets", "first_minute")

    def __init__(self, first_minute: int) -> None:
        self.first_minute = first_minute
        self.buckets: dict[int, int] = {}


class LatencyHours:
    """The histograms of one service, by hour; minutes count from the Unix epoch."""

    __slots__ = ("_hours", "_minute", "_thresholds")

    def __init__(self) -> None:
        self._hours: dict[int, _Hour] = {}
        self._minute = -1
        self._thresholds: Mapping[str, float] = {}

    def add(self, minute: int, latency: Mapping[int, int]) -> None:
        """Add exposures of the control.

        Args:
            latency: bucket index, as in `flagd_sdk.core.latency`, → how many took so long.
        """
        self._advance(minute)
        hour = self._hours.get(minute // 60)
        if hour is None:
            hour = self._hours[minute // 60] = _Hour(minute)
        buckets = hour.buckets
        for bucket, count in latency.items():
            buckets[bucket] = buckets.get(bucket, 0) + count

    def slow_over_s(self, minute: int) -> Mapping[str, float]:
        """Return the thresholds in seconds, by quantile; empty while too little is known."""
        self._advance(minute)
        return self._thresholds

    def _advance(self, minute: int) -> None:
        """Let a new minute begin: whatever was added before is of full minutes."""
        if minute <= self._minute:
            return
        hour = minute // 60
        if hour != self._minute // 60:
            oldest = hour - HOURS_KEPT
            self._hours = {at: kept for at, kept in self._hours.items() if at >= oldest}
            self._thresholds = self._measure(minute)
        elif not self._thresholds:
            self._thresholds = self._measure(minute)
        self._minute = minute

    def _measure(self, minute: int) -> Mapping[str, float]:
        hours = self._hours.values()
        if not hours or minute - min(hour.first_minute for hour in hours) <= FIRST_MINUTES:
            return {}
        merged = add_up(hour.buckets for hour in hours)
        if sum(merged.values()) < MIN_EXPOSURES:
            return {}
        # The upper bound: the bucket's own durations are not slow.
        return {
            name: bucket_bounds_us(quantile_bucket(merged, share))[1] / 1e6
            for name, share in QUANTILES.items()
        }


def add_up(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Return the sum of histograms, bucket by bucket."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile_bucket(buckets: Mapping[int, int], share: float) -> int:
    """Return the first bucket up to which this share of a histogram lies; it must not be empty."""
    wanted, seen = share * sum(buckets.values()), 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            break
    return bucket
