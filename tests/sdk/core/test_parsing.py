import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.conditions import MAX_HEIGHT, MAX_SIZE
from flagd_sdk.core.evaluator import all_flags
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.values import MAX_VALUE_HEIGHT
from flagd_sdk.errors import ParseError
from tests.sdk.core import hostile
from tests.sdk.core.documents import UNIT_KEY, attribute, flag, flag_set, rule, split, targeted


def fault_of(document: object, **segments: object) -> str | None:
    """Return what is wrong with a flag that stands beside a healthy one."""
    whole = flag_set(flag("healthy"), **segments)
    whole["flags"]["f"] = document
    flags = parse_flag_set(whole)
    assert flags.resolve("healthy", {}).value is True
    assert (flags.resolve("f", {}).error_code == "PARSE_ERROR") == ("f" in flags.faults)
    return flags.faults.get("f")


# --- the envelope ------------------------------------------------------------------------------


def test_a_flag_set_has_its_envelope() -> None:
    flags = parse_flag_set(flag_set(flag()))
    assert (flags.environment, flags.sequence) == ("production", 3)
    assert flags.unit_key == bytes.fromhex(UNIT_KEY)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("environment", [None, "", 5, b"x"]),
        ("sequence", [None, "3", 3.0, True, -1]),
        ("unit_key", [None, "", "0" * 31, "0" * 34, "g" * 32, " " * 32, "٠" * 32, "0 " * 16, 5]),
        ("flags", [None, [], "x", {5: {}}]),
        ("segments", [None, [], {None: {}}]),
    ],
)
def test_an_envelope_that_cannot_be_read_is_refused(name: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ParseError, match=f"^{name}: "):
            parse_flag_set({**flag_set(flag()), name: value})
    document = flag_set(flag())
    del document[name]
    with pytest.raises(ParseError, match=f"^{name}: "):
        parse_flag_set(document)


@pytest.mark.parametrize("name", hostile.VALUES)
def test_no_document_raises_anything_but_parse_error(name: str) -> None:
    value = hostile.VALUES[name]
    with pytest.raises(ParseError):
        parse_flag_set(value)
    for part in ("environment", "sequence", "unit_key", "flags", "segments"):
        if (part, name) not in {("flags", "dict"), ("segments", "dict"), ("sequence", "huge")}:
            if part == "environment" and name in {"huge text", "surrogate", "nul"}:
                continue
            with pytest.raises(ParseError, match=r"\A[ -~…±]*\Z"):  # printable, whatever it was
                parse_flag_set({**flag_set(flag()), part: value})


