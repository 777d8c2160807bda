from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from flagd_sdk.core.parsing import parse_flag_set
from flagd_server.domain.condition_check import (
    MAX_BRANCHES,
    MAX_DEPTH,
    MAX_PATTERNS,
    MAX_VALUES,
)
from flagd_server.domain.faults import Fault
from flagd_server.domain.validation import (
    MAX_INTEGER,
    MAX_RULES,
    MAX_SALT,
    MAX_VARIANTS,
    check_flag,
    check_segment,
    check_variants,
)
from tests.sdk.core.documents import attribute, flag, flag_set, rule, targeted


class OnlyLookedUp(Mapping[str, Mapping[str, Any]]):
    """Flags as the server has them: reading them all would be slow, so it must not happen."""

    def __init__(self, *flags: dict[str, Any]) -> None:
        self._flags = {each["key"]: each for each in flags}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self._flags[key]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("walked over all flags")

    def __len__(self) -> int:
        raise AssertionError("counted all flags")


def faults(
    document: dict[str, Any], *others: dict[str, Any], **segments: Any
) -> list[tuple[str, str]]:
    found = check_flag(document, OnlyLookedUp(*others), segments)
    return [(fault.field, fault.message) for fault in found]


def fields(document: dict[str, Any], *others: dict[str, Any], **segments: Any) -> list[str]:
    return [field for field, _ in faults(document, *others, **segments)]


def weighted(**weights: Any) -> dict[str, Any]:
    return {"split": {"bucket_by": "targetingKey", "salt": "f", "weights": weights}}


def asking(key: str, other: str, *variants: str) -> dict[str, Any]:
    return targeted({"flag": other, "variants": list(variants or ("on",))}, key)


# --- variants ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag_type", "good", "bad"),
    [
        ("boolean", [True, False], [0, 1, "true", None]),
        ("string", ["", "x"], [1, None, True]),
        (
            "integer",
            [0, -5, MAX_INTEGER, -MAX_INTEGER],
            [1.0, True, "1", MAX_INTEGER + 1, 10**5000],
        ),
        ("float", [1, 1.5, -0.0], [True, "1", float("nan"), float("inf"), MAX_INTEGER + 1]),
        ("object", [{}, [], {"a": [None]}], ["{}", 1, None, [float("nan")]]),
    ],
)
def test_values_fit_the_type(flag_type: str, good: list[object], bad: list[object]) -> None:
    assert check_variants(flag_type, {f"v{n}": value for n, value in enumerate(good)}) == []
    for value in bad:
        found = check_variants(flag_type, {"good": good[0], "bad": value})
        assert [fault.field for fault in found] == ["variants.bad"], value


def test_the_type_must_exist_and_the_variants_be_some() -> None:
    assert [fault.field for fault in check_variants("colour", {"a": 1})] == ["type"]
    assert [fault.field for fault in check_variants("boolean", {})] == ["variants"]
    many = {f"v{n}": True for n in range(MAX_VARIANTS + 1)}
    assert [fault.field for fault in check_variants("boolean", many)] == ["variants"]


# --- the whole of a flag -----------------------------------------------------------------------


def test_a_sound_flag_has_no_fault() -> None:
    condition = {
        "all": [
            {"any": [attribute("in", "NL"), attribute("matches", "^a+$", "b")]},
            {"not": {"segment": "beta"}},
            {"flag": "other", "variants": ["on", "off"]},
        ]
    }
    document = flag(
        rules=[rule(condition, weighted(on=25_000, off=75_000))],
        default_serve=weighted(on=0, off=100_000),
    )
    assert faults(document, flag("other"), beta=attribute("exists")) == []


def test_every_fault_is_named_at_once() -> None:
    document = flag(
        variants={"on": 1, "off": False},
        off_variant="no",
        rules=[
            rule(attribute("like"), {"variant": "no"}, "a"),
            rule({"segment": "no"}, weighted(on=1), "a"),
            rule({"flag": "no", "variants": ["on"]}, weighted(no=100_000), "default"),
        ],
        default_serve={},
    )
    assert fields(document) == [
        "variants.on",
        "off_variant",
        "rules[1].id",
        "rules[2].id",
        "rules[0].condition.op",
        "rules[0].serve.variant",
        "rules[1].condition.segment",
        "rules[1].serve.split.weights",
        "rules[2].serve.split.weights.no",
        "default_serve",
        "rules[2].condition.flag",
    ]


def test_a_flag_that_is_off_is_held_to_the_same_rules() -> None:
    bad = {"off_variant": "no", "enabled": False, "kill": {"id": "k"}}
    assert fields(flag(**bad)) == ["off_variant"]
    assert fields(flag(off_variant=[])) == ["off_variant"]


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_rule_has_an_id(name: object) -> None:
    document = flag(rules=[{**rule(attribute("exists")), "id": name}])
    assert fields(document) == ["rules[0].id"]


