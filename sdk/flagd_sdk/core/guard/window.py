"""Exposures of the last ten minutes: of two arms, and of everything that a process serves."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from flagd_sdk.core.counts import UNTIMED, Durations
from flagd_sdk.core.latency import bucket_bounds_us
from flagd_sdk.core.model import Resolution

WINDOW_S = 600.0
_BIN_S = 10.0
_LONG_BIN_S = 60.0
_MAX_CELLS = 4_096

Cell: TypeAlias = tuple[str, str, str]
"""(flag, split, variant)."""


@dataclass(slots=True)
class RateWindow:
    """Running sums; `bins` holds [start of the bin in s, treatment, control], oldest first."""

    bins: deque[tuple[float, int, int]] = field(default_factory=deque)
    treatment: int = 0
    control: int = 0

    def add(self, t: float, treatment: int, control: int) -> None:
        self.treatment += treatment
        self.control += control
        bins = self.bins
        if bins and t < bins[-1][0] + _BIN_S:
            start, before_t, before_c = bins[-1]
            bins[-1] = (start, before_t + treatment, before_c + control)
            return
        bins.append((t - t % _BIN_S, treatment, control))
        while bins[0][0] <= t - WINDOW_S:
            _, old_t, old_c = bins.popleft()
            self.treatment -= old_t
            self.control -= old_c

    def treatment_share(self) -> float | None:
        """Return the treatment's share of the exposures, None where there were none."""
        total = self.treatment + self.control
        return self.treatment / total if total else None

    def to_document(self) -> list[tuple[float, int, int]]:
        return list(self.bins)

    @classmethod
    def from_document(cls, rows: Iterable[tuple[float, int, int]]) -> "RateWindow":
        window = cls(deque((start, t, c) for start, t, c in rows))
        window.treatment = sum(t for _, t, _ in window.bins)
        window.control = sum(c for _, _, c in window.bins)
        return window


@dataclass(slots=True)
class _Bin:
    """Exposures by cell from `start` on, and the highest latency bucket by flag."""

    start: float
    cells: dict[Cell, int] = field(default_factory=dict)
    slowest: dict[str, int] = field(default_factory=dict)


class RecentExposures:
    """Exposures of a process by cell, fed with what its summaries take."""

    def __init__(self) -> None:
        self._bins: deque[_Bin] = deque()
        self._totals: dict[Cell, int] = {}

    def add(self, taken: Mapping[Resolution, Durations], t: float) -> None:
        """Add what was counted since the last time, whatever flag it is of."""
        bins = self._bins
        if not bins or t >= bins[-1].start + _LONG_BIN_S:
            bins.append(_Bin(t))
            while bins[0].start <= t - WINDOW_S:
                bins.popleft()
        if len(self._totals) > _MAX_CELLS:
            self._totals.clear()  # flags of the past; who subtracts gets a number below 0
        _add(bins[-1].cells, taken)
        _add(self._totals, taken)
        slowest = bins[-1].slowest
        for served, durations in taken.items():
            slowest[served.flag] = max(slowest.get(served.flag, UNTIMED), *durations)

    def share(
        self, treatment: Cell, control: Cell, counted: Mapping[Resolution, Durations], t: float
    ) -> float | None:
        """Return the treatment's share of both arms, None where neither was exposed.

        Args:
            counted: what was not added yet. While no summary can be made, in a long outage, that
                is more than ten minutes; then no weight changes either.
        """
        in_treatment, in_control = _exposed(treatment, control, counted)
        for each in self._bins:
            if each.start > t - WINDOW_S:
                in_treatment += each.cells.get(treatment, 0)
                in_control += each.cells.get(control, 0)
        total = in_treatment + in_control
        return in_treatment / total if total else None

    def slowest_s(self, flag: str, counted: Mapping[Resolution, Durations]) -> float:
        """Return how long the slowest unit of work with the flag took in the last ten minutes."""
        found = [each.slowest.get(flag, UNTIMED) for each in self._bins]
        found += (max(durations) for each, durations in counted.items() if each.flag == flag)
        slowest = max(found, default=UNTIMED)
        return 0.0 if slowest == UNTIMED else bucket_bounds_us(slowest)[1] / 1e6

    def total(
        self, treatment: Cell, control: Cell, counted: Mapping[Resolution, Durations]
    ) -> tuple[int, int]:
        """Return how often both were exposed since the start; compare with an earlier answer."""
        in_treatment, in_control = _exposed(treatment, control, counted)
        totals = self._totals
        return in_treatment + totals.get(treatment, 0), in_control + totals.get(control, 0)


def _exposed(
    treatment: Cell, control: Cell, counted: Mapping[Resolution, Durations]
) -> tuple[int, int]:
    exposed: dict[Cell, int] = {}
    _add(exposed, {each: n for each, n in counted.items() if each.flag == treatment[0]})
    return exposed.get(treatment, 0), exposed.get(control, 0)


def _add(cells: dict[Cell, int], counted: Mapping[Resolution, Durations]) -> None:
    for served, durations in counted.items():
        if served.split is not None and served.variant is not None:
            cell = served.flag, served.split, served.variant
            cells[cell] = cells.get(cell, 0) + sum(durations.values())
