"""What a kill needs besides one stream beyond its threshold."""

from random import Random

import pytest

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.judgement import agreement_of, spoken
from tests.server.domain.guard.recordings import cell, feed, feed_each, guard

THREE = ("i1", "i2", "i3")


def settle(life: FlagGuard, *instances: str, start: float = 0.0) -> None:
    """Let processes serve both arms before anything fails."""
    for instance in instances:
        feed(life, start, cell("on", instance=instance), cell("off", instance=instance))


class TestRateWitness:
    def users_who_ask(self, times: int, seed: int, base: float = 0.02) -> FlagGuard:
        """A life in which each request fails alike, but the treatment's users make more."""
        random, life = Random(f"ask {seed}"), guard()
        users = [(number, number % 4 == 0) for number in range(4_000)]
        for t in range(400):
            failing: dict[bool, list[int]] = {True: [], False: []}
            exposures = {True: 0, False: 0}
            for number, treated in random.sample(users, 50):
                for _ in range(times if treated else 1):
                    exposures[treated] += 1
                    if random.random() < base:
                        failing[treated].append(number)
            feed(
                life,
                float(t),
                cell("on", failing[True], exposures=exposures[True]),
                cell("off", failing[False], exposures=exposures[False]),
            )
        return life

    def test_a_feature_whose_users_ask_three_times_as_often_is_held_not_killed(self) -> None:
        lives = [self.users_who_ask(3, seed) for seed in range(3)]
        assert not any(life.decision.kill for life in lives)
        # The coin alone would have killed each of them.
        assert all(life.decision.hold for life in lives)
        assert "measured by exposures" in lives[0].decision.reason

    def test_a_real_fault_convinces_both(self) -> None:
        life = guard()
        feed_each(life, "on", range(12), start=1.0)
        assert life.decision.kill
        assert life.decision.rate_witness >= 10.0


class TestKinds:
    def rename(self, failing_units: int) -> FlagGuard:
        life = guard()
        random = Random("rename")
        for number in range(failing_units):
            treated = random.random() < 0.25
            kind = "error:New" if treated else "error:Old"
            feed_each(life, "on" if treated else "off", [number], start=float(number), kind=kind)
        return life

    def test_errors_that_only_changed_their_name_are_held_not_killed(self) -> None:
        life = self.rename(200)
        assert life.decision.hold
        assert not life.decision.kill
        assert "only changed their name" in life.decision.reason
        assert life.decision.stream == "New, life".replace("New", "error:New")

    def test_a_new_kind_kills_once_errors_as_a_whole_agree(self) -> None:
        life = self.rename(60)
        assert life.decision.hold
        feed_each(life, "on", range(1_000, 1_040), start=100.0, kind="error:New")
        assert life.decision.kill


def test_what_one_stream_may_not_decide_another_still_may() -> None:
    """A renamed kind of one process stands first, held back; a fault on all of them decides."""
    life = guard()
    settle(life, *THREE)
    for number in range(400):
        treated = number % 4 == 0
        kind, instance = ("error:New", "i3") if treated else ("error:Old", THREE[number % 3])
        feed_each(
            life,
            "on" if treated else "off",
            [number],
            start=float(number),
            kind=kind,
            instances=(instance,),
        )
    held = life.decision
    assert held.hold
    feed_each(life, "on", range(1_000, 1_040), start=500.0, kind="error:Other", instances=THREE)
    assert life.decision.kill
    assert life.decision.stream != held.stream
    assert life.decision.e_value / life.decision.threshold < held.e_value / held.threshold


def test_what_must_agree_is_asked_again_of_a_log_that_was_thinned() -> None:
    life = guard()
    feed_each(life, "on", range(3), start=1.0)
    (comparison,) = life.comparisons
    stream = comparison.epochs[0].errors
    before = agreement_of(comparison, stream)
    assert agreement_of(comparison, stream) is before
    comparison.tau //= 2
    comparison.log.thin(0)
    assert agreement_of(comparison, stream).coin == 1.0


def test_three_units_are_the_least() -> None:
    life = guard(alpha=0.9)
    weights = {"on": 100, "off": 99_900}
    feed_each(life, "on", [1, 2], start=0.0, weights=weights)
    assert life.decision.hold
    assert "fewer than 3 units" in life.decision.reason
    feed_each(life, "on", [3], start=5.0, weights=weights)
    assert life.decision.kill


