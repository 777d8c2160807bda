import json
from collections.abc import Iterator

import pytest

from flagd_server.domain.guard.backtest import Replay
from flagd_server.domain.guard.controls import Controls
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.policy_trials import (
    Outcome,
    changed_policy,
    compare_policies,
    parse_policies,
    parse_settings,
)
from flagd_server.domain.guard.records import Event, Policy, RecordError
from tests.server.domain.guard.recordings import BOOM, HALF, cell

PLAIN = Policy(off_variant="off")


def fault(units: int, start: float = 0.0) -> Iterator[Event]:
    """Yield events in each of which one more unit of the treatment fails, a second apart."""
    for number in range(units):
        t = start + number
        yield Event(t, (cell("on", [number], exposures=25), cell("off", exposures=75)))


def outcomes(events: Iterator[Event] | list[Event], **policies: Policy) -> dict[str, Outcome]:
    replays = {name: Replay(policy) for name, policy in policies.items()}
    return {row.name: row for row in compare_policies(replays, events).outcomes}


def test_each_policy_decides_as_it_would_alone() -> None:
    bold = changed_policy(PLAIN, {"alpha": 0.5})
    found = outcomes(fault(40), plain=PLAIN, bold=bold)

    assert list(found) == ["plain", "bold"]
    for name, policy in (("plain", PLAIN), ("bold", bold)):
        alone = FlagGuard(policy, 0.0)
        for event in fault(40):
            alone.observe(event)
        assert found[name].decision == alone.decision
        assert alone.decision.kill
        assert found[name].t == alone.decision.t
    assert found["bold"].t < found["plain"].t


def test_the_harm_is_counted_until_the_kill() -> None:
    (killed,) = outcomes(fault(40), plain=PLAIN).values()

    reports = int(killed.t) + 1
    assert reports < 40
    assert killed.harm is not None
    assert killed.harm.exposures == 25 * reports
    assert killed.harm.errors == killed.harm.failing_units == reports
    assert killed.harm.excess_errors == reports  # the control has not failed at all


def test_the_excess_is_over_the_rate_of_the_control() -> None:
    events = [
        Event(0.0, (cell("on", [1, 2], exposures=50), cell("off", [3, 4, 5], exposures=150))),
        Event(1.0, (cell("on", [1], exposures=50), cell("off", exposures=150))),
    ]
    (outcome,) = outcomes(events, plain=PLAIN).values()

    assert outcome.harm is not None
    assert (outcome.harm.errors, outcome.harm.failing_units) == (3, 2)
    assert outcome.harm.excess_errors == pytest.approx(3 - 100 * 3 / 300)


def test_where_nothing_is_killed_the_nearest_approach_is_told() -> None:
    healthy = [
        Event(100.0 + number, (cell("on", exposures=25), cell("off", [1_000 + number])))
        for number in range(60)
    ]
    (outcome,) = outcomes([*fault(4), *healthy], plain=PLAIN).values()

    assert not outcome.decision.kill
    assert outcome.t == 3.0
    assert outcome.nearness == max(point.nearness for point in outcome.path)
    assert outcome.path[-1].nearness < outcome.nearness < 1.0
    assert outcome.harm is not None
    assert outcome.harm.exposures == 25 * 64


def test_what_is_held_back_from_a_kill_is_told() -> None:
    # The treatment's errors only have another name: its kind is decisive, all together are not.
    renamed = [
        Event(
            float(number),
            (
                cell("on", {"error:New": [number]}, exposures=10, weights=HALF),
                cell("off", {"error:Old": [1_000 + number]}, exposures=10, weights=HALF),
            ),
        )
        for number in range(40)
    ]
    (outcome,) = outcomes(renamed, plain=PLAIN).values()

    assert not outcome.decision.kill
    assert outcome.held_from is not None
    assert 0.0 < outcome.held_from < 39.0
    assert "held back" in outcome.decision.reason
    assert [point.is_held for point in outcome.path] == [
        point.t >= outcome.held_from for point in outcome.path
    ]


