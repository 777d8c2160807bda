"""A reporter that forges unit events: it kills nothing, is found, and hides no fault for long."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from random import Random

import pytest

from flagd_server.domain.guard.arms import Arms
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.poisoning import find_suspect
from flagd_server.domain.guard.records import Cell, Event
from tests.server.domain.guard.recordings import BOOM, cell, feed, guard

MILLION = 1_000_000
FORGED_FROM = 10_000_000
HONEST = ("i1", "i2", "i3", "i4")

Forger = Callable[[int], tuple[str, str]]
"""Number of its summary → the process's name and the token that it comes by."""


def process(_number: int) -> tuple[str, str]:
    """The fifth process of five that share one token."""
    return "i5", "shop"


def token(_number: int) -> tuple[str, str]:
    """One process with a token of its own."""
    return "evil", "leaked"


def token_of_many_names(number: int) -> tuple[str, str]:
    return f"evil {number % 1_000}", "leaked"


def borrowed_names(number: int) -> tuple[str, str]:
    """Its own token, but the names of the honest processes."""
    return HONEST[number % len(HONEST)], "leaked"


FORGERS = [process, token, token_of_many_names, borrowed_names]
SIDES = {"treatment": ("on",), "control": ("off",), "by the weights": ("on", "off", "off", "off")}


def forged(
    life: FlagGuard,
    t: float,
    variants: Sequence[str],
    forger: Forger,
    *,
    count: int = MILLION,
    summaries: int = 10,
    claimed: float = 1.0,
    kinds: int = 1,
    first: int = FORGED_FROM,
) -> None:
    """Forge so many failing units, all at time t; `claimed` is exposures for each of them."""
    each = count // summaries
    for number in range(summaries):
        by_side: dict[str, list[int]] = {}
        numbers = range(first + number * each, first + (number + 1) * each)
        for unit, variant in zip(numbers, cycle(variants), strict=False):
            by_side.setdefault(variant, []).append(unit)
        cells = []
        for variant, units in by_side.items():
            name, own_token = forger(number)
            by_kind = {f"error:Forged{kind}": units[kind::kinds] for kind in range(kinds)}
            exposures = int(len(units) * claimed)
            cells.append(
                cell(variant, by_kind, exposures=exposures, instance=name, token=own_token)
            )
        feed(life, t, *cells)


def honest(seed: int, *, ratio: float = 1.0, base: float = 0.01) -> Iterator[list[Cell]]:
    """Yield summaries of four processes, ten exposures each, a unit an exposure, without end."""
    random, unit = Random(f"honest {seed}"), 0
    for instance in cycle(HONEST):
        failing: dict[str, list[int]] = {"on": [], "off": []}
        exposures = {"on": 0, "off": 0}
        for _ in range(10):
            unit += 1
            variant = "on" if random.random() < 0.25 else "off"
            exposures[variant] += 1
            if random.random() < base * (ratio if variant == "on" else 1.0):
                failing[variant].append(unit)
        yield [
            cell(name, failing[name], exposures=exposures[name], instance=instance, token="shop")
            for name in ("on", "off")
        ]


FEW = 20_000
MANY = 100_000
CASES = [
    (process, "treatment", MILLION, 1.0),
    (token, "by the weights", MILLION, 1.0),
    *((forger, "treatment", MANY, 1.0) for forger in FORGERS),
    (process, "control", MANY, 1.0),
    *((forger, side, FEW, 0.0) for forger in FORGERS for side in SIDES),
    # Claimed exposures excuse events up to a hundred times the others' exposures, and no further.
    *((forger, "treatment", 5 * FEW, 10.0) for forger in FORGERS),
]


@pytest.mark.parametrize(("forger", "side", "count", "claimed"), CASES)
def test_forged_events_kill_nothing_are_noticed_and_leave_no_trace(
    forger: Forger, side: str, count: int, claimed: float
) -> None:
    life = guard()
    summaries = honest(1)
    for t, cells in enumerate(islice(summaries, 100)):
        feed(life, float(t), *cells)
    # A thousand names need a thousand summaries; else few are enough.
    number = 1_000 if forger is token_of_many_names else 10
    forged(life, 100.0, SIDES[side], forger, count=count, summaries=number, claimed=claimed)
    assert not life.decision.kill
    for t, cells in enumerate(islice(summaries, 100), start=101):
        feed(life, float(t), *cells)
        assert not life.decision.kill
    told = [alarm.kind for alarm in life.take_alarms()]
    assert "poisoned_telemetry" in told
    assert len(told) <= len(HONEST), "one alarm for each that is set aside, not one for each lie"
    (comparison,) = life.comparisons
    instances = list(comparison.arms.instances.values())
    believed = [instances[toss.instance] for toss in comparison.log]
    assert {(each.name, each.token) for each in believed} <= {(name, "shop") for name in HONEST}
    assert comparison.arms.in_treatment.exposures + comparison.arms.in_control.exposures == 2_000


