"""The guarantee itself, by running through every way in which small cases can fall.

Nothing is sampled here: each assignment of the failing units to the sides has its exact
probability, and the mean of the evidence over all of them is at most 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import pytest

from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.metrics import ERRORS
from flagd_server.domain.guard.records import Cell
from tests.server.domain.guard.recordings import see

MARGIN = 1.05
ANNOUNCED_BEFORE = 3


@dataclass(frozen=True)
class Failing:
    """A unit that fails: in which summary, with which kind, under which weight of "on"."""

    unit: int
    summary: int
    kind: str = "error:A"
    on: int = 25_000


# Spread over the range of the hashes, so that thinning leaves about half of them.
HASHES = [n * 0x9E3779B97F4A7C15 % (1 << 64) for n in range(1, 40)]

ONE_BY_ONE = [Failing(n, n) for n in range(9)]
BATCHES = [Failing(n, n // 3) for n in range(9)]
ONE_OUTAGE = [Failing(n, 0) for n in range(9)]
RAMP = [Failing(n, n // 2, on=[1_000, 5_000, 25_000, 50_000, 99_000][n // 2]) for n in range(9)]
KINDS = [Failing(n, n // 2, kind=f"error:{'AABCBAABC'[n]}") for n in range(9)]
REPEATED = [Failing(n % 5, n, kind=f"error:{'AABAAABBA'[n]}") for n in range(9)]
CASES = {
    "one by one": ONE_BY_ONE,
    "batches": BATCHES,
    "one outage": ONE_OUTAGE,
    "ramp": RAMP,
    "kinds": KINDS,
    "repeated": REPEATED,
}


def assignments(
    case: Sequence[Failing], true_ratio: float
) -> Iterator[tuple[float, Mapping[int, bool]]]:
    """Yield (probability, unit → is in the treatment); a unit's first failure is its coin."""
    coin: dict[int, float] = {}
    for failing in case:
        s = failing.on / 100_000
        coin.setdefault(failing.unit, true_ratio * s / (true_ratio * s + 1 - s))
    for sides in product((False, True), repeat=len(coin)):
        treated = dict(zip(coin, sides, strict=True))
        yield prod(p if treated[unit] else 1 - p for unit, p in coin.items()), treated


def cells_of(case: Sequence[Failing], treated: Mapping[int, bool], summary: int) -> list[Cell]:
    return [
        Cell(
            split="default",
            variant="on" if treated[failing.unit] else "off",
            weights={"on": failing.on, "off": 100_000 - failing.on},
            config_version=failing.on,
            instance="i1",
            exposures=1,
            errors=1,
            units={failing.kind: (f"{HASHES[failing.unit]:016x}",)},
        )
        for failing in case
        if failing.summary == summary
    ]


def lives(
    case: Sequence[Failing], true_ratio: float, *, tau: int = 1 << 64
) -> Iterator[tuple[float, list[dict[str, float]]]]:
    """Yield (probability, stream → e-value after each summary) for each way the case can fall."""
    for probability, treated in assignments(case, true_ratio):
        comparison = Comparison.start(Arms("default", "on", "off"), ERRORS, MARGIN, 0.0)
        comparison.tau = tau
        path: list[dict[str, float]] = []
        for summary in range(max(failing.summary for failing in case) + 1):
            t = 700.0 * summary
            if summary == ANNOUNCED_BEFORE:
                comparison.announce(t, "weights")
            see(comparison, t, cells_of(case, treated, summary))
            path.append(
                {
                    comparison.name_of(epoch, stream): stream.coin.value
                    for epoch, stream in comparison.streams()
                }
            )
        yield probability, path


def means(
    case: Sequence[Failing], true_ratio: float, *, tau: int = 1 << 64
) -> list[dict[str, float]]:
    """Return the mean of each stream's e-value at each look; 1 while it is not open."""
    total: list[dict[str, float]] = []
    for probability, path in lives(case, true_ratio, tau=tau):
        total = total or [{} for _ in path]
        for at, values in zip(total, path, strict=True):
            for name, value in values.items():
                at[name] = at.get(name, 0.0) + probability * value
    return total


@pytest.mark.parametrize("tau", [1 << 64, 1 << 63], ids=["all units", "thinned by hash"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_at_the_margin_every_stream_has_mean_one_at_every_look(
    case: Sequence[Failing], tau: int
) -> None:
    for at in means(case, MARGIN, tau=tau):
        assert at == pytest.approx(dict.fromkeys(at, 1.0), abs=1e-9)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("true_ratio", [1.0, 0.5])
def test_below_the_margin_no_stream_has_a_mean_above_one(
    case: Sequence[Failing], true_ratio: float
) -> None:
    final = means(case, true_ratio)[-1]
    assert max(final.values()) < 1.0


@pytest.mark.parametrize("bar", [1.5, 3.0, 10.0, 50.0])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_chance_of_ever_reaching_a_bar_is_at_most_one_in_it(
    case: Sequence[Failing], bar: float
) -> None:
    reached: dict[str, float] = {}
    for probability, path in lives(case, MARGIN):
        for name in {name for at in path for name in at}:
            if any(at.get(name, 0.0) >= bar for at in path):
                reached[name] = reached.get(name, 0.0) + probability
    assert max(reached.values(), default=0.0) <= 1.0 / bar


def test_looking_between_the_sides_of_a_summary_would_break_it() -> None:
    """So the test above can fail: with one look between the sides it does."""
    case, bar, reached = [Failing(n, 0) for n in range(9)], 3.0, 0.0
    for probability, treated in assignments(case, MARGIN):
        comparison = Comparison.start(Arms("default", "on", "off"), ERRORS, MARGIN, 0.0)
        highest = 0.0
        cells = cells_of(case, treated, 0)
        for variant in ("on", "off"):
            see(comparison, 0.0, [cell for cell in cells if cell.variant == variant])
            highest = max(highest, comparison.epochs[0].errors.coin.value)
        reached += probability * (highest >= bar)
    assert reached > 1.0 / bar