def test_a_rule_id_that_is_used_twice_says_where_else() -> None:
    document = flag(rules=[rule(attribute("exists")), rule(attribute("exists"))])
    assert faults(document) == [("rules[1].id", "'r' is also the id of rules[0]")]


def test_there_may_be_so_many_rules() -> None:
    rules = [rule(attribute("exists"), name=f"r{n}") for n in range(MAX_RULES + 1)]
    assert fields(flag(rules=rules)) == ["rules"]
    assert fields(flag(rules=rules[1:])) == []


# --- serves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serve", "field"),
    [
        (None, ""),
        ([], ""),
        ({"variant": "on", "split": {}}, ""),
        ({"variant": "no"}, ".variant"),
        ({"variant": ["on"]}, ".variant"),
        ({"split": []}, ".split"),
        ({"split": {}}, ".split.weights"),
        ({"split": {"weights": {}}}, ".split.weights"),
        (weighted(on=50_000, off=50_001), ".split.weights"),
        (weighted(on=100_001), ".split.weights.on"),
        (weighted(on=-1, off=100_000), ".split.weights.on"),
        (weighted(on=True, off=100_000), ".split.weights.on"),
        (weighted(on=100_000.0), ".split.weights.on"),
        (weighted(on="100000"), ".split.weights.on"),
        ({"split": {"weights": {"on": 100_000}, "bucket_by": ""}}, ".split.bucket_by"),
        ({"split": {"weights": {"on": 100_000}, "bucket_by": 5}}, ".split.bucket_by"),
        ({"split": {"weights": {"on": 100_000}, "salt": ""}}, ".split.salt"),
        ({"split": {"weights": {"on": 100_000}, "salt": "s" * (MAX_SALT + 1)}}, ".split.salt"),
        ({"split": {"weights": {"on": 100_000}, "salt": "\ud800"}}, ".split.salt"),
        ({"split": {"weights": {"on": 100_000}, "salt": None}}, ".split.salt"),
    ],
)
def test_a_serve_that_does_not_hold(serve: object, field: str) -> None:
    assert fields(flag(default_serve=serve)) == [f"default_serve{field}"]


def test_weights_say_what_they_sum_to() -> None:
    assert faults(flag(default_serve=weighted(on=1, off=2))) == [
        ("default_serve.split.weights", "they sum to 3; expected 100000")
    ]


# --- conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        (None, ""),
        ([], ""),
        ({}, ""),
        ({"all": [], "any": []}, ""),
        ({"when": 1}, ""),
        ({"all": {}}, ".all"),
        ({"any": [attribute("exists")] * (MAX_BRANCHES + 1)}, ".any"),
        ({"all": [attribute("exists"), {"not": 5}]}, ".all[1].not"),
        ({"attribute": "", "op": "exists", "values": []}, ".attribute"),
        ({"attribute": "a", "op": "exists"}, ".values"),
        (attribute("in", *range(MAX_VALUES + 1)), ".values"),
        (attribute("in", "a", None, "b"), ".values[1]"),
        (attribute("matches", "a", "("), ".values[1]"),
        (attribute("semver_gt", "1.0"), ".values[0]"),
        (attribute("before", "2026-06-01"), ".values[0]"),
        (attribute("lt", "5"), ".values[0]"),
        (attribute("eq", float("inf")), ".values[0]"),
        (attribute("exists", "yes"), ".values[0]"),
        ({"segment": 5}, ".segment"),
        ({"flag": 5, "variants": ["on"]}, ".flag"),
        ({"flag": "g"}, ".variants"),
        ({"flag": "g", "variants": []}, ".variants"),
        ({"flag": "g", "variants": [1]}, ".variants"),
    ],
)
def test_a_condition_that_does_not_hold(condition: object, field: str) -> None:
    assert fields(targeted(condition)) == [f"rules[0].condition{field}"]
    found = check_segment("s", condition, {"s": {}})
    assert [fault.field for fault in found] == [f"condition{field}"]


def nested(levels: int) -> dict[str, Any]:
    condition = attribute("exists")
    for _ in range(levels - 1):
        condition = {"not": condition}
    return condition


def test_a_condition_may_be_so_deep() -> None:
    assert fields(targeted(nested(MAX_DEPTH))) == []
    deepest = "rules[0].condition" + ".not" * MAX_DEPTH
    assert fields(targeted(nested(MAX_DEPTH + 1))) == [deepest]
    assert fields(targeted(nested(50_000))) == [deepest]


def test_what_the_evaluator_would_refuse_is_refused() -> None:
    segments: dict[str, Any] = {f"s{n}": {"any": [{"segment": f"s{n + 1}"}] * 2} for n in range(30)}
    segments["s30"] = attribute("exists")
    document = targeted({"all": [{"segment": "s29"}, {"segment": "s0"}]})
    ((field, message),) = faults(document, **segments)
    assert field == "rules[0].condition.all[1].segment"
    assert "conditions, segments included" in message
    (found,) = check_segment("s0", segments["s0"], segments)
    assert found.field == "condition.any[0].segment"
    assert fields(targeted({"segment": "s25"}), **segments) == []