@pytest.mark.parametrize("name", hostile.VALUES)
def test_a_hostile_value_anywhere_in_a_flag_breaks_that_flag_alone(name: str) -> None:
    value = hostile.VALUES[name]
    fault_of(value)
    for part in flag():
        fault_of({**flag(), part: value})
    fault_of(flag(variants={"on": value, "off": False}))
    fault_of(flag(type="object", variants={"on": value, "off": {}}))
    fault_of(flag(rules=[value]))
    for part in ("id", "condition", "serve"):
        fault_of(flag(rules=[{**rule(attribute("exists")), part: value}]))
    for part in ("attribute", "op", "values"):
        fault_of(targeted({**attribute("in", "x"), part: value}))
    for kind in ("all", "any", "not", "segment", "flag"):
        fault_of(targeted({kind: value, "variants": ["on"]}))
    fault_of(targeted({"flag": "healthy", "variants": value}))
    fault_of(targeted({"segment": "s"}), s=value)
    for part in ("bucket_by", "salt", "allocation"):
        serve = split((100_000, "on"))
        serve["split"][part] = value
        fault_of(flag(default_serve=serve))
    fault_of(flag(default_serve={"variant": value}))
    fault_of(flag(default_serve={"split": value}))
    fault_of(flag(default_serve=split((100_000, value))))
    fault_of(flag(default_serve=split((value, "on"))))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["all", "any", "not", "segment", "flag", "attribute", "op", "values", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(part=st.sampled_from([*flag()]), value=json_values, condition=json_values)
def test_any_json_in_a_flag_is_a_flag_or_a_fault(part: str, value: Any, condition: Any) -> None:
    fault_of({**flag(), part: value})
    flags = parse_flag_set(flag_set(targeted(condition), s=value))
    all_flags(flags, {"x": value})


# --- faults and where they are -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"key": "g"}, "key: 'g'; expected 'f'"),
        ({"version": True}, "version: True; expected an integer from 0"),
        ({"version": -1}, "version: -1; expected an integer from 0"),
        ({"enabled": 1}, "enabled: 1; expected a boolean"),
        (
            {"type": "colour"},
            "type: 'colour'; expected one of boolean, string, integer, float, object",
        ),
        ({"variants": {}}, "variants: an object; expected an object that is not empty"),
        ({"variants": {5: True}}, "variants: 5; expected names that are strings"),
        ({"variants": {"on": 1, "off": False}}, "variants.on: 1; expected a boolean"),
        ({"off_variant": "no"}, "off_variant: 'no'; expected one of the variants"),
        ({"rules": {}}, "rules: an object; expected a list"),
        ({"rules": {"a": 1}}, "rules: an object; expected a list"),
        ({"rules": ["x"]}, "rules[0]: 'x'; expected an object"),
        ({"rules": [{"id": ""}]}, "rules[0].id: ''; expected a string that is not empty"),
        ({"rules": [{"id": "r"}]}, "rules[0].condition: None; expected a condition"),
        ({"default_serve": None}, "default_serve: None; expected an object"),
        ({"default_serve": {}}, "default_serve: unknown kind; expected 'variant' or 'split'"),
        (
            {"default_serve": {"variant": "no"}},
            "default_serve.variant: 'no'; expected one of the variants",
        ),
        ({"default_serve": {"split": []}}, "default_serve.split: a list; expected an object"),
        (
            {"default_serve": split((100_000, "on"), bucket_by="")},
            "default_serve.split.bucket_by: ''; expected an attribute's name",
        ),
        (
            {"default_serve": split((100_000, "on"), salt="\ud800")},
            r"default_serve.split.salt: '\ud800'; expected text without surrogates",
        ),
        (
            {"default_serve": split((50_000, "on"))},
            "default_serve.split.allocation: ends at 50000; expected 100000",
        ),
        (
            {"default_serve": split((5, "on"), (5, "off"))},
            "default_serve.split.allocation: 5 after 5; expected bounds rising to 100000",
        ),
        (
            {"default_serve": split((100_000, 1))},
            "default_serve.split.allocation: 1; expected one of the variants",
        ),
        (
            {"default_serve": split((100_000, "no"))},
            "default_serve.split.variant: 'no'; expected one of the variants",
        ),
    ],
)
def test_a_fault_says_where_and_what(changes: dict[str, Any], fault: str) -> None:
    assert fault_of(flag(**changes)) == fault


@pytest.mark.parametrize(
    ("condition", "fault"),
    [
        ({"all": 5}, "all: 5; expected a list"),
        ({"any": [{"not": {"when": 1}}]}, "any[0].not: unknown kind; expected 'attribute', "),
        ({"attribute": ""}, "attribute: ''; expected an attribute's name"),
        (attribute("like"), "op: unknown operator 'like'"),
        ({"attribute": "a", "op": "in"}, "values: None; expected a list"),
        ({"not": attribute("starts_with", 1)}, "not.values: 1; expected a string"),
        ({"segment": "no"}, "segment: there is no segment 'no'"),
        ({"segment": "bad"}, "segment: 'bad' can't be used (op: unknown operator 'like')"),
        ({"flag": 5, "variants": []}, "flag: 5; expected a flag's key"),
        ({"flag": "g", "variants": "on"}, "variants: 'on'; expected a list of names"),
        ({"flag": "g", "variants": [1]}, "variants: a list; expected a list of names"),
    ],
)
def test_a_fault_in_a_condition_says_where_and_what(condition: object, fault: str) -> None:
    found = fault_of(targeted(condition), bad=attribute("like"))
    assert str(found).startswith(f"rules[0].condition.{fault}")


def test_a_broken_flag_keeps_what_is_known_of_it() -> None:
    flags = parse_flag_set(flag_set(flag(off_variant="no")))
    assert (flags.flags["f"].version, flags.flags["f"].type) == (7, "boolean")
    assert flags.resolve("f", {}).version == 7


def test_a_split_may_leave_out_what_has_a_default() -> None:
    serve = {"split": {"allocation": [[50_000, "on"], [100_000, "off"]]}}
    written = split((50_000, "on"), (100_000, "off"))
    flags = parse_flag_set(flag_set(flag(default_serve=serve)))
    whole = parse_flag_set(flag_set(flag(default_serve=written)))
    for number in range(50):
        context = {"targetingKey": str(number)}
        assert flags.resolve("f", context).value is whole.resolve("f", context).value


