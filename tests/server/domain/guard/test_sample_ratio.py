"""Sampled exposures: where they do not fall by the weights, nothing else may be believed."""

from random import Random

import pytest

from flagd_server.domain.guard.blindness import SAMPLE_RATIO_BLINDNESS
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.metrics import EXPOSED, SAMPLE_RATIO
from tests.server.domain.guard.recordings import cell, feed, guard

PROCESSES = ("i1", "i2", "i3")


def sample(
    life: FlagGuard,
    share: float,
    units: int,
    *,
    seed: int = 0,
    start: float = 0.0,
    first: int = 0,
    failing_on: bool = False,
) -> float:
    """Expose ten units a second of which this share is in the treatment; return the time."""
    random, t = Random(f"sample {seed}"), start
    for step in range(units // 10):
        sides: dict[str, list[int]] = {"on": [], "off": []}
        for number in range(10):
            unit = first + step * 10 + number
            sides["on" if random.random() < share else "off"].append(unit)
        kinds = {name: {EXPOSED: found} for name, found in sides.items()}
        if failing_on:
            kinds["on"] = kinds["on"] | {"error:Boom": sides["on"]}
        instance = PROCESSES[step % len(PROCESSES)]
        feed(
            life,
            t,
            *(
                cell(name, kinds[name], exposures=len(sides[name]), instance=instance)
                for name in ("on", "off")
            ),
        )
        t += 1.0
    return t


def test_sampling_at_the_weights_never_blinds() -> None:
    for seed in range(8):
        life = guard()
        sample(life, 0.25, 5_000, seed=seed)
        assert not life.decision.hold
        assert SAMPLE_RATIO_BLINDNESS not in life.decision.blind
        assert not life.take_alarms()


@pytest.mark.parametrize("share", [0.40, 0.12], ids=["too many", "too few"])
def test_a_broken_assignment_blinds_holds_tells_once_and_does_not_kill(share: float) -> None:
    life = guard()
    sample(life, share, 3_000)
    decision = life.decision
    assert (decision.kill, decision.hold) == (False, True)
    assert SAMPLE_RATIO_BLINDNESS in decision.blind
    assert "25.0% expected by the weights: assignment or reporting is broken" in decision.reason
    assert [alarm.kind for alarm in life.take_alarms()] == ["sample_ratio"]
    assert life.take_alarms() == []


def test_a_blind_guard_withholds_the_kill_of_what_would_have_been_one() -> None:
    fault, blind = guard(), guard()
    # As a healthy split would be exposed, all whom the feature meets fail: it is killed.
    sample(fault, 0.25, 300, failing_on=True)
    assert fault.decision.kill
    end = sample(blind, 0.5, 1_500)
    sample(blind, 0.5, 300, start=end, first=10_000, failing_on=True)
    assert (blind.decision.kill, blind.decision.hold) == (False, True)
    (standing,) = blind.standings(end + 300)
    assert standing.kills, "the evidence is there; it is not believed"


def test_nor_does_the_harm_budget_kill_what_a_blind_guard_sees() -> None:
    life = guard(harm_budget=50)
    end = sample(life, 0.5, 1_500)
    sample(life, 0.5, 300, start=end, first=10_000, failing_on=True)
    assert (life.decision.kill, life.decision.hold) == (False, True)


def test_a_unit_is_sampled_once_and_ten_thousand_are_enough() -> None:
    life = guard()
    for _ in range(3):
        feed(life, 1.0, cell("on", {EXPOSED: [1, 2]}), cell("off", {EXPOSED: [3]}))
    pair = life.pairs["default", "on", "off"]
    assert len(pair.sample.log) == 3
    assert life.sample_below == 1 << 64
    assert SAMPLE_RATIO.units_kept == 10_000
    feed(life, 2.0, cell("off", {EXPOSED: range(10, 10_100)}, exposures=20_000))
    assert life.sample_below == 1 << 63
    assert len(pair.sample.log) < 10_000


def test_one_process_alone_can_not_blind_the_guard() -> None:
    life = guard()
    sample(life, 0.25, 1_000)
    for t in range(100):
        found = {EXPOSED: [100_000 + t]}
        feed(life, 200.0 + t, cell("on", found, instance="i4"), cell("off", instance="i1"))
    assert SAMPLE_RATIO_BLINDNESS not in life.decision.blind
    assert not life.decision.hold


def test_hardly_any_of_the_treatment_is_a_broken_assignment_too() -> None:
    """Two units of the treatment among thousands say it as clearly as two thousand would."""
    life = guard()
    for t in range(500):
        found = {EXPOSED: range(t * 10, t * 10 + 10)}
        instance = PROCESSES[t % len(PROCESSES)]
        on = cell("on", {EXPOSED: [90_000 + t]} if t < 2 else {}, exposures=1, instance=instance)
        feed(life, float(t), on, cell("off", found, instance=instance))
    assert SAMPLE_RATIO_BLINDNESS in life.decision.blind


def test_a_sample_that_was_thinned_to_no_unit_of_the_treatment_is_judged_all_the_same() -> None:
    life = guard()
    greatest = tuple(f"{(1 << 64) - 1 - number:016x}" for number in range(4))
    for t in range(300):
        instance = PROCESSES[t % len(PROCESSES)]
        on = cell("on", exposures=1, instance=instance)
        if t < len(greatest):
            on = on._replace(units={EXPOSED: (greatest[t],)})
        found = {EXPOSED: range(t * 40, t * 40 + 40)}
        feed(life, float(t), on, cell("off", found, instance=instance))
    sample = life.pairs["default", "on", "off"].sample
    assert sample.tau < 1 << 64
    assert not any(toss.in_treatment for toss in sample.log)
    assert SAMPLE_RATIO_BLINDNESS in life.decision.blind
