"""Tells the story as it happens: one line an event, a row of figures every two seconds."""

import sys
import time
from collections.abc import Mapping
from typing import Any

_HEAD = (
    "          share    old checkout (off)    new checkout (on)    evidence against the flag\n"
    "                   requests   errors     requests   errors    so far / needed to kill"
)


class Timeline:
    """Writes to stdout, at once; the clock starts with it."""

    def __init__(self) -> None:
        self._started_at = time.time()

    @property
    def elapsed_s(self) -> float:
        return time.time() - self._started_at

    def say(self, *lines: str) -> None:
        """Print lines as they are."""
        print(*lines, sep="\n", flush=True)

    def head(self) -> None:
        self.say("", _HEAD)

    def event(self, text: str, at: float | None = None) -> None:
        """Print one event.

        Args:
            at: Unix time at which it happened; None is now.
        """
        seconds = self.elapsed_s if at is None else at - self._started_at
        print(f"{seconds:6.1f} s  {text}", flush=True)

    def detail(self, name: str, text: str) -> None:
        """Print what belongs to the event before."""
        print(f"              {name:<11} {text}", flush=True)

    def row(self, percent: int, evidence: Mapping[str, Any] | None) -> None:
        """Print how the comparison stands."""
        comparisons = evidence["comparisons"] if evidence else []
        standing = comparisons[0] if comparisons else None
        if standing is not None:
            old, new = _arm(standing["control"]), _arm(standing["treatment"])
            found = f"{spoken(standing['e_value'])} / {spoken(standing['threshold'])}"
        else:
            old, new, found = _arm(None), _arm(None), "nothing reported yet"
        self.event(f"{percent:3d} %    {old}  {new}   {found}")
        if standing is not None and standing["held_back"]:
            self.detail("held back", standing["held_back"])


def _arm(arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return f"{'–':>8}  {'–':>9}"
    errors = f"{arm['errors']} ({arm['error_rate']:.1%})"
    return f"{arm['exposures']:>8,}  {errors:>11}"


def spoken(value: float) -> str:
    """Return an amount of evidence as people read it."""
    if value >= 1e9:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def complain(message: str) -> None:
    """Print what went wrong, apart from the story."""
    print(f"demo: {message}", file=sys.stderr, flush=True)
