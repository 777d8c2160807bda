"""Exposures of the two arms over the last ten minutes, in bins of ten seconds."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

WINDOW_S = 600.0
_BIN_S = 10.0


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