def confirm(life: FlagGuard, start: float) -> None:
    """Let everybody report for as long as it takes to be sure who is out of proportion."""
    for t, cells in enumerate(islice(honest(9), 12)):
        feed(life, start + t, *(each._replace(units={}, errors=0) for each in cells))
    feed(life, start + 12.0, cell("off", [9_999_999], instance="i1", token="shop"))


def exposures_to_kill(
    seed: int, forge: Callable[[FlagGuard, int], None] = lambda life, t: None
) -> int:
    """Return the treatment's and control's honest exposures at which a 5 % fault is killed."""
    life = guard()
    for t, cells in enumerate(islice(honest(seed, ratio=5.0), 1_000)):
        feed(life, float(t), *cells)
        forge(life, t)
        if life.has_killed:
            return (t + 1) * 10
    raise AssertionError("it was never killed")


@pytest.mark.parametrize("forger", FORGERS, ids=lambda forger: forger.__name__)
@pytest.mark.parametrize("variants", SIDES.values(), ids=SIDES.keys())
def test_a_fault_of_five_against_one_percent_is_killed_while_the_forging_goes_on(
    variants: Sequence[str], forger: Forger
) -> None:
    def forge(life: FlagGuard, t: int) -> None:
        # From when the four honest processes have been heard of, each once.
        if t >= 4:
            first = FORGED_FROM + t * 2_000
            forged(life, t, variants, forger, count=2_000, summaries=4, first=first)

    for seed in range(2):
        alone, attacked = exposures_to_kill(seed), exposures_to_kill(seed, forge)
        assert 0.5 * alone <= attacked <= 1.1 * alone


def test_an_instance_of_another_token_does_not_take_the_honest_one_of_its_name_with_it() -> None:
    arms = Arms("default", "on", "off")
    arms.observe(0.0, [cell("on", instance=name, token="shop") for name in HONEST])
    arms.observe(0.0, [cell("on", instance="i1", token="leaked")])
    suspect = find_suspect(arms, {0: 5, 4: 500})
    assert suspect is not None
    assert [(each.name, each.token) for each in suspect.instances] == [("i1", "leaked")]


class TestProportion:
    """Arms of four processes with a thousand exposures each."""

    def suspect(self, units: Sequence[int], exposures: Sequence[int] = (1_000,) * 4) -> str | None:
        arms = Arms("default", "on", "off")
        for name, count in zip(HONEST, exposures, strict=False):
            arms.observe(0.0, [cell("on", exposures=count, instance=name)])
        found = find_suspect(arms, dict(enumerate(units)))
        return None if found is None else f"{found.who} {found.name}"

    def test_two_hundred_events_are_never_too_many(self) -> None:
        assert self.suspect([0, 0, 0, 200]) is None
        assert self.suspect([0, 0, 0, 201]) == "process i4"

    def test_twenty_times_the_others_together_are_too_many(self) -> None:
        assert self.suspect([30, 30, 30, 2_000]) is None
        assert self.suspect([30, 30, 30, 2_001]) == "process i4"

    def test_a_sick_host_is_in_proportion(self) -> None:
        assert self.suspect([10, 10, 10, 500]) is None

    def test_who_serves_more_may_fail_more(self) -> None:
        assert self.suspect([30, 30, 30, 20_000], [1_000, 1_000, 1_000, 30_000]) is None

    def test_of_two_processes_nobody_can_say_which_is_out_of_proportion(self) -> None:
        assert self.suspect([0, 10_000], [1_000, 1_000]) is None


def test_what_a_forger_said_of_other_metrics_in_the_same_summary_is_not_believed_either() -> None:
    life = guard(guards=("error_rate", "latency"))
    for t, cells in enumerate(islice(honest(1), 100)):
        feed(life, float(t), *cells)
    forgery = {BOOM: range(FORGED_FROM, FORGED_FROM + 1_000), "slow:p99": range(50, 150)}
    feed(life, 100.0, cell("on", forgery, instance="i5", token="leaked"))
    confirm(life, 101.0)
    more = {BOOM: [FORGED_FROM - 1], "slow:p99": range(250, 350)}
    feed(life, 114.0, cell("on", more, instance="i5", token="leaked"))
    _errors, slow = life.comparisons
    assert len(slow.log) == 0


def test_a_second_forger_is_found_as_soon_as_the_first_although_the_log_was_longer_then() -> None:
    life = guard()
    for t, cells in enumerate(islice(honest(1), 100)):
        feed(life, float(t), *cells)
    forged(life, 100.0, ("on",), lambda _: ("evil", "a"), count=50_000)
    confirm(life, 101.0)
    later = FORGED_FROM * 2
    forged(life, 114.0, ("on",), lambda _: ("worse", "b"), count=1_000, summaries=1, first=later)
    feed(life, 125.0, cell("off", [9_999_998], instance="i1", token="shop"))
    assert [row["name"] for row in life.pairs["default", "on", "off"].set_aside] == [
        "evil",
        "worse",
    ]


def test_who_forged_before_anybody_else_had_reported_is_found_once_others_have() -> None:
    """And although the log, thinned by then, will never again be as long as it was."""
    life = guard()
    forged(life, 0.0, ("on", "off", "off", "off"), process, count=150_000)
    for t, cells in enumerate(islice(honest(1), 200)):
        feed(life, float(t), *cells)
    assert [row["name"] for row in life.pairs["default", "on", "off"].set_aside] == ["i5"]


