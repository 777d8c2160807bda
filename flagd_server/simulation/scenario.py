"""What a simulated life is like: its users, their traffic, its troubles, the fault of its flag."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin
from typing import NamedTuple

HOUR_S, DAY_S = 3_600.0, 86_400.0
KINDS = 10

Shape = Callable[[float], float]
"""A factor over time; constant for ten seconds at a time."""


def steady(t: float) -> float:
    """Change nothing."""
    return 1.0


def outage(t: float) -> float:
    """Fail fifty times as much for five minutes of each hour."""
    return 50.0 if 1_800.0 <= t % HOUR_S < 2_100.0 else 1.0


def bursts(t: float) -> float:
    """Fail thirty times as much for ten seconds of every two minutes."""
    return 30.0 if t % 120.0 < 10.0 else 1.0


def diurnal(t: float) -> float:
    """Swing the load between a fifth and nearly twice its mean, a day in four hours."""
    return 1.0 + 0.8 * sin(2.0 * pi * t / (4 * HOUR_S))


class Fault(NamedTuple):
    """The feature multiplies its users' chance to fail, or to be slow, from `at_s` on.

    Attributes:
        has_new_kind: the failures it adds have a kind of their own, else the usual ten.
        is_announced: the server itself made a change just then.
        is_slowness: it makes users slow and nobody fail.
    """

    ratio: float
    has_new_kind: bool = False
    at_s: float = 0.0
    is_announced: bool = False
    is_slowness: bool = False


class Trouble(NamedTuple):
    """Some processes fail more, whatever variant they serve: a sick host or a bad version.

    Attributes:
        processes: how many of them, counted from the first.
        extra_rate: failing share of their requests, beyond the base.
        is_release: they run a new version from then on, and the server says so.
    """

    processes: int
    extra_rate: float
    from_s: float
    until_s: float
    is_release: bool = False


class Renamed(NamedTuple):
    """The feature changes the names of its users' errors.

    Attributes:
        kinds: of how many kinds, counted from the most frequent.
        share: of their errors that have the new name.
    """

    kinds: int = KINDS
    share: float = 1.0


@dataclass(frozen=True)
class Scenario:
    """One kind of life. Its lives differ by name and seed.

    Attributes:
        base: failing share of requests without any trouble, over ten kinds.
        zipf: exponent of the users' volumes by rank.
        ramp: (s, share in percent) of each change of weights; the first is the start.
        asks: requests of a treatment's user, relative to the same user without the feature.
        renamed: errors of the treatment have other names, and are no more often.
        retries: a failed request is tried again so often, and fails again.
        slow: share of the users, as each is looked at once an hour, who are over the threshold
            for latency in the control.
        sampled: share of the users whose first exposure is reported.
        lost: share of the treatment's first exposures that never arrive: a sample-ratio fault.
        failing: factor on everybody's failures over time; `load` the same on requests.
    """

    name: str
    base: float = 0.01
    duration_s: float = 4 * HOUR_S
    units: int = 20_000
    requests_per_s: float = 50.0
    zipf: float = 0.8
    processes: int = 3
    ramp: tuple[tuple[float, float], ...] = ((0.0, 25.0),)
    asks: float = 1.0
    renamed: Renamed | None = None
    retries: int = 0
    slow: float = 0.0
    sampled: float = 0.0
    lost: float = 0.0
    fault: Fault | None = None
    trouble: Trouble | None = None
    failing: Shape = steady
    load: Shape = steady

    @property
    def began_s(self) -> float:
        """When what is to be found began: the fault's beginning, else the start."""
        return 0.0 if self.fault is None else self.fault.at_s
