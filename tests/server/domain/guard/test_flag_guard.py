import json
from random import Random

import pytest

from flagd_sdk.core.guard.streams import LIFE_S
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.metrics import ERRORS
from flagd_server.domain.guard.records import Event, Policy, RecordError
from tests.server.domain.guard.recordings import BOOM, HALF, cell, feed, feed_each, guard

THIRDS = {"red": 25_000, "blue": 25_000, "off": 50_000}


def test_a_new_error_on_the_treatment_alone_kills() -> None:
    life = guard()
    feed_each(life, "on", range(6), start=1.0)
    assert not life.has_killed
    feed_each(life, "on", range(6, 12), start=10.0)
    assert life.has_killed
    decision = life.decision
    assert decision.kill
    assert not decision.hold
    assert decision.e_value >= decision.threshold
    assert (decision.split, decision.treatment, decision.control) == ("default", "on", "off")


def test_errors_that_fall_by_the_weights_do_not_kill() -> None:
    life = guard()
    for t in range(400):
        feed_each(life, "on" if t % 4 == 0 else "off", [t], start=float(t))
    assert not life.decision.kill
    assert not life.decision.hold
    assert life.decision.ratio == pytest.approx(1.0, abs=0.1)


def test_a_kill_is_the_last_word_of_a_life() -> None:
    life = guard()
    feed_each(life, "on", range(20), start=1.0)
    killed = life.decision
    feed_each(life, "off", range(100, 400), start=100.0)
    assert life.decision == killed


def test_the_threshold_is_that_of_the_share_of_alpha() -> None:
    life = guard()
    feed(life, 1.0, cell("on"), cell("off"))
    decision = life.decision
    assert decision.threshold == pytest.approx(1 / (0.001 * 0.30))
    assert (decision.e_value, decision.rate_witness, decision.ratio) == (1.0, 1.0, 1.0)
    assert decision.stream == "errors, life"
    assert decision.reason == "no unit has failed yet"


def test_alpha_decides_how_much_evidence_is_needed() -> None:
    strict, lenient = guard(alpha=1e-6), guard(alpha=0.05)
    for life in (strict, lenient):
        feed_each(life, "on", range(9), start=1.0)
    assert lenient.has_killed
    assert not strict.has_killed


def test_the_reason_tells_what_fell_where() -> None:
    life = guard()
    feed_each(life, "off", range(100, 103), start=1.0)
    feed_each(life, "on", range(12), start=10.0, kind="error:KeyError")
    reason = life.decision.reason
    assert reason.startswith("9 of 9 failing units with KeyError had “on”, 25.0% expected")


def test_without_two_arms_there_is_nothing_to_compare() -> None:
    life = guard()
    everybody = {"on": 100_000, "off": 0}
    feed(life, 1.0, cell("on", range(50), weights=everybody))
    feed(life, 2.0, cell("on", range(50), split=None))
    assert not life.comparisons
    assert life.decision.reason.startswith("no control")
    assert life.decision.threshold == pytest.approx(1 / (0.001 * 0.30))


def test_a_variant_that_the_weights_do_not_serve_is_not_read() -> None:
    life = guard()
    feed(life, 1.0, cell("blue", [1]), cell("on"))
    (comparison,) = life.comparisons
    assert len(comparison.log) == 0


def test_an_event_before_the_one_before_it_is_refused() -> None:
    life = guard()
    feed(life, 5.0, cell("on"))
    with pytest.raises(RecordError, match=r"t: expected at least 5\.0, got 4\.0"):
        feed(life, 4.0, cell("on"))


def test_a_life_is_over_after_seven_days() -> None:
    life = guard()
    assert not life.is_over(LIFE_S - 1)
    assert life.is_over(LIFE_S)


def test_the_next_life_starts_without_evidence_and_with_the_same_control() -> None:
    life = guard(control=None)
    feed_each(life, "on", range(5), start=0.0)
    after = life.renewed(LIFE_S)
    assert after.started_at == LIFE_S
    assert not after.comparisons
    even = {"off": 10_000, "on": 90_000}
    feed(after, LIFE_S + 1, cell("on", weights=even), cell("off", weights=even))
    assert list(after.pairs) == [("default", "on", "off")]


