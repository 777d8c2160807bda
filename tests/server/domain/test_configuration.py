"""A configuration, stored and delivered."""

import json
from dataclasses import replace

import pytest

from flagd_server.domain.configuration import (
    DEFAULT_SPLIT,
    Configuration,
    default_off_variant,
    flag_document,
)
from flagd_server.domain.guard_policy import check_policy, complete_policy
from flagd_server.domain.references import references
from flagd_server.domain.times import format_time, parse_time
from tests.contract.storage_samples import CONDITION, CONFIGURATION, SPLIT


def test_a_configuration_survives_json() -> None:
    text = json.dumps(CONFIGURATION.to_document())
    assert Configuration.from_document(json.loads(text)) == CONFIGURATION


def test_sdks_get_what_evaluation_needs_and_no_more() -> None:
    document = flag_document("checkout", "boolean", {"on": True, "off": False}, 7, CONFIGURATION)
    assert document == {
        "key": "checkout",
        "type": "boolean",
        "version": 7,
        "enabled": True,
        "variants": {"on": True, "off": False},
        "off_variant": "off",
        "rules": [{"id": "swiss", "condition": CONDITION, "serve": SPLIT}],
        "default_serve": {"variant": "off"},
        "guard": {
            "mode": "enforce",
            "control": None,
            "alpha": 0.001,
            "margin": 1.05,
            "guards": ["error_rate"],
            "on_breach": "kill",
        },
        "kill": {
            "at": "2026-11-23T12:00:00.123Z",
            "source": "guard",
            "reason": "errors",
            "id": "kill-1",
        },
    }


def test_splits_go_by_the_ids_of_their_rules_and_default() -> None:
    weights = {"on": 25_000, "off": 75_000}
    assert CONFIGURATION.split_weights() == {"swiss": weights}
    assert replace(CONFIGURATION, rules=(), default_serve=SPLIT).split_weights() == {
        DEFAULT_SPLIT: weights
    }
    plain = {"id": "all", "condition": CONDITION, "serve": {"variant": "on"}}
    assert replace(CONFIGURATION, rules=(plain,)).split_weights() == {}


@pytest.mark.parametrize(
    ("flag_type", "variants", "expected"),
    [
        ("boolean", {"off": False, "on": True}, "off"),
        ("boolean", {"on": True, "also on": True}, "also on"),
        ("string", {"new": "a", "old": "b"}, "old"),
        ("integer", {"one": 1, "zero": 0, "false": 0}, "false"),
    ],
)
def test_the_off_variant_is_false_or_the_last(
    flag_type: str, variants: dict[str, object], expected: str
) -> None:
    assert default_off_variant(flag_type, variants) == expected


def test_references_are_followed_through_segments_and_cycles_end() -> None:
    condition = {
        "all": [
            {"any": [{"segment": "a"}, {"not": {"flag": "x", "variants": ["on"]}}]},
            {"segment": "missing"},
        ]
    }
    segments = {
        "a": {"not": {"segment": "b"}},
        "b": {"all": [{"segment": "a"}, {"flag": "y", "variants": ["on"]}]},
        "unused": {"flag": "z", "variants": ["on"]},
    }
    rules = ({"id": "r", "condition": condition, "serve": {"variant": "on"}},)
    found = references(Configuration(True, "off", rules, {"variant": "off"}), segments)
    assert found.segments == {"a", "b", "missing"}
    assert found.flags == {"x", "y"}


def test_a_complete_policy_of_defaults_holds() -> None:
    assert check_policy(complete_policy({}), {"on"}) == []
    assert check_policy(complete_policy({"control": "on"}), {"on"}) == []


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("mode", ["on", "", None]),
        ("control", ["gone", ""]),
        ("alpha", [0, 0.0, -0.1, 0.11, True, "0.1", float("nan"), None]),
        ("margin", [0.99, 10.5, True, float("inf")]),
    ],
)
def test_each_fault_of_a_policy_names_its_field(field: str, values: list[object]) -> None:
    for value in values:
        faults = check_policy(complete_policy({field: value}), {"on", "off"})
        assert [fault.field for fault in faults] == [f"guard.{field}"], value


def test_times_are_written_in_utc_to_the_millisecond() -> None:
    moment = parse_time("2026-11-23T14:00:00.123999+02:00")
    assert format_time(moment) == "2026-11-23T12:00:00.123Z"
    assert format_time(parse_time("2026-11-23T12:00:00Z")) == "2026-11-23T12:00:00.000Z"
    with pytest.raises(ValueError, match="offset"):
        parse_time("2026-11-23T12:00:00")