def test_a_stored_life_starts_when_it_did_with_the_controls_it_had() -> None:
    # Neither arm is the off variant; "b" was served before this recording.
    life = FlagGuard(PLAIN, -500.0, controls=Controls(served={"default": {"b": 1}}))
    weights = {"a": 50_000, "b": 50_000}
    arms = (cell("a", [1], weights=weights, version=2), cell("b", weights=weights, version=2))
    events = [Event(1.0, arms)]
    own = Replay(PLAIN, life)
    replays = {"own": own, "other": own.under(changed_policy(PLAIN, {"alpha": 0.01}))}
    comparison = compare_policies(replays, events)

    assert comparison.started_at == -500.0
    assert {row.decision.control for row in comparison.outcomes} == {"b"}
    own_outcome, other = comparison.outcomes
    assert own_outcome.decision.e_value == other.decision.e_value
    assert own_outcome.decision.threshold == pytest.approx(10 * other.decision.threshold)


def test_where_latency_counts_it_is_the_slow_units_that_are_told() -> None:
    events = [
        Event(float(number), (cell("on", {"slow:p99": [number]}), cell("off", {BOOM: [99]})))
        for number in range(5)
    ]
    comparison = compare_policies({"plain": Replay(PLAIN)}, events)
    (outcome,) = comparison.outcomes

    assert outcome.decision.stream == "slow:p99, life"
    assert outcome.harm is not None
    assert outcome.harm.failing_units == 5
    slow = comparison.arms["default", "on"].falls_of(outcome.decision)
    assert slow == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_spent_budget_kills_with_its_harm() -> None:
    frugal = changed_policy(PLAIN, {"harm_budget": 3})
    (outcome,) = outcomes(fault(40), frugal=frugal).values()

    assert (outcome.decision.kill, outcome.decision.guard) == (True, "harm_budget")
    assert outcome.nearness < 1.0
    assert outcome.harm is not None
    assert outcome.harm.errors == 3


def test_without_two_arms_there_is_no_harm_to_compare() -> None:
    events = [Event(1.0, (cell("on", [1], weights={"on": 100_000}),))]
    (outcome,) = outcomes(events, plain=PLAIN).values()
    assert outcome.harm is None
    assert outcome.decision.reason.startswith("no control")


def test_what_was_compared_is_told_rather_than_what_came_before_it() -> None:
    lone = Event(0.0, (cell("on", weights={"on": 100_000}),))
    healthy = Event(1.0, (cell("on", exposures=25), cell("off", [1, 2, 3], exposures=75)))
    (outcome,) = outcomes([lone, healthy], plain=PLAIN).values()
    assert outcome.t == 1.0
    assert outcome.harm is not None
    assert outcome.harm.exposures == 100 + 25


def test_no_events_are_refused() -> None:
    with pytest.raises(RecordError, match="there are no events"):
        outcomes([], plain=PLAIN)


def test_a_changed_policy_keeps_what_was_not_named() -> None:
    policy = changed_policy(PLAIN, parse_settings("alpha=0.01,control=off"))
    assert (policy.alpha, policy.control) == (0.01, "off")
    assert (policy.margin, policy.off_variant) == (PLAIN.margin, "off")


def test_values_are_json_or_text() -> None:
    text = 'a=0.5,b=null,c=["x","y"],d=off,e=1,2,f=NaN'
    assert {key: json.dumps(value) for key, value in parse_settings(text).items()} == {
        "a": "0.5",
        "b": "null",
        "c": '["x", "y"]',
        "d": '"off"',
        "e": '"1,2"',
        "f": "NaN",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected key=value, got ''"),
        ("alpha", "expected key=value, got 'alpha'"),
        ("=1", "expected key=value, got '=1'"),
        ("alhpa=0.1", "config: unknown field 'alhpa', expected"),
        ("alpha=2", "config.alpha: expected a number between 0 and 1, got 2"),
        ("alpha=NaN", "config.alpha: expected a finite number, got nan"),
        ("alpha=1" + "0" * 5_000, "config.alpha: expected a finite number"),
        ("margin=wide", "config.margin: expected a finite number, got 'wide'"),
    ],
)
def test_a_setting_that_can_not_be_used_is_named(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        changed_policy(PLAIN, parse_settings(text))


def test_policies_are_read_by_name() -> None:
    text = '{"strict": {"alpha": 0.0001}, "lax": {"margin": 1.5}}'
    assert parse_policies(text) == {"strict": {"alpha": 0.0001}, "lax": {"margin": 1.5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected policies by name as JSON, Expecting property name"),
        ("[" * 100_000, "expected policies by name as JSON"),
        ("[]", r"expected policies by name, got \[\]"),
        ('{"strict": 1}', "strict: expected an object of settings, got 1"),
    ],
)
def test_policies_that_can_not_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_policies(text)