class TestControl:
    def pairs(self, life: FlagGuard) -> set[tuple[str, str]]:
        return {(treatment, control) for _, treatment, control in life.pairs}

    def test_the_policy_names_it(self) -> None:
        life = guard(control="blue")
        feed(life, 1.0, cell("red", weights=THIRDS))
        assert self.pairs(life) == {("red", "blue"), ("off", "blue")}

    def test_one_that_has_no_weight_leaves_nothing_to_compare(self) -> None:
        life = guard(control="green")
        feed(life, 1.0, cell("red", weights=THIRDS))
        assert not life.comparisons

    def test_the_off_variant_is_next(self) -> None:
        life = guard(control=None, off_variant="red")
        feed(life, 1.0, cell("off", weights=THIRDS))
        assert self.pairs(life) == {("blue", "red"), ("off", "red")}

    def test_else_the_greatest_weight_that_was_served_before(self) -> None:
        life = guard(control=None, off_variant="off")
        before = {"a": 100_000}
        after = {"a": 10_000, "b": 90_000}
        feed(life, 1.0, cell("a", weights=before, version=1))
        feed(life, 2.0, cell("b", weights=after, version=2))
        assert self.pairs(life) == {("b", "a")}

    def test_else_the_greatest_weight(self) -> None:
        life = guard(control=None)
        feed(life, 1.0, cell("on"))
        assert self.pairs(life) == {("on", "off")}

    def test_it_stays_when_a_ramp_makes_it_the_smaller_one(self) -> None:
        life = guard(control=None)
        feed(life, 1.0, cell("on"), cell("off"))
        most = {"on": 90_000, "off": 10_000}
        feed(life, 2.0, cell("on", weights=most, version=2), cell("off", weights=most, version=2))
        assert self.pairs(life) == {("on", "off")}

    def test_another_takes_over_when_it_loses_its_weight(self) -> None:
        life = guard(control=None, off_variant="off")
        feed(life, 1.0, cell("red", weights=THIRDS), cell("off", weights=THIRDS))
        without = {"red": 40_000, "blue": 60_000, "off": 0}
        feed(life, 2.0, cell("red", weights=without, version=2))
        assert ("blue", "red") in self.pairs(life) or ("red", "blue") in self.pairs(life)


class TestThreeArms:
    def test_each_arm_is_compared_with_the_control_at_half_of_alpha(self) -> None:
        life = guard()
        feed(life, 1.0, cell("red", weights=THIRDS))
        assert set(life.pairs) == {("default", "red", "off"), ("default", "blue", "off")}
        assert life.decision.threshold == pytest.approx(1 / (0.0005 * 0.30))

    def test_the_arm_that_fails_is_the_one_that_is_blamed(self) -> None:
        life = guard()
        end = feed_each(life, "red", range(100, 110), start=0.0, weights=THIRDS, kind="error:Old")
        end = feed_each(life, "off", range(200, 220), start=end, weights=THIRDS, kind="error:Old")
        feed_each(life, "blue", range(25), start=end, weights=THIRDS)
        assert life.decision.kill
        assert life.decision.treatment == "blue"

    def test_the_coin_is_that_of_the_pair(self) -> None:
        life = guard()
        feed(life, 1.0, cell("red", [1], weights=THIRDS), cell("off", weights=THIRDS))
        (toss,) = life.pairs["default", "red", "off"].comparisons["errors"].log
        assert toss.share == pytest.approx(1 / 3)
        assert len(life.pairs["default", "blue", "off"].comparisons["errors"].log) == 0

    def test_two_splits_of_a_flag_are_compared_apart(self) -> None:
        life = guard()
        feed(life, 1.0, cell("on", [1]), cell("on", [2], split="nl", weights=HALF))
        assert set(life.pairs) == {("default", "on", "off"), ("nl", "on", "off")}
        assert life.alpha_of(ERRORS) == pytest.approx(0.0005)


