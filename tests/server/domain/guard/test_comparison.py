from dataclasses import replace

import pytest

from flagd_sdk.core.guard.streams import KINDS_PER_EPOCH, LIFE_S, harmonic_share
from flagd_server.domain.guard import arms, epochs
from flagd_server.domain.guard import comparison as module
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.epochs import CLOCK_EPOCH_S
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.metrics import ERRORS
from flagd_server.domain.guard.records import Cell, Event
from tests.server.domain.guard.recordings import (
    BOOM,
    cell,
    comparison,
    feed,
    feed_each,
    guard,
    see,
    unit,
)

HOUR = 3_600.0


def pair(started_at: float = 0.0) -> Comparison:
    return comparison(started_at)


def tossed(comparison: Comparison) -> list[tuple[str, bool]]:
    kinds = list(comparison.kinds)
    return [(kinds[toss.kind], bool(toss.in_treatment)) for toss in comparison.log]


class TestOncePerLife:
    def test_a_unit_that_fails_again_is_not_tossed_again(self) -> None:
        both = pair()
        assert see(both, 1.0, [cell("on", [1])]) > 0.0
        value = both.epochs[0].errors.coin.value
        assert see(both, 2.0, [cell("on", [1], exposures=500)]) == 0.0
        assert both.epochs[0].errors.coin.value == value
        assert len(both.log) == 1

    def test_nor_when_another_process_reports_it(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", [1], instance="i1")])
        see(both, 2.0, [cell("on", [1], instance="i2")])
        assert [toss.instance for toss in both.log] == [0]

    def test_nor_twice_in_one_summary(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", [1, 1]), cell("on", [1], version=2)])
        assert len(both.log) == 1

    def test_nor_on_the_other_side_after_a_change_of_weights(self) -> None:
        both = pair()
        see(both, 1.0, [cell("off", [1])])
        more = {"on": 50_000, "off": 50_000}
        see(both, 2.0, [cell("on", [1], weights=more, version=2)])
        assert tossed(both) == [(BOOM, False)]

    def test_another_kind_is_tossed_for_that_kind_only(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", {"error:A": [1]})])
        see(both, 2.0, [cell("on", {"error:B": [1]})])
        (life,) = both.epochs
        assert life.errors.in_treatment == 1
        assert [stream.in_treatment for stream in life.kinds.values()] == [1, 1]

    def test_kinds_that_are_no_errors_are_left_to_others(self) -> None:
        both = pair()
        assert see(both, 1.0, [cell("on", {"slow:p99": [1], "exposed": [2]})]) == 0.0


class TestOneSummaryOneToss:
    def healthy(self) -> FlagGuard:
        life = guard()
        feed(life, 0.0, cell("on", exposures=2_500), cell("off", exposures=7_500))
        return life

    def test_an_outage_in_both_arms_kills_nobody(self) -> None:
        life = self.healthy()
        feed(life, 1.0, cell("on", range(100)), cell("off", range(100, 400)))
        assert not life.decision.kill
        assert life.decision.e_value < 1.0

    def test_it_would_if_each_side_were_a_summary(self) -> None:
        """What the rule is for: the same outage, its sides multiplied in one after the other."""
        life = self.healthy()
        feed(life, 1.0, cell("on", range(100)))
        feed(life, 1.0, cell("off", range(100, 400)))
        assert life.decision.kill

    def test_the_order_of_the_cells_does_not_matter(self) -> None:
        one, other = pair(), pair()
        cells = [
            cell("on", {"error:A": [1, 2], "error:B": [3]}),
            cell("off", {"error:B": [4, 5], "error:A": [6]}),
        ]
        see(one, 1.0, cells)
        see(other, 1.0, cells[::-1])
        assert one.to_document() == other.to_document()

    def test_the_prior_mass_is_injected_once(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", range(5)), cell("off", range(5, 9))])
        assert both.epochs[0].errors.coin.mass == pytest.approx(0.8)

    def test_a_unit_on_both_sides_of_one_version_is_believed_on_neither(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", [1, 2]), cell("off", [1])])
        assert [toss.unit for toss in both.log] == [int(unit(2), 16)]

    def test_a_unit_that_a_ramp_moved_counts_where_the_older_version_had_it(self) -> None:
        both = pair()
        more = {"on": 50_000, "off": 50_000}
        see(both, 1.0, [cell("on", [1], weights=more, version=2), cell("off", [1], version=1)])
        ((kind, in_treatment),) = tossed(both)
        assert (kind, in_treatment) == (BOOM, False)


def test_each_toss_has_the_coin_of_its_configuration_version() -> None:
    both = pair()
    for version, on in enumerate((1_000, 5_000, 25_000), start=1):
        weights = {"on": on, "off": 100_000 - on}
        see(both, float(version), [cell("off", [version], weights=weights, version=version)])
    assert [toss.share for toss in both.log] == [0.01, 0.05, 0.25]


def test_where_nobody_was_exposed_the_coin_stands_in_for_the_share_of_exposures() -> None:
    both = pair()
    see(both, 1.0, [cell("on", [1], exposures=0)])
    assert both.log.rate_shares[0] == 0.25


class TestEpochs:
    def test_an_announcement_opens_one_with_a_fresh_memory(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", [1])])
        both.announce(2.0, "weights")
        see(both, 3.0, [cell("on", [1, 2])])
        life, epoch = both.epochs
        assert (life.errors.in_treatment, epoch.errors.in_treatment) == (2, 2)
        assert epoch.name == "epoch 1 (weights)"
        assert [stream.in_treatment for stream in epoch.kinds.values()] == [2]

    def test_every_hour_opens_one_and_the_two_newest_are_kept(self) -> None:
        both = pair(started_at=100.0)
        for half_hour in range(7):
            see(both, 100.0 + half_hour * HOUR / 2, [cell("on", [half_hour])])
        assert [epoch.name for epoch in both.epochs] == ["life", "hour 2", "hour 3"]
        assert both.epochs[1].errors.opened_s == 100.0 + 2 * CLOCK_EPOCH_S
        assert [epoch.errors.in_treatment for epoch in both.epochs] == [7, 3, 1]

    def test_one_that_the_clock_opened_expects_a_fault_at_any_time(self) -> None:
        both = pair()
        see(both, 0.0, [cell("off", [1])])
        see(both, CLOCK_EPOCH_S, [cell("off", [2])])
        see(both, 1.5 * CLOCK_EPOCH_S, [cell("off", [3])])
        life, hour = (epoch.errors.coin for epoch in both.epochs)
        assert life.mass > 0.8
        assert hour.mass == pytest.approx(0.1 + 0.9 / 4)

    def test_after_a_silence_only_the_present_one_is_opened(self) -> None:
        both = pair()
        see(both, 0.0, [cell("on")])
        see(both, 20.5 * HOUR, [cell("on")])
        assert [epoch.name for epoch in both.epochs] == ["life", "hour 20"]

    def test_the_clock_pushes_no_announced_one_out(self) -> None:
        both = pair()
        for number in range(5):
            both.announce(float(number), "rule")
        for hour in range(1, 8):
            see(both, hour * HOUR, [cell("on")])
        assert [epoch.name for epoch in both.epochs] == [
            "life",
            "epoch 4 (rule)",
            "epoch 5 (rule)",
            "hour 6",
            "hour 7",
        ]

    def test_all_the_shares_of_alpha_sum_to_one_at_most(self) -> None:
        kinds = sum(harmonic_share(j) for j in range(1, KINDS_PER_EPOCH + 1))
        assert kinds < 1.0
        both = pair()
        spent = epochs.ERRORS_SHARE + epochs.KINDS_SHARE
        announced = 200
        for number in range(announced):
            both.announce(float(number), "weights")
            newest = both.epochs[-1]
            spent += newest.errors.share + newest.kinds_share
        for index in range(1, epochs.CLOCK_EPOCHS):
            see(both, index * CLOCK_EPOCH_S, [cell("on")])
            newest = both.epochs[-1]
            spent += newest.errors.share + newest.kinds_share
        see(both, LIFE_S + 30 * CLOCK_EPOCH_S, [cell("on")])
        assert both.clock == epochs.CLOCK_EPOCHS - 1
        assert 0.99 < spent <= 1.0

    def test_kinds_share_by_their_order_of_appearance(self) -> None:
        both = pair()
        for number, kind in enumerate(("error:A", "error:B", "error:C")):
            see(both, float(number), [cell("off", {kind: [number]})])
        assert [stream.share for stream in both.epochs[0].kinds.values()] == pytest.approx(
            [epochs.KINDS_SHARE / 2, epochs.KINDS_SHARE / 6, epochs.KINDS_SHARE / 12]
        )

    def test_kinds_beyond_the_bound_count_as_errors_only(self) -> None:
        both = pair()
        many = KINDS_PER_EPOCH + 5
        for number in range(many):
            see(both, float(number), [cell("off", {f"error:K{number}": [number]})])
        (life,) = both.epochs
        assert len(life.kinds) == KINDS_PER_EPOCH
        assert life.errors.in_control == many

    def test_a_kind_without_a_stream_of_its_own_is_still_no_new_failure(self) -> None:
        both = pair()
        for number in range(KINDS_PER_EPOCH + 1):
            see(both, float(number), [cell("off", {f"error:K{number}": [1]})])
        assert both.epochs[0].errors.in_control == 1
        assert len(both.log) == KINDS_PER_EPOCH


class TestBounds:
    def test_beyond_the_bound_units_are_thinned_by_hash_and_both_sides_alike(self) -> None:
        both = comparison(metric=replace(ERRORS, units_kept=100))
        for number in range(1_000):
            see(both, float(number), [cell("on" if number % 4 else "off", [number])])
        assert both.tau < 1 << 64
        assert len(both.latest) <= 100
        assert all(toss.unit < both.tau for toss in both.log)
        kept = {toss.unit for toss in both.log}
        # Nothing under the threshold was dropped, whatever its side or age.
        assert kept == {
            value for value in (int(unit(n), 16) for n in range(1_000)) if value < both.tau
        }

    def test_thinning_forgets_no_evidence(self) -> None:
        both = comparison(metric=replace(ERRORS, units_kept=100))
        for number in range(100):
            see(both, float(number), [cell("on", [number])])
        before = both.epochs[0].errors.coin.value
        see(both, 100.0, [cell("on", [100])])
        assert both.tau == 1 << 63
        assert both.epochs[0].errors.coin.value > before

    def test_the_log_of_a_life_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "TOSSES_KEPT", 50)
        both = pair()
        for number in range(60):
            see(both, float(number), [cell("on", {f"error:K{number % 3}": [number % 20]})])
        assert len(both.log) <= 50

    def test_a_flood_of_kinds_and_processes_shares_a_last_index(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_MOST_KINDS", 3)
        monkeypatch.setattr(arms, "MOST_INSTANCES", 3)
        both = pair()
        for number in range(6):
            see(
                both,
                float(number),
                [cell("on", {f"error:K{number}": [number]}, instance=f"i{number}")],
            )
        assert list(both.kinds) == ["error:K0", "error:K1", "error:K2", "error:others"]
        assert [name for name, _ in both.arms.instances] == ["i0", "i1", "i2", "others"]
        assert [toss.instance for toss in both.log] == [0, 1, 2, 3, 3, 3]
        again = Comparison.from_document(both.to_document(), both.arms)
        assert again.to_document() == both.to_document()


class TestReplay:
    def test_a_stream_run_again_has_the_same_bits(self) -> None:
        life = guard()
        feed_each(life, "off", range(20), start=0.0, kind="error:A")
        feed(life, 30.0, announced="weights")
        feed_each(life, "on", range(15, 18), start=31.0, kind="error:B")
        feed_each(life, "off", range(10, 30), start=40.0, kind="error:A")
        (both,) = life.comparisons
        for _, stream in both.streams():
            assert both.replay(stream).to_document() == stream.to_document()

    def test_without_a_process_its_units_are_left_out(self) -> None:
        both = pair()
        see(both, 1.0, [cell("on", [1, 2], instance="a")])
        see(both, 2.0, [cell("on", [3], instance="b")])
        rest = both.replay(both.epochs[0].errors, lambda toss: toss.instance != 0)
        assert rest.in_treatment == 1


def test_processes_that_stopped_serving_are_not_counted() -> None:
    both = pair()
    for number in range(3):
        see(both, float(number), [cell("on", instance=f"i{number}")])
    see(both, 3.0, [cell("off", instance="i9"), cell("on", exposures=0, instance="i8")])
    assert len(list(both.arms.serving(3.0))) == 3
    assert len(list(both.arms.serving(601.5))) == 1


def test_requests_are_counted_by_arm() -> None:
    life = guard()
    event: tuple[Cell, ...] = (
        cell("on", [1], exposures=25),
        cell("off", [2, 3], exposures=75),
    )
    life.observe(Event(1.0, event))
    life.observe(Event(2.0, event))
    (both,) = life.comparisons
    assert (both.arms.in_treatment.exposures, both.arms.in_treatment.errors) == (50, 2)
    assert (both.arms.in_control.exposures, both.arms.in_control.errors) == (150, 4)
