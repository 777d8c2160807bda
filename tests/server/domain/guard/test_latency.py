"""Latency: the same engine on units that were slow, with a tolerated share of slowing down."""

from collections.abc import Iterable

import pytest

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.metrics import (
    ERRORS,
    EXPOSED,
    METRICS,
    SAMPLE_RATIO,
    SLOW,
    Metric,
    alpha_shares,
)
from tests.server.domain.guard.recordings import BOOM, QUARTER, cell, comparison, feed, guard, see

ALL = ("error_rate", "latency", "availability")


def watch(life: FlagGuard, seconds: int, kinds_on: Iterable[str], kinds_off: Iterable[str]) -> None:
    """A second at a time: one unit more, by the weights on this side or that, with these kinds."""
    for t in range(seconds):
        variant, kinds = ("on", kinds_on) if t % 4 == 0 else ("off", kinds_off)
        found = {kind: [t] for kind in kinds}
        for name in ("on", "off"):
            exposures = QUARTER[name] // 1_000
            feed(life, float(t), cell(name, found if name == variant else {}, exposures=exposures))


def units_heard(metric: Metric, kind: str) -> tuple[int, int]:
    """Return how many (treatment, control) units a comparison hears, of one each of the kind."""
    compared = comparison(metric=metric)
    see(compared, 0.0, [cell("on", {kind: [1]}), cell("off", {kind: [2]})])
    stream = compared.epochs[0].errors
    return stream.in_treatment, stream.in_control


@pytest.mark.parametrize(
    ("metric", "kind", "heard"),
    [
        ("slow:p99", "slow:p99", (1, 1)),
        # Slowed by less than what is tolerated: slow in the control, not in the treatment.
        ("slow:p99", "near:p99", (0, 1)),
        ("slow:p99", "slow:p90", (0, 0)),
        ("slow:p99", "near:p90", (0, 0)),
        ("slow:p99", "error:Boom", (0, 0)),
        ("slow:p90", "slow:p90", (1, 1)),
        ("slow:p90", "near:p90", (0, 1)),
        ("slow:p90", "slow:p99", (0, 0)),
        ("exposed", "exposed", (1, 1)),
        ("exposed", "slow:p99", (0, 0)),
        ("errors", "error:Boom", (1, 1)),
        ("errors", "slow:p99", (0, 0)),
        ("errors", "near:p99", (0, 0)),
        ("errors", "exposed", (0, 0)),
    ],
)
def test_which_unit_events_a_metric_hears(metric: str, kind: str, heard: tuple[int, int]) -> None:
    assert units_heard(METRICS[metric], kind) == heard


def test_slow_and_near_of_one_unit_are_one_event() -> None:
    compared = comparison(metric=SLOW["p99"])
    for t, kind in enumerate(("near:p99", "slow:p99", "near:p99")):
        see(compared, float(t), [cell("off", {kind: [1]})])
    assert compared.epochs[0].errors.in_control == 1


def test_a_latency_fault_kills_and_says_that_it_was_latency() -> None:
    life = guard(guards=ALL)
    for t in range(30):
        feed(life, float(t), cell("on", {"slow:p99": [t]}), cell("off"))
        if life.has_killed:
            break
    decision = life.decision
    assert (decision.kill, decision.guard, decision.stream) == (True, "latency", "slow:p99, life")
    assert "slow units had “on”, 25.0% expected by chance" in decision.reason


def test_an_error_fault_says_that_it_was_errors() -> None:
    life = guard(guards=ALL)
    for t in range(30):
        feed(life, float(t), cell("on", {BOOM: [t]}), cell("off"))
    assert (life.decision.kill, life.decision.guard) == (True, "error_rate")


def test_slow_on_both_sides_kills_and_holds_nothing() -> None:
    life = guard(guards=ALL)
    watch(life, 600, ["slow:p99"], ["slow:p99"])
    assert not life.decision.kill
    assert not life.decision.hold


def test_slowed_by_no_more_than_is_tolerated_kills_nothing() -> None:
    """The treatment's slow ones, beyond 1.05, were slow in the control as well, beyond 1."""
    life = guard(guards=ALL)
    watch(life, 600, ["near:p99"], ["slow:p99"])
    assert not life.decision.kill
    stream = life.pairs["default", "on", "off"].comparisons["slow:p99"].epochs[0].errors
    assert (stream.in_treatment, stream.in_control) == (0, 450)


def test_latency_has_epochs_but_no_kinds() -> None:
    life = guard(guards=ALL)
    feed(life, 0.0, cell("on", {"slow:p99": [1]}), cell("off"), announced="weights")
    feed(life, 1.0, cell("on", {"slow:p99": [2]}), cell("off"), announced="weights")
    slow = life.pairs["default", "on", "off"].comparisons["slow:p99"]
    assert [slow.name_of(epoch, stream) for epoch, stream in slow.streams()] == [
        "slow:p99, life",
        "slow:p99, epoch 1 (weights)",
    ]
    # What kinds would have of alpha, all of them have.
    assert [stream.share for _, stream in slow.streams()] == pytest.approx([0.48, 0.18])