class TestHold:
    def one_process(self, life: FlagGuard, start: float) -> float:
        """Fail on one process only, where three serve."""
        for number in range(3):
            feed(life, start, cell("on", instance=f"i{number}"), cell("off", instance=f"i{number}"))
        return feed_each(life, "on", range(30), start=start + 1, instances=("i0",))

    def test_what_is_decisive_but_not_enough_to_kill_is_held(self) -> None:
        life = guard()
        self.one_process(life, 1.0)
        assert life.decision.hold
        assert not life.decision.kill
        assert "held back: without process i0" in life.decision.reason

    def test_it_is_judged_again_after_ten_seconds_although_nothing_fails(self) -> None:
        life = guard()
        end = self.one_process(life, 1.0)
        judged_at = life.decision.t
        feed(life, end, cell("on"))
        assert life.decision.t == judged_at
        # After ten minutes of silence fewer than three processes serve: nobody contradicts.
        feed(life, end + 700, cell("on", instance="i0"))
        assert life.decision.kill

    def test_in_a_long_life_it_is_not_judged_at_every_toss(self) -> None:
        life = guard()
        for number in range(3):
            failing = range(10_000 + number, 20_000, 3)
            feed(life, 0.0, cell("off", failing, exposures=10_000, instance=f"i{number}"))
        end = self.one_process(life, 1.0)
        feed_each(life, "on", range(30, 130), start=end, instances=("i0",))
        judged_at, now = life.decision.t, life.last_t
        assert life.decision.hold
        assert now is not None
        feed(life, now + 0.5, cell("on", [401], instance="i0"))
        assert life.decision.t == judged_at
        feed(life, now + 3.0, cell("on", [402], instance="i0"))
        assert life.decision.t == now + 3.0

    def test_it_ends_when_the_evidence_falls(self) -> None:
        life = guard()
        end = self.one_process(life, 1.0)
        feed_each(life, "off", range(1_000, 1_600), start=end)
        assert not life.decision.hold


def test_of_two_pairs_the_one_that_kills_is_reported() -> None:
    life = guard()
    for number in range(3):
        feed(life, 0.0, *(cell(arm, weights=THIRDS, instance=f"i{number}") for arm in THIRDS))
    # "red" fails on one process only and is held; "blue" fails everywhere.
    end = feed_each(life, "red", range(60), start=1.0, weights=THIRDS, instances=("i0",))
    assert life.decision.hold
    feed_each(
        life, "blue", range(100, 140), start=end, weights=THIRDS, instances=("i0", "i1", "i2")
    )
    assert life.decision.kill
    assert life.decision.treatment == "blue"


def random_events(seed: int, count: int) -> list[Event]:
    """Return a mixed recording: both sides, several kinds, processes, versions, announcements."""
    random = Random(seed)
    weights = {1: {"on": 5_000, "off": 95_000}, 2: {"on": 25_000, "off": 75_000}}
    events, t = [], 0.0
    for number in range(count):
        t += random.choice([0.0, 0.5, 20.0, 3_000.0])
        announced = "weights" if random.random() < 0.03 else None
        cells = []
        for variant in ("on", "off"):
            version = 1 if number < count // 2 else 2
            failing = {
                f"error:K{random.randrange(3)}": [random.randrange(300) * 2 + (variant == "on")]
                for _ in range(random.choice([0, 0, 1, 3]))
            }
            cells.append(
                cell(
                    variant,
                    failing,
                    exposures=10,
                    weights=weights[version],
                    version=version,
                    instance=f"i{random.randrange(5)}",
                )
            )
        events.append(Event(t, tuple(cells), announced))
    return events


@pytest.mark.parametrize("cut", [0, 1, 57, 199])
def test_a_restart_goes_on_with_the_same_bits(cut: int) -> None:
    events = random_events(5, 200)
    through, restarted = guard(), guard()
    for position, event in enumerate(events):
        if position == cut:
            restarted = FlagGuard.from_document(json.loads(json.dumps(restarted.to_document())))
        through.observe(event)
        restarted.observe(event)
        assert restarted.decision == through.decision
    assert restarted.to_document() == through.to_document()


def test_replaying_the_recorded_order_gives_the_same_bits() -> None:
    first, second = guard(), guard()
    for event in random_events(6, 200):
        first.observe(event)
    for event in random_events(6, 200):
        second.observe(event)
    assert first.to_document() == second.to_document()


def test_a_restart_keeps_a_kill_and_what_is_held() -> None:
    killed, held = guard(), guard()
    feed_each(killed, "on", range(20), start=1.0)
    TestHold().one_process(held, 1.0)
    for life in (killed, held):
        again = FlagGuard.from_document(json.loads(json.dumps(life.to_document())))
        assert again.decision == life.decision


def test_the_policy_survives_a_restart() -> None:
    policy = Policy(alpha=0.01, margin=1.2, control=None, off_variant="off")
    life = FlagGuard(policy, 3.0)
    feed(life, 4.0, cell("on", {BOOM: [1]}))
    again = FlagGuard.from_document(json.loads(json.dumps(life.to_document())))
    assert again.policy == policy
    assert again.comparisons[0].bets.margin == 1.2