def test_a_flood_of_kinds_leaves_room_for_the_honest_ones() -> None:
    life = guard()
    for t, cells in enumerate(islice(honest(1), 100)):
        feed(life, float(t), *cells)
    forged(life, 100.0, ("on",), process, count=20_000, kinds=500)
    confirm(life, 101.0)
    (comparison,) = life.comparisons
    assert list(comparison.kinds) == [BOOM]
    assert life.take_alarms()
    for number in range(12):
        new = {"error:New": [number]}
        on = cell("on", new, instance=HONEST[number % 4], token="shop")
        feed(life, 120.0 + number, on, cell("off", instance=HONEST[number % 4], token="shop"))
    assert life.decision.kill
    assert life.decision.stream.startswith("error:New")


class TestPatientForger:
    """Below the thresholds nobody is set aside; this is what can be done there at most."""

    def test_one_process_of_five_or_one_token_of_two_still_kills_nothing(self) -> None:
        for forger in FORGERS:
            life = guard()
            for t, cells in enumerate(islice(honest(2), 400)):
                feed(life, float(t), *cells)
                if t % 2 == 0:
                    forged(life, t, ("on",), forger, count=1, summaries=1, first=FORGED_FROM + t)
                assert not life.decision.kill
            assert life.decision.hold, "a rollout waits, and the reason says for whom"
            assert not life.take_alarms()

    def test_nor_when_it_falls_silent_afterwards(self) -> None:
        """After ten minutes it does not serve any more; but the honest ones still contradict."""
        for forger in (process, token):
            life = guard()
            for t, cells in enumerate(islice(honest(2), 400)):
                feed(life, 10.0 * t, *cells)
                if t < 100:
                    forged(
                        life, 10.0 * t, ("on",), forger, count=1, summaries=1, first=FORGED_FROM + t
                    )
            assert not life.decision.kill

    def test_on_the_controls_side_it_delays_the_kill_of_a_fault_to_three_times(self) -> None:
        """Two hundred forged failures of the control have to be outweighed by honest ones."""

        def forge(life: FlagGuard, t: int) -> None:
            if t < 199:
                forged(life, t, ("off",), process, count=1, summaries=1, first=FORGED_FROM + t)

        for seed in range(3):
            assert exposures_to_kill(seed, forge) <= 3.0 * exposures_to_kill(seed)

    def test_who_has_the_only_token_and_invents_three_processes_can_kill(self) -> None:
        """A token is the identity: who may report under any name is as many as he likes."""
        life = guard()
        for t, cells in enumerate(islice(honest(2), 100)):
            feed(life, float(t), *cells)
            names = cycle([f"i{5 + t % 3}"])
            forged(
                life,
                t,
                ("on",),
                lambda _, names=names: (next(names), "shop"),
                count=1,
                summaries=1,
                first=FORGED_FROM + t,
            )
        assert life.decision.kill


def test_who_is_set_aside_stays_so_over_a_restart_and_by_any_new_name() -> None:
    life = guard()
    summaries = honest(1)
    for t, cells in enumerate(islice(summaries, 100)):
        feed(life, float(t), *cells)
    forged(life, 100.0, SIDES["treatment"], token_of_many_names, count=5_000, summaries=5)
    again = FlagGuard.from_document(json.loads(json.dumps(life.to_document())))
    for each in (life, again):
        confirm(each, 101.0)
        for t, cells in enumerate(islice(honest(3), 50), start=120):
            each.observe(Event(float(t), tuple(cells)))
            unseen = cell("on", [FORGED_FROM * 2 + t], instance=f"new {t}", token="leaked")
            each.observe(Event(float(t), (unseen,)))
    assert again.to_document() == life.to_document()
    (comparison,) = life.comparisons
    believed = [list(comparison.arms.instances.values())[toss.instance] for toss in comparison.log]
    assert {each.token for each in believed} == {"shop"}


def test_at_the_onset_of_a_total_failure_nobody_who_reports_first_is_taken_for_a_forger() -> None:
    """Each process reports once a second: the others are heard of a moment later."""
    life, names = guard(), [f"i{number}" for number in range(12)]
    for t in range(20):
        for number, name in enumerate(names):
            first = (t * len(names) + number) * 1_000
            failing = range(first, first + 250) if t >= 10 else ()
            on = cell("on", failing, exposures=250, instance=name)
            feed(life, t + number / 12, on, cell("off", exposures=750, instance=name))
    assert life.decision.kill
    assert life.take_alarms() == []


def test_until_it_is_sure_who_forges_those_who_serve_the_control_alone_contradict_too() -> None:
    life = guard()
    for number, name in enumerate(HONEST):
        feed(life, float(number), cell("off", [number], exposures=100, instance=name))
    forged(life, 10.0, ("on",), process, count=2_000, summaries=2)
    assert (life.decision.kill, life.decision.hold) == (False, True)
    assert "without process i5" in life.decision.reason