def test_a_feature_whose_users_ask_more_often_is_held_for_latency_too() -> None:
    life = guard(guards=ALL)
    for t in range(60):
        # Three quarters of the exposures are the treatment's, and so are the slow units.
        feed(
            life,
            float(t),
            cell("on", {"slow:p99": [t]} if t % 4 else {}, exposures=75),
            cell("off", {} if t % 4 else {"slow:p99": [t]}, exposures=25),
        )
    assert (life.decision.kill, life.decision.hold) == (False, True)
    assert "measured by exposures" in life.decision.reason


class TestAlpha:
    @pytest.mark.parametrize(
        ("guards", "slow", "shares"),
        [
            (ALL, ("p99",), {"errors": 0.7, "slow:p99": 0.3}),
            (ALL, ("p99", "p90"), {"errors": 0.7, "slow:p99": 0.15, "slow:p90": 0.15}),
            (("error_rate",), ("p99", "p90"), {"errors": 1.0}),
            (("error_rate", "availability"), ("p99",), {"errors": 1.0}),
            (("latency",), ("p99",), {"slow:p99": 1.0}),
            (("latency",), ("p90",), {"slow:p90": 1.0}),
            (("latency",), ("p99", "p90"), {"slow:p99": 0.5, "slow:p90": 0.5}),
            (("availability",), ("p99",), {}),
        ],
    )
    def test_it_is_divided_by_what_is_guarded_and_nothing_is_lost(
        self, guards: tuple[str, ...], slow: tuple[str, ...], shares: dict[str, float]
    ) -> None:
        found = {metric.name: share for metric, share in alpha_shares(guards, slow).items()}
        assert found == pytest.approx(shares)
        assert sum(found.values()) == pytest.approx(1.0) or not found

    def test_thresholds_follow_from_it(self) -> None:
        life = guard(guards=ALL)
        feed(life, 0.0, cell("on"), cell("off"))
        errors, slow = life.standings(0.0)
        assert errors.threshold == pytest.approx(1 / (0.001 * 0.7 * 0.30))
        assert slow.threshold == pytest.approx(1 / (0.001 * 0.3 * 0.48))
        assert life.alpha_of(ERRORS) + life.alpha_of(SLOW["p99"]) == pytest.approx(0.001)
        assert life.alpha_of(SAMPLE_RATIO) == 1e-4


class TestSubsets:
    def test_latency_alone_hears_no_errors(self) -> None:
        life = guard(guards=("latency",))
        for t in range(40):
            feed(life, float(t), cell("on", {BOOM: [t]}), cell("off"))
        assert not life.decision.kill
        for t in range(40, 60):
            feed(life, float(t), cell("on", {"slow:p99": [t]}), cell("off"))
        assert (life.decision.kill, life.decision.guard) == (True, "latency")

    def test_p90_is_watched_on_request(self) -> None:
        life = guard(guards=("latency",), slow=("p90",))
        for t in range(30):
            feed(life, float(t), cell("on", {"slow:p90": [t]}), cell("off"))
        assert life.decision.kill
        assert life.decision.stream == "slow:p90, life"
        assert guard(guards=("latency",)).policy.slow == ("p99",)

    def test_availability_alone_compares_nothing(self) -> None:
        life = guard(guards=("availability",))
        for t in range(300):
            kinds = {BOOM: [t], "slow:p99": [t]}
            feed(life, float(t), cell("on", kinds), cell("off"), announced="weights")
        assert not life.decision.kill
        assert life.comparisons == []
        assert life.standings(300.0) == []
        assert life.highest_e_value == 1.0
        again = FlagGuard.from_document(life.to_document())
        assert again.to_document() == life.to_document()

    def test_availability_alone_still_sees_a_broken_assignment(self) -> None:
        life = guard(guards=("availability",))
        for t in range(2_000):
            on = {EXPOSED: [t]} if t % 2 else {}
            off = {} if t % 2 else {EXPOSED: [t]}
            feed(life, float(t), cell("on", on), cell("off", off))
        assert life.decision.hold
        assert "sample ratio" in life.decision.blind
        assert {alarm.kind for alarm in life.take_alarms()} == {"sample_ratio"}

    def test_availability_alone_still_keeps_to_the_harm_budget(self) -> None:
        life = guard(guards=("availability",), harm_budget=20)
        for t in range(40):
            feed(life, float(t), cell("on", {BOOM: [t]}), cell("off"))
        assert (life.decision.kill, life.decision.guard) == (True, "harm_budget")