class TestLoneInstance:
    def test_where_three_serve_no_single_one_kills(self) -> None:
        life = guard()
        settle(life, *THREE)
        feed_each(life, "on", range(40), start=1.0, instances=("i2",))
        assert life.decision.hold
        assert "without process i2 the evidence is only 1" in life.decision.reason

    def test_with_evidence_from_the_others_it_does(self) -> None:
        life = guard()
        settle(life, *THREE)
        feed_each(life, "on", range(30), start=1.0, instances=THREE)
        assert life.decision.kill

    def test_where_two_serve_one_may(self) -> None:
        life = guard()
        settle(life, "i1", "i2")
        feed_each(life, "on", range(20), start=1.0, instances=("i2",))
        assert life.decision.kill

    def test_a_kind_is_judged_by_its_own_tosses(self) -> None:
        life = guard()
        settle(life, *THREE)
        # Old errors on every process do not vouch for a new kind that only one has seen.
        feed_each(life, "off", range(100, 130), start=1.0, kind="error:Old", instances=THREE)
        feed_each(life, "on", range(130, 140), start=40.0, kind="error:Old", instances=THREE)
        feed_each(life, "on", range(25), start=60.0, kind="error:New", instances=("i3",))
        assert not life.decision.kill
        assert "without process i3" in life.decision.reason


def test_where_thinning_has_dropped_what_the_evidence_rests_on_it_is_held_not_lost() -> None:
    """Nothing is left from which to tell whether one process alone carries it."""
    life = guard()
    few = {"on": 100, "off": 99_900}
    for number, name in enumerate(THREE):
        failing = range(number, 99_980, 3)
        off = cell("off", failing, exposures=500_000, weights=few, instance=name)
        feed(life, 0.0, off, cell("on", exposures=500, weights=few, instance=name))
    feed(life, 1.0, announced="weights")
    for number in range(4):
        # Their hashes are the greatest: the first to go.
        on = cell("on", exposures=1, weights=few, instance="i1")
        unit = f"{(1 << 64) - 1 - number:016x}"
        feed(life, 2.0 + number, on._replace(units={"error:New": (unit,)}))
    assert "without process i1" in life.decision.reason
    more = cell("off", range(200_000, 200_030), exposures=1_000, weights=few, instance="i2")
    feed(life, 40.0, more)
    assert (life.decision.kill, life.decision.hold) == (False, True)
    assert "held back" in life.decision.reason


class TestNewcomers:
    def crash_loop(self, since: float | None = None) -> FlagGuard:
        """Two processes serve in health; five new ones appear and fail in turn."""
        life = guard()
        for t in range(0, 1_000, 50):
            settle(life, "i1", "i2", start=float(t))
        feed_each(life, "off", range(500, 505), start=1_000.0, instances=("i1", "i2"))
        for number in range(40):
            new = cell("on", [number], instance=f"new{number % 5}", since=since)
            feed(life, 1_010.0 + number, new, cell("off", instance="i1"))
        return life

    def test_processes_that_appear_with_the_evidence_do_not_carry_it(self) -> None:
        life = self.crash_loop()
        assert life.decision.hold
        assert "5 processes that appeared after the evidence began" in life.decision.reason

    def test_known_for_ten_minutes_they_do(self) -> None:
        life = self.crash_loop()
        feed(life, 1_700.0, cell("on", instance="new0"), cell("off"))
        assert life.decision.kill

    def test_known_to_the_server_before_it_they_do(self) -> None:
        assert self.crash_loop(since=900.0).decision.kill

    def test_one_among_many_who_agree_stops_nothing(self) -> None:
        life = guard()
        for t in range(0, 1_000, 50):
            settle(life, *THREE, start=float(t))
        feed_each(life, "on", range(6), start=1_001.0, instances=THREE)
        feed(life, 1_020.0, cell("on", [12], instance="new"), cell("off"))
        assert not life.has_killed
        feed_each(life, "on", range(13, 18), start=1_021.0, instances=THREE)
        assert life.decision.kill

    def test_in_the_first_seconds_of_a_life_everybody_is_new_and_nobody_a_newcomer(self) -> None:
        life = guard()
        for number in range(12):
            on = cell("on", [number], instance=f"i{number % 4}")
            feed(life, number * 0.5, on, cell("off", instance=f"i{number % 4}"))
        assert life.decision.kill


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "0.12"), (7.0, "7"), (3_333.3, "3,333"), (2.5e9, "2.5e+09")],
)
def test_numbers_are_spoken_as_a_person_would(value: float, text: str) -> None:
    assert spoken(value) == text