# --- references --------------------------------------------------------------------------------


def test_a_prerequisite_must_be_there_and_have_the_variant() -> None:
    document = asking("f", "g", "on", "no")
    assert fields(document) == ["rules[0].condition.flag"]
    assert faults(document, flag("g")) == [
        ("rules[0].condition.variants", "'no' is none of the variants of flag 'g'")
    ]


def test_a_prerequisite_of_a_segment_is_checked_where_the_segment_is_used() -> None:
    segments = {
        "outer": {"not": {"segment": "inner"}},
        "inner": {"any": [{"flag": "g", "variants": ["no"]}]},
    }
    document = targeted({"segment": "outer"})
    assert check_segment("outer", segments["outer"], segments) == []
    assert faults(document, **segments) == [("rules[0].condition.segment", "there is no flag 'g'")]
    assert faults(document, flag("g"), **segments) == [
        ("rules[0].condition.segment", "'no' is none of the variants of flag 'g'")
    ]


def test_a_prerequisite_that_is_asked_for_twice_is_named_twice() -> None:
    condition = {"all": [{"flag": "g", "variants": ["on"]}, {"flag": "g", "variants": ["off"]}]}
    assert fields(targeted(condition)) == [f"rules[0].condition.all[{n}].flag" for n in (0, 1)]
    assert fields(targeted(condition), flag("g")) == []


def test_a_segment_that_uses_an_unknown_one_cannot_be_used() -> None:
    ((field, message),) = faults(targeted({"segment": "s"}), s={"not": {"segment": "no"}})
    assert field == "rules[0].condition.segment"
    assert "there is no segment 'no'" in message


def test_a_cycle_names_its_way() -> None:
    others = [asking("g", "h"), asking("h", "f"), flag("fine")]
    condition = {"any": [{"flag": "fine", "variants": ["on"]}, {"flag": "g", "variants": ["on"]}]}
    assert faults(targeted(condition), *others) == [
        (
            "rules[0].condition.any[1].flag",
            "asks for a flag that leads back to this one: 'f' → 'g' → 'h' → 'f'",
        )
    ]
    assert faults(asking("f", "f")) == [
        (
            "rules[0].condition.flag",
            "asks for a flag that leads back to this one: 'f' → 'f'",
        )
    ]


def test_a_cycle_through_segments_and_flags_that_are_off_is_found() -> None:
    segments = {
        "s": {"flag": "g", "variants": ["on"]},
        "t": {"segment": "u"},
        "u": {"not": {"flag": "f", "variants": ["on"]}},
    }
    other = targeted({"segment": "t"}, "g", enabled=False)
    ((field, message),) = faults(targeted({"segment": "s"}), other, **segments)
    assert field == "rules[0].condition.segment"
    assert message.endswith("'f' → 'g' → 'f'")


def test_a_cycle_among_others_is_not_this_flags_fault() -> None:
    assert faults(asking("f", "g"), asking("g", "h"), asking("h", "g")) == []


def test_a_diamond_of_prerequisites_is_no_cycle() -> None:
    condition = {"all": [{"flag": "g", "variants": ["on"]}, {"flag": "h", "variants": ["on"]}]}
    others = [asking("g", "end"), asking("h", "end"), flag("end")]
    assert faults(targeted(condition), *others) == []


def test_segments_in_a_cycle_name_their_way() -> None:
    segments: dict[str, Any] = {"a": {"not": {"segment": "b"}}, "b": {"segment": "a"}}
    assert check_segment("a", segments["a"], segments) == [
        Fault("condition.not.segment", "leads back to this segment: 'a' → 'b' → 'a'")
    ]
    own = {"a": {"segment": "a"}}
    assert check_segment("a", own["a"], own) == [
        Fault("condition.segment", "leads back to this segment: 'a' → 'a'")
    ]


def test_what_has_no_fault_can_be_evaluated() -> None:
    """The server's rules are at least as strict as the evaluator's."""
    segments = {"s": nested(MAX_DEPTH)}
    for condition in ({"segment": "s"}, nested(MAX_DEPTH), {"all": []}, {"any": []}):
        assert faults(targeted(condition), **segments) == []
        assert not parse_flag_set(flag_set(targeted(condition), **segments)).faults


def test_a_boolean_flag_needs_a_value_to_be_off_by() -> None:
    assert [fault.field for fault in check_variants("boolean", {"yes": True})] == ["variants"]
    assert check_variants("boolean", {"no": False}) == []


def test_a_configuration_has_so_many_patterns_and_no_more() -> None:
    half = [f"^{n}$" for n in range(MAX_PATTERNS // 2)]
    two = {"all": [attribute("matches", *half), attribute("matches", *half)]}
    assert faults(targeted(two)) == []
    three = {"all": [*two["all"], attribute("matches", "x")]}
    assert faults(targeted(three)) == [
        ("rules[0].condition.all[2].values", "more than 100 patterns in all")
    ]
