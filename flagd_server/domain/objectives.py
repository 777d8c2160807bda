"""Service level objectives: how fast an error budget burns, and what is left of it.

The alerts are those of The Site Reliability Workbook (Beyer and others, 2018), chapter 5, on
several windows and burn rates: a long window says that it matters, and a short one, a twelfth of
it, that it still goes on.

What is counted are exposures, as everywhere: a request that meets three flags is three of them.
The share that fails is then that of the requests, each weighed by its flags. How many requests
there were at the least, the busiest flag of each report tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flagd_sdk.core.latency import bucket_bounds_us, latency_bucket
from flagd_server.stats.burn import burn_rate

MIN_WINDOW_DAYS = 7
MAX_WINDOW_DAYS = 90
DEFAULT_WINDOW_DAYS = 30
WINDOW_PLACEHOLDER = "$window"

Alert = Literal["ticket", "page"]

_HOUR_S = 3_600
_DAY_S = 24 * _HOUR_S
# By the name that Prometheus has for it. Longer than a day is counted by the hour.
BURN_WINDOWS: Mapping[str, int] = {
    "5m": 300,
    "30m": 1_800,
    "1h": _HOUR_S,
    "2h": 2 * _HOUR_S,
    "6h": 6 * _HOUR_S,
    "1d": _DAY_S,
    "3d": 3 * _DAY_S,
}
BUDGET = "budget"
"""Name of the window over which the objective holds."""


@dataclass(frozen=True, slots=True)
class BurnRule:
    """Alert where both windows burn at least so fast."""

    alert: Alert
    burn: float
    long: str
    short: str


# Shares of a month's budget: 2 % in an hour, 5 % in six, 10 % in one day and in three.
BURN_RULES = (
    BurnRule("page", burn_rate(0.02, _HOUR_S), "1h", "5m"),
    BurnRule("page", burn_rate(0.05, 6 * _HOUR_S), "6h", "30m"),
    BurnRule("ticket", burn_rate(0.10, _DAY_S), "1d", "2h"),
    BurnRule("ticket", burn_rate(0.10, 3 * _DAY_S), "3d", "6h"),
)
# Of a service with little traffic, one failure is a great share. Fewer than these wake nobody.
LEAST_FAILING = 5
# Where none fails of n, the share is below 3 / n at 95 % ("rule of three").
_ENOUGH_EXPECTED = 3.0


@dataclass(frozen=True, slots=True)
class LatencyObjective:
    """At least a `share` of the exposures takes no longer than `threshold_s` seconds."""

    threshold_s: float
    share: float

    @property
    def first_slow_bucket(self) -> int:
        """The first bucket of `flagd_sdk.core.latency` that may hold what took longer."""
        threshold_us = round(self.threshold_s * 1e6)
        bucket = latency_bucket(threshold_us)
        return bucket if bucket_bounds_us(bucket)[1] > threshold_us + 1 else bucket + 1

    @property
    def counted_over_s(self) -> float:
        """Where slow begins to be counted: at most an eighth below the threshold."""
        return bucket_bounds_us(self.first_slow_bucket)[0] / 1e6

    def to_document(self) -> dict[str, Any]:
        return {"threshold_s": self.threshold_s, "share": self.share}


@dataclass(frozen=True, slots=True)
class PrometheusSource:
    """Queries that answer with the share that fails (or is slow) over `$window`."""

    url: str
    failing: str
    slow: str | None = None

    def to_document(self) -> dict[str, Any]:
        return {"url": self.url, "failing": self.failing, "slow": self.slow}


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of one window.

    Attributes:
        bad_share: None where nothing is known.
        events, bad: None where the share comes from elsewhere.
    """

    bad_share: float | None
    events: int | None = None
    bad: int | None = None

    @classmethod
    def of(cls, events: int, bad: int) -> "Counted":
        return cls(bad / events if events else None, events, bad)


NOTHING = Counted(None)


@dataclass(frozen=True, slots=True)
class ObjectiveState:
    """How one objective of a service stands.

    Attributes:
        name: "availability" or "latency".
        target: the share that has to be good.
        windows: by the names of `BURN_WINDOWS`, and `BUDGET`.
    """

    name: str
    target: float
    windows: Mapping[str, Counted]

    @property
    def allowed(self) -> float:
        return 1.0 - self.target

    def burn(self, window: str) -> float | None:
        """Return how many times too fast the budget burns; None where that is not known."""
        share = self.windows[window].bad_share
        return None if share is None else share / self.allowed

    @property
    def budget_left(self) -> float | None:
        """Share of the budget that is left: negative where more than all of it is spent."""
        burn = self.burn(BUDGET)
        return None if burn is None else 1.0 - burn

    @property
    def alert(self) -> Alert | None:
        """The most urgent alert that fires."""
        return next((rule.alert for rule in BURN_RULES if self.burns(rule)), None)

    def burns(self, rule: BurnRule) -> bool:
        """Return whether both windows burn at the rate of the rule, on more than a few failures."""
        long, short = self.burn(rule.long), self.burn(rule.short)
        if long is None or short is None or min(long, short) < rule.burn:
            return False
        return self.has_failures(rule.long)

    def has_failures(self, window: str) -> bool:
        """Return whether so many failed that it is more than a mishap."""
        bad = self.windows[window].bad
        return bad is None or bad >= LEAST_FAILING

    def lacks(self, window: str, burn: float) -> int:
        """Return how many more exposures it takes to tell that a window burns slower than this."""
        counted = self.windows[window]
        if counted.events is None:
            return 0
        needed = _ENOUGH_EXPECTED / (self.allowed * burn)
        return max(0, round(needed + 0.5) - counted.events)


@dataclass(frozen=True, slots=True)
class SloState:
    """How a service stands to what it is held to.

    Attributes:
        requests: how many there were at the least within the window; None where not counted.
        faults: why something is not known.
    """

    environment: str
    service: str
    window_days: int
    source: Literal["exposures", "prometheus"]
    objectives: tuple[ObjectiveState, ...]
    requests: int | None = None
    faults: tuple[str, ...] = ()

    @property
    def alert(self) -> Alert | None:
        alerts = {objective.alert for objective in self.objectives}
        return "page" if "page" in alerts else "ticket" if "ticket" in alerts else None

    def to_document(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "service": self.service,
            "window_days": self.window_days,
            "source": self.source,
            "requests_at_least": self.requests,
            "alert": self.alert,
            "objectives": [_document(objective) for objective in self.objectives],
            "faults": list(self.faults),
        }


def _document(state: ObjectiveState) -> dict[str, Any]:
    counted = state.windows[BUDGET]
    return {
        "objective": state.name,
        "target": state.target,
        "exposures": counted.events,
        "failing": counted.bad,
        "error_budget_left": state.budget_left,
        "burn_rates": {window: state.burn(window) for window in BURN_WINDOWS},
        "alert": state.alert,
    }
