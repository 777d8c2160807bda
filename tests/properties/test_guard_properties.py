"""What must hold of the guard whatever is reported: same bits, once per life, blind to labels."""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Cell, Event, Policy, parse_event

WEIGHTS = {1: {"on": 1_000, "off": 99_000}, 2: {"on": 25_000, "off": 75_000}}

KINDS = st.sampled_from(["error:A", "error:B", "error:C", "slow:p99"])
# Few units, so that many come again; a unit's side follows from its number and the version, as
# from a hash.
UNITS = st.integers(0, 60)


def variant_of(unit: int, version: int) -> str:
    bucket = unit * 7_919 % 100
    return "on" if bucket < WEIGHTS[version]["on"] // 1_000 else "off"


@st.composite
def summaries(draw: st.DrawFn) -> tuple[Cell, ...]:
    version, instance = draw(st.sampled_from([1, 2])), draw(st.sampled_from(["i1", "i2", "i3"]))
    failing = draw(st.lists(st.tuples(UNITS, KINDS), max_size=6))
    cells = []
    for variant in ("on", "off"):
        units: dict[str, list[str]] = {}
        for unit, kind in failing:
            if variant_of(unit, version) == variant:
                units.setdefault(kind, []).append(f"{unit * 0x9E3779B97F4A7C15 % (1 << 64):016x}")
        cells.append(
            Cell(
                split="default",
                variant=variant,
                weights=WEIGHTS[version],
                config_version=version,
                instance=instance,
                exposures=draw(st.integers(6, 100)),
                errors=sum(map(len, units.values())),
                units={kind: tuple(hashes) for kind, hashes in units.items()},
            )
        )
    return tuple(cells)


@st.composite
def recordings(draw: st.DrawFn) -> list[Event]:
    events, t = [], 0.0
    for cells in draw(st.lists(summaries(), max_size=40)):
        t += draw(st.sampled_from([0.0, 0.25, 11.0, 700.0, 23_000.0]))
        announced = draw(st.sampled_from([None, None, None, None, "weights"]))
        events.append(Event(t, cells, announced))
    return events


def run(events: Sequence[Event]) -> FlagGuard:
    life = FlagGuard(Policy(alpha=0.05, control="off"), 0.0)
    for event in events:
        life.observe(event)
    return life


@given(recordings(), st.sets(st.integers(0, 40), max_size=4))
@settings(max_examples=60, deadline=None)
def test_restarts_at_any_points_leave_the_same_bits(events: list[Event], cuts: set[int]) -> None:
    life = FlagGuard(Policy(alpha=0.05, control="off"), 0.0)
    for position, event in enumerate(events):
        if position in cuts:
            life = FlagGuard.from_document(json.loads(json.dumps(life.to_document())))
        life.observe(parse_event(json.loads(json.dumps(event.to_document()))))
    assert life.to_document() == run(events).to_document()
    assert life.decision == run(events).decision


@given(recordings(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_reports_of_units_already_reported_toss_nothing(
    events: list[Event], random: Random
) -> None:
    """A summary that repeats units of the one before, by the same process or by another."""
    repeated = []
    for event in events:
        repeated.append(event)
        instance = random.choice(["i1", "i2", "i3"])
        again = tuple(cell._replace(instance=instance) for cell in event.cells)
        repeated.append(Event(event.t, again))
    once, twice = run(events), run(repeated)
    for comparison, other in zip(once.comparisons, twice.comparisons, strict=True):
        assert [toss[:5] for toss in other.log] == [toss[:5] for toss in comparison.log]
        for (_, a), (_, b) in zip(comparison.streams(), other.streams(), strict=True):
            assert a.coin == b.coin


@given(recordings(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_within_a_summary_does_not_matter(events: list[Event], random: Random) -> None:
    shuffled = []
    for event in events:
        cells = []
        for cell in event.cells:
            kinds = [(kind, random.sample(hs, len(hs))) for kind, hs in cell.units.items()]
            random.shuffle(kinds)
            cells.append(cell._replace(units={kind: tuple(hs) for kind, hs in kinds}))
        random.shuffle(cells)
        shuffled.append(replace(event, cells=tuple(cells)))
    first, second = run(events).to_document(), run(shuffled).to_document()
    assert first == second


@given(recordings())
@settings(max_examples=60, deadline=None)
def test_what_is_kept_and_when_streams_open_is_the_same_if_all_sides_were_swapped(
    events: list[Event],
) -> None:
    """Everything but the coins themselves is blind to the side."""
    other = {"on": "off", "off": "on"}
    swapped = [
        replace(
            event,
            cells=tuple(
                cell._replace(
                    variant=other[cell.variant],
                    weights={other[name]: weight for name, weight in cell.weights.items()},
                )
                for cell in event.cells
            ),
        )
        for event in events
    ]
    policy = Policy(alpha=1e-300, control="off")
    lives = FlagGuard(policy, 0.0), FlagGuard(policy, 0.0)
    for event, mirrored in zip(events, swapped, strict=True):
        lives[0].observe(event)
        lives[1].observe(mirrored)
    for comparison, mirror in zip(lives[0].comparisons, lives[1].comparisons, strict=True):
        assert [(t.batch, t.unit, t.kind, t.instance) for t in comparison.log] == [
            (t.batch, t.unit, t.kind, t.instance) for t in mirror.log
        ]
        assert [(e.name, s.kind, s.share, s.opened_s) for e, s in comparison.streams()] == [
            (e.name, s.kind, s.share, s.opened_s) for e, s in mirror.streams()
        ]