def test_a_salt_may_hold_any_text() -> None:
    serve = split((50_000, "on"), (100_000, "off"), salt="Größe:")
    flags = parse_flag_set(flag_set(flag(default_serve=serve)))
    assert flags.resolve("f", {"targetingKey": "é"}).reason == "SPLIT"


# --- bounds ------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    condition = attribute("exists")
    for _ in range(levels - 1):
        condition = {"not": condition}
    return condition


def test_conditions_may_be_nested_so_deep_and_no_deeper() -> None:
    assert fault_of(targeted(nested(MAX_HEIGHT))) is None
    assert "levels of conditions" in str(fault_of(targeted(nested(MAX_HEIGHT + 1))))
    assert "levels of conditions" in str(fault_of(targeted(nested(100_000))))


def test_segments_count_towards_the_depth_whichever_is_asked_first() -> None:
    pile: dict[str, object] = {f"s{n}": {"segment": f"s{n + 1}"} for n in range(500)}
    pile["s500"] = attribute("exists")
    for order in (list(pile), list(reversed(pile))):
        segments = {key: pile[key] for key in order}
        for start, is_fine in (
            (500 - MAX_HEIGHT + 2, True),
            (500 - MAX_HEIGHT + 1, False),
            (0, False),
        ):
            fault = fault_of(targeted({"segment": f"s{start}"}), **segments)
            assert (fault is None) == is_fine, (start, fault)


def test_segments_that_grow_exponentially_are_refused() -> None:
    segments: dict[str, object] = {
        f"s{n}": {"any": [{"segment": f"s{n + 1}"}] * 2} for n in range(40)
    }
    segments["s40"] = attribute("exists")
    fault = str(fault_of(targeted({"segment": "s0"}), **segments))
    assert f"more than {MAX_SIZE} conditions" in fault
    assert fault_of(targeted({"segment": "s35"}), **segments) is None


def test_a_cycle_of_segments_is_a_fault_of_those_that_use_it() -> None:
    segments = {
        "a": {"segment": "b"},
        "b": {"not": {"segment": "a"}},
        "leads": {"any": [{"segment": "b"}]},
        "fine": attribute("exists"),
    }
    assert "'a' → 'b' → 'a'" in str(fault_of(targeted({"segment": "a"}), **segments))
    assert fault_of(targeted({"segment": "leads"}), **segments) is not None
    assert fault_of(targeted({"segment": "fine"}), **segments) is None


def object_flag(levels: int) -> dict[str, Any]:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return flag(type="object", variants={"on": value, "off": {}})


def test_values_may_be_nested_so_deep_and_no_deeper() -> None:
    assert fault_of(object_flag(MAX_VALUE_HEIGHT)) is None
    assert "levels deep" in str(fault_of(object_flag(MAX_VALUE_HEIGHT + 1)))
    assert "levels deep" in str(fault_of(object_flag(100_000)))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (5, "5; expected an object or a list"),
        ([float("nan")], "holds nan; expected JSON"),
        ({"a": (1,)}, "holds a value of type tuple; expected JSON"),
        ({1: 2}, "has the member 1; expected names that are strings"),
    ],
)
def test_an_object_holds_json(value: object, fault: str) -> None:
    document = flag(type="object", variants={"on": value, "off": {}})
    assert fault_of(document) == f"variants.on: {fault}"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, True, "1"])
def test_a_float_is_a_finite_number(value: object) -> None:
    document = flag(type="float", variants={"on": value, "off": 0})
    assert "expected a finite number" in str(fault_of(document))


def test_an_hostile_amount_of_flags_in_one_cycle_is_read_in_time() -> None:
    # 2,000 flags in one ring: quadratic work would take minutes.
    ring = [
        targeted({"flag": f"f{(n + 1) % 2000}", "variants": ["on"]}, f"f{n}") for n in range(2000)
    ]
    assert len(parse_flag_set(flag_set(*ring)).faults) == 2000


def test_json_with_huge_numbers_and_surrogates_is_read() -> None:
    text = json.dumps(flag_set(flag())).replace('"version": 7', '"version": 1e999')
    assert "version" in parse_flag_set(json.loads(text)).faults["f"]
    document = json.loads('{"\\ud800": {"key": "\\ud800"}}')
    assert "\ud800" in parse_flag_set({**flag_set(), "flags": document}).faults
