"""What the order and the cut of reports may change, and what it may not.

The stored order is the truth: E depends on which summary came when, through the clock of its prior
and through which units were new. What does *not* matter is tested here:

- how one summary is divided into cells, and the order of cells, kinds and units in it;
- which of several processes reported a unit first, as long as it is in the same place of the order;
- for sums (requests of either arm, tosses, units of every stream that opened with the life): the
  order of summaries altogether, where no two of them carry the same unit.

And for summaries that carry disjoint units and were committed at one time, E of a stream that is
already open does not depend on their order either: no mass is injected between them.
"""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.metrics import SAMPLE_RATIO
from flagd_server.domain.guard.records import Cell, Event
from tests.properties.guard_lives import (
    KINDS,
    at_even_times,
    disjoint_summaries,
    e_values,
    live,
    summary,
)

ORDERS = st.randoms(use_true_random=False)


def totals(life: FlagGuard) -> object:
    """Everything that is a sum: requests, and units by side of each all-errors stream and kind."""
    (pair,) = life.pairs.values()
    arms = pair.arms
    return (
        [arms.in_treatment, arms.in_control],
        {
            (comparison.metric.name, comparison.kind_of(stream)): (
                stream.in_treatment,
                stream.in_control,
                round(stream.treatment_mass, 9),
                round(stream.control_mass, 9),
            )
            for comparison in pair.comparisons.values()
            for stream in (comparison.epochs[0].errors, *comparison.epochs[0].kinds.values())
        },
        {name: len(comparison.log) for name, comparison in pair.comparisons.items()},
        pair.sample.epochs[0].errors.expected_share,
    )


@given(disjoint_summaries(), ORDERS)
@settings(max_examples=60, deadline=None)
def test_sums_and_the_sample_do_not_depend_on_the_order_of_summaries(
    summaries: list[tuple[Cell, ...]], random: Random
) -> None:
    shuffled = random.sample(summaries, len(summaries))
    assert totals(live(at_even_times(summaries))) == totals(live(at_even_times(shuffled)))


@given(disjoint_summaries(), ORDERS)
@settings(max_examples=60, deadline=None)
def test_at_one_time_e_of_what_hears_all_does_not_depend_on_the_order_of_summaries(
    summaries: list[tuple[Cell, ...]], random: Random
) -> None:
    """But for rounding: products of the same factors in another order.

    It holds for streams that opened before; a kind's opens at its first event, and its share of
    alpha goes by the order of appearance. The first summary is left in its place: the prior's first
    mass is bet before it.
    """
    first, *others = summaries
    opening = summary([(1_000 + 4 * k, k) for k in range(len(KINDS))], "i1")
    shuffled = random.sample(others, len(others))
    before, after = (
        e_values(live([Event(0.0, opening), Event(1.0, first), *(Event(1.0, e) for e in order)]))
        for order in (others, shuffled)
    )
    assert after == pytest.approx(before, rel=1e-9)


@given(disjoint_summaries(), ORDERS)
@settings(max_examples=60, deadline=None)
def test_how_a_summary_is_divided_into_cells_changes_no_bit(
    summaries: list[tuple[Cell, ...]], random: Random
) -> None:
    divided = []
    for cells in summaries:
        parts = []
        for cell in cells:
            pairs = [(kind, unit) for kind, found in cell.units.items() for unit in found]
            random.shuffle(pairs)
            cut = random.randint(0, len(pairs))
            for part, exposures, errors in (
                (pairs[:cut], cell.exposures, cell.errors),
                (pairs[cut:], 0, 0),
            ):
                by_kind: dict[str, tuple[str, ...]] = {}
                for kind, unit in part:
                    by_kind[kind] = (*by_kind.get(kind, ()), unit)
                parts.append(cell._replace(exposures=exposures, errors=errors, units=by_kind))
        random.shuffle(parts)
        divided.append(tuple(parts))
    whole, parted = live(at_even_times(summaries)), live(at_even_times(divided))
    assert e_values(whole) == e_values(parted)
    assert [pair.to_document() for pair in whole.pairs.values()] == [
        pair.to_document() for pair in parted.pairs.values()
    ]


@given(disjoint_summaries(), ORDERS)
@settings(max_examples=60, deadline=None)
def test_who_reports_a_unit_changes_no_e_value(
    summaries: list[tuple[Cell, ...]], random: Random
) -> None:
    by_others = [
        tuple(cell._replace(instance=random.choice("abc"), token=random.choice("xy")) for cell in s)
        for s in summaries
    ]
    assert e_values(live(at_even_times(summaries))) == e_values(live(at_even_times(by_others)))


@given(disjoint_summaries(), ORDERS)
@settings(max_examples=60, deadline=None)
def test_resends_and_second_reports_toss_nothing_in_any_metric(
    summaries: list[tuple[Cell, ...]], random: Random
) -> None:
    """Whatever was reported comes again, later, in any mixture and by any process."""
    events = at_even_times(summaries)
    repeated = list(events[:1])
    for position, event in enumerate(events[1:], start=1):
        earlier = random.choice(events[:position])
        again = tuple(c._replace(instance="again", exposures=0, errors=0) for c in earlier.cells)
        repeated += [Event(event.t, again), event]
    once, twice = live(events), live(repeated)
    assert e_values(once) == e_values(twice)
    (pair,), (other,) = once.pairs.values(), twice.pairs.values()
    for name, comparison in pair.comparisons.items():
        assert [toss[:5] for toss in other.comparisons[name].log] == [
            toss[:5] for toss in comparison.log
        ]
    assert SAMPLE_RATIO.name in pair.comparisons
