"""From one configuration to the next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagd_server.domain.changes import changed, first_configuration, is_same, rolled_back
from flagd_server.domain.configuration import Configuration, Kill, KillSource
from flagd_server.domain.times import parse_time
from tests.contract.storage_samples import CONDITION

DEFAULT_GUARD = {
    "mode": "enforce",
    "control": None,
    "alpha": 0.001,
    "margin": 1.05,
    "guards": ["error_rate", "latency", "availability"],
    "slow": ["p99"],
    "on_breach": "kill",
    "on_burn": "hold",
    "harm_budget": None,
}
FIRST = first_configuration("off")
KILL = Kill("kill-1", parse_time("2026-11-23T12:00:00Z"), "ann", KillSource.OPERATOR, "bad")


def split(**more: Any) -> dict[str, Any]:
    on = more.pop("on", 25_000)
    return {"split": {"weights": {"on": on, "off": 100_000 - on}, **more}}


def change(present: Configuration, changes: Mapping[str, Any], version: int = 2) -> Configuration:
    return changed(present, changes, "checkout", version)


def bounds(configuration: Configuration) -> list[list[Any]]:
    allocation: list[list[Any]] = configuration.default_serve["split"]["allocation"]
    return allocation


def test_a_new_flag_is_off_and_would_serve_the_off_variant_if_on() -> None:
    assert (
        Configuration(
            enabled=False,
            off_variant="off",
            rules=(),
            default_serve={"variant": "off"},
            guard=DEFAULT_GUARD,
        )
        == FIRST
    )


def test_only_given_fields_change_and_they_change_whole() -> None:
    guarded = change(FIRST, {"guard": {"mode": "observe", "alpha": 0.01}})
    assert guarded == replace(FIRST, guard={**DEFAULT_GUARD, "mode": "observe", "alpha": 0.01})
    assert change(guarded, {"guard": {"margin": 2.0}}).guard["mode"] == "enforce"
    assert change(guarded, {"enabled": True, "off_variant": "on"}) == replace(
        guarded, enabled=True, off_variant="on"
    )


def test_a_split_is_completed_and_allocated() -> None:
    configuration = change(FIRST, {"default_serve": split()})
    assert configuration.default_serve == {
        "split": {
            "bucket_by": "targetingKey",
            "salt": "checkout",
            "weights": {"on": 25_000, "off": 75_000},
            "allocation": [[25_000, "on"], [100_000, "off"]],
        }
    }


def test_an_allocation_that_a_client_sends_back_is_computed_anew() -> None:
    sent = split(allocation=[[100_000, "on"]])
    assert bounds(change(FIRST, {"default_serve": sent})) == [[25_000, "on"], [100_000, "off"]]


def test_new_weights_start_from_the_allocation_there_is() -> None:
    held = split()["split"] | {
        "bucket_by": "targetingKey",
        "salt": "checkout",
        "allocation": [[50_000, "off"], [75_000, "on"], [100_000, "off"]],
    }
    present = replace(FIRST, default_serve={"split": held})
    ramped = bounds(change(present, {"default_serve": split(on=30_000)}))
    assert _variant(ramped, 60_000) == "on", "who had the feature keeps it"
    assert ramped != [[30_000, "on"], [100_000, "off"]]


def test_another_salt_or_attribute_starts_afresh() -> None:
    present = change(FIRST, {"default_serve": split(salt="s", on=10_000)})
    odd = {
        "split": present.default_serve["split"] | {"allocation": [[90_000, "off"], [100_000, "on"]]}
    }
    present = replace(present, default_serve=odd)
    for fresh in ({"salt": "t"}, {"bucket_by": "company"}):
        allocation = bounds(change(present, {"default_serve": split(on=10_000, **fresh)}))
        assert allocation == [[10_000, "on"], [100_000, "off"]]


def test_a_split_keeps_its_salt_where_none_is_named() -> None:
    present = change(FIRST, {"default_serve": split(salt="old")})
    ramped = change(present, {"default_serve": split(on=50_000)})
    assert ramped.default_serve["split"]["salt"] == "old"


def test_a_rule_keeps_its_allocation_and_salt_by_its_id_wherever_it_moves() -> None:
    def rule(rule_id: str, serve: dict[str, Any]) -> dict[str, Any]:
        return {"id": rule_id, "condition": CONDITION, "serve": serve}

    present = change(FIRST, {"rules": [rule("a", split(salt="s")), rule("b", split())]})
    moved = change(present, {"rules": [rule("b", split()), rule("a", split(on=30_000))]}, 3)
    assert [r["id"] for r in moved.rules] == ["b", "a"]
    assert moved.rules[1]["serve"]["split"]["salt"] == "s"
    assert moved.rules[0] == present.rules[1]


def test_a_rule_without_an_id_gets_one_that_was_never_used() -> None:
    rule = {"condition": CONDITION, "serve": {"variant": "on"}}
    configuration = change(FIRST, {"rules": [rule, {"id": "r7-2", **rule}, rule, rule]}, 7)
    assert [r["id"] for r in configuration.rules] == ["r7-1", "r7-2", "r7-3", "r7-4"]


def test_weights_that_do_not_hold_are_left_for_validation_to_name() -> None:
    for weights in ({"on": 1}, {"on": 150_000, "off": -50_000}, {"on": True, "off": 99_999}, {}):
        configuration = change(FIRST, {"default_serve": {"split": {"weights": weights}}})
        assert "allocation" not in configuration.default_serve["split"]


def test_a_kill_stays_through_every_change() -> None:
    killed = replace(FIRST, kill=KILL)
    assert change(killed, {"enabled": True, "rules": [], "default_serve": split()}).kill == KILL


def test_going_back_restores_the_content_but_not_the_kill_of_that_time() -> None:
    old = change(replace(FIRST, kill=KILL), {"enabled": True})
    assert rolled_back(FIRST, old) == replace(old, kill=None)
    assert rolled_back(replace(FIRST, kill=KILL), replace(old, kill=None)).kill == KILL


def test_undoing_a_ramp_meets_the_very_users_it_had_before() -> None:
    quarter = change(FIRST, {"default_serve": split()})
    half = change(quarter, {"default_serve": split(on=50_000)})
    assert rolled_back(half, quarter) == quarter


def test_going_back_never_moves_more_users_than_the_weights_force() -> None:
    old = change(FIRST, {"default_serve": split(on=10_000)})
    held = {
        "split": old.default_serve["split"] | {"allocation": [[90_000, "off"], [100_000, "on"]]}
    }
    present = replace(old, default_serve=held)
    assert rolled_back(present, old) == present


def test_going_back_to_a_split_that_is_gone_brings_its_own_allocation() -> None:
    old = change(FIRST, {"default_serve": split()})
    assert rolled_back(FIRST, old) == old
    salted = change(old, {"default_serve": split(salt="other", on=50_000)})
    assert rolled_back(salted, old) == old


@given(st.lists(st.integers(0, 100_000), min_size=2, max_size=6))
def test_going_back_moves_exactly_the_difference_of_the_weights(shares: list[int]) -> None:
    configurations = [FIRST]
    for share in shares:
        configurations.append(change(configurations[-1], {"default_serve": split(on=share)}))
    present = configurations[-1]
    for old, share in zip(configurations[1:], shares, strict=True):
        back = rolled_back(present, old)
        moved = _moved(bounds(present), bounds(back))
        assert moved == abs(shares[-1] - share)
        assert back.default_serve["split"]["weights"] == old.default_serve["split"]["weights"]


def test_sameness_is_that_of_json_not_of_python() -> None:
    def with_value(value: object) -> Configuration:
        condition = {"attribute": "a", "op": "in", "values": [value]}
        return replace(
            FIRST, rules=({"id": "r", "condition": condition, "serve": {"variant": "on"}},)
        )

    assert is_same(with_value(1), with_value(1))
    assert not is_same(with_value(1), with_value(True))
    assert not is_same(with_value(1), with_value("1"))


def _variant(allocation: list[list[Any]], bucket: int) -> Any:
    return next(variant for upto, variant in allocation if bucket < upto)


def _moved(first: list[list[Any]], second: list[list[Any]]) -> int:
    bounds = sorted({upto for upto, _ in first + second})
    starts = [0, *bounds[:-1]]
    return sum(
        upto - start
        for start, upto in zip(starts, bounds, strict=True)
        if _variant(first, start) != _variant(second, start)
    )
