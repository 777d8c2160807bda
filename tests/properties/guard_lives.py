"""Lives of a guard for the properties: summaries with disjoint units, and what came of them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Cell, Event, Policy
from tests.server.domain.guard.recordings import QUARTER, units

KINDS = ["error:A", "error:B", "slow:p99", "near:p99", "slow:p90", "exposed"]
# Nothing is decided, so that every life hears every event.
POLICY = Policy(alpha=1e-300, control="off", slow=("p99", "p90"))


def summary(failing: Sequence[tuple[int, int]], instance: str) -> tuple[Cell, ...]:
    """Both sides of a summary; each unit, given as (number, index of its kind), once."""
    by_side: dict[str, dict[str, list[int]]] = {"on": {}, "off": {}}
    for number, kind in failing:
        by_side["on" if number % 4 == 0 else "off"].setdefault(KINDS[kind], []).append(number)
    return tuple(
        Cell(
            "default",
            variant,
            QUARTER,
            1,
            instance,
            exposures=20,
            errors=len(kinds),
            units={kind: units(numbers) for kind, numbers in kinds.items()},
        )
        for variant, kinds in by_side.items()
    )


@st.composite
def disjoint_summaries(draw: st.DrawFn) -> list[tuple[Cell, ...]]:
    numbers = iter(draw(st.permutations(range(120))))
    found = []
    for size in draw(st.lists(st.integers(0, 12), min_size=1, max_size=9)):
        failing = [(next(numbers), draw(st.integers(0, len(KINDS) - 1))) for _ in range(size)]
        found.append(summary(failing, draw(st.sampled_from(["i1", "i2", "i3"]))))
    return found


def live(events: Sequence[Event]) -> FlagGuard:
    life = FlagGuard(POLICY, 0.0)
    for event in events:
        life.observe(event)
    return life


def at_even_times(summaries: Sequence[tuple[Cell, ...]]) -> list[Event]:
    return [Event(10.0 * k, cells) for k, cells in enumerate(summaries)]


def e_values(life: FlagGuard) -> dict[tuple[str, str], float]:
    return {
        (comparison.metric.name, comparison.name_of(epoch, stream)): stream.coin.value
        for pair in life.pairs.values()
        for comparison in pair.comparisons.values()
        for epoch, stream in comparison.streams()
    }
