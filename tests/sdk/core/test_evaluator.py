import threading
from collections import defaultdict
from itertools import count
from types import MappingProxyType
from typing import Any

import pytest

from flagd_sdk.core.evaluator import EMPTY_FLAG_SET, FlagSet, all_flags, evaluate, value_of
from flagd_sdk.core.operators import OPERATORS
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.types import Reason
from flagd_sdk.errors import ErrorCode
from tests.sdk.core import hostile
from tests.sdk.core.documents import attribute, flag, flag_set, rule, split, targeted

HALF = split((50_000, "on"), (100_000, "off"))
KILL = {"at": "2026-11-23T19:14:37.123Z", "source": "guard", "reason": "errors", "id": "k1"}


def compiled(*flags: dict[str, Any], **segments: object) -> FlagSet:
    return parse_flag_set(flag_set(*flags, **segments))


# --- what a resolution says --------------------------------------------------------------------


def test_a_resolution_says_what_telemetry_needs() -> None:
    by_company = split((100_000, "on"), bucket_by="company")
    flags = compiled(flag(rules=[rule(attribute("exists"), by_company, "nl")], version=12))
    resolution = flags.resolve("f", {"a": 1, "company": "acme"})
    assert (resolution.flag, resolution.type, resolution.version) == ("f", "boolean", 12)
    assert (resolution.split, resolution.bucket_by) == ("nl", "company")
    assert (resolution.variant, resolution.value, resolution.reason) == ("on", True, "SPLIT")


@pytest.mark.parametrize(
    "document", [flag(), flag(enabled=False), flag(kill=KILL), flag(default_serve=HALF)]
)
def test_only_a_split_that_placed_the_unit_names_one(document: dict[str, Any]) -> None:
    resolution = compiled(document).resolve("f", {})
    assert resolution.split is None
    assert resolution.bucket_by is None


def test_resolutions_are_made_once_and_handed_out() -> None:
    flags = compiled(flag(default_serve=HALF))
    users = [{"targetingKey": f"user-{number}"} for number in range(100)]
    assert len({id(flags.resolve("f", user)) for user in users}) == 2


def test_a_resolution_and_a_flag_show_what_they_are() -> None:
    flags = compiled(flag())
    assert repr(flags.resolve("f", {})) == "<Resolution f on STATIC>"
    assert repr(flags.flags["f"]) == "<Flag f version 7>"


def test_flags_tell_whether_they_are_killed() -> None:
    flags = compiled(flag("live"), flag("dead", kill=KILL), flag("odd", kill="yes"))
    assert [flags.flags[key].killed for key in ("live", "dead", "odd")] == [False, True, True]
    assert flags.resolve("odd", {}).reason is Reason.DISABLED


# --- typed by the default ----------------------------------------------------------------------

OBJECT = flag(type="object", variants={"on": {"a": [1, {"b": 2}]}, "off": [1, [2]]})


def test_an_object_belongs_to_its_receiver() -> None:
    flags = compiled(OBJECT)
    for ask in (
        lambda: evaluate(flags, "f", {}, {}).value,
        lambda: value_of(flags.resolve("f", {}), {}),
        lambda: all_flags(flags, {})["f"].value,
    ):
        value: Any = ask()
        value["a"][1]["b"] = "changed"
        value["a"].append("changed")
        assert ask() == {"a": [1, {"b": 2}]}


def test_a_flag_set_does_not_share_objects_with_the_document() -> None:
    document = flag(type="object", variants={"on": {"a": [1]}, "off": []})
    flags = compiled(document)
    document["variants"]["on"]["a"].append(2)
    assert evaluate(flags, "f", {}, {}).value == {"a": [1]}


@pytest.mark.parametrize("default", [{}, [], (), MappingProxyType({})])
def test_an_object_suits_any_mapping_or_list(default: object) -> None:
    assert evaluate(compiled(OBJECT), "f", default, {}).error_code is None


@pytest.mark.parametrize("name", ["bytes", "object", "complex", "raises"])
def test_a_default_of_no_flag_type_is_a_mismatch(name: str) -> None:
    default = hostile.VALUES[name]
    details = evaluate(compiled(flag()), "f", default, {})
    assert details.error_code is ErrorCode.TYPE_MISMATCH
    assert details.value is default


def test_a_subclass_of_a_type_is_of_that_type() -> None:
    flags = compiled(flag(type="string", variants={"on": "NL", "off": ""}))
    details = evaluate(flags, "f", hostile.Country.NL, {})
    assert (details.value, details.reason) == ("NL", Reason.STATIC)


def test_an_integer_too_large_for_a_float_is_a_mismatch() -> None:
    flags = compiled(flag(type="integer", variants={"on": 10**400, "off": 0}))
    assert evaluate(flags, "f", 1.5, {}).error_code is ErrorCode.TYPE_MISMATCH
    assert evaluate(flags, "f", 1, {}).value == 10**400


def test_value_of_falls_back_to_the_default() -> None:
    flags = compiled(flag())
    assert value_of(flags.resolve("f", {}), "no") == "no"
    assert value_of(flags.resolve("absent", {}), 5) == 5
    assert value_of(flags.resolve("f", {}), None) is True
    assert value_of(flags.resolve("f", {}), False) is True


def test_all_flags_has_broken_ones_too() -> None:
    flags = compiled(flag("fine"), flag("bad", type="colour"))
    found = all_flags(flags, {})
    assert found["fine"].value is True
    assert (found["bad"].value, found["bad"].reason) == (None, Reason.ERROR)


def test_the_message_of_an_error_says_what_was_expected() -> None:
    flags = compiled(flag(), targeted(attribute("like"), "bad"))
    mismatch = evaluate(flags, "f", 5, {})
    assert mismatch.error_message == "the flag is of type boolean; the default is 5"
    assert evaluate(flags, "x", 5, {}).error_message == "there is no flag 'x'"
    broken = evaluate(flags, "bad", 5, {})
    assert broken.error_message == "rules[0].condition.op: unknown operator 'like'"
    assert flags.faults == {"bad": broken.error_message}


# --- never raises ------------------------------------------------------------------------------

WORKING_VALUES = {
    "in": ["NL", 5, True],
    "exists": [],
    "eq": [5],
    "lt": [10],
    "lte": [10],
    "gt": [0],
    "gte": [0],
    "before": ["2026-06-01T00:00:00Z"],
    "after": ["2020-01-01T00:00:00Z"],
}


def working_values(op: str) -> list[object]:
    return WORKING_VALUES.get(op, ["1.0.0" if op.startswith("semver") else "NL"])


@pytest.mark.parametrize("name", hostile.VALUES)
def test_no_value_makes_an_evaluation_raise(name: str) -> None:
    value = hostile.VALUES[name]
    flags = compiled(
        *(targeted(attribute(op, *working_values(op)), op) for op in OPERATORS),
        flag("split", default_serve=HALF),
        flag("three", default_serve=split((1, "on"), (2, "off"), (100_000, "on"))),
        flag("by-a", default_serve=split((50_000, "on"), (100_000, "off"), bucket_by="a")),
    )
    assert not flags.faults
    for key in flags.flags:
        details = evaluate(flags, key, False, {"a": value, "targetingKey": value})
        assert details.error_code is None, key
        assert details.value in (True, False)


@pytest.mark.parametrize("op", OPERATORS)
def test_what_an_operator_cannot_use_does_not_match(op: str) -> None:
    flags = compiled(targeted({"not": attribute(op, *working_values(op))}))
    for name in ("nan", "inf", "surrogate", "bytes", "object", "raises", "deep", "dict"):
        assert flags.resolve("f", {"a": hostile.VALUES[name]}).value is (op != "exists"), name


def test_plain_subclasses_count_as_what_they_hold() -> None:
    flags = compiled(
        targeted(attribute("in", "NL"), "text"),
        targeted(attribute("starts_with", "N"), "start"),
        targeted(attribute("ends_with", "L"), "end"),
        targeted(attribute("gte", 5), "number"),
        targeted(attribute("in", 5), "in number"),
        flag("split", default_serve=HALF),
    )
    for value in (hostile.Country.NL, hostile.RaisingText("NL"), hostile.LyingText("NL")):
        assert flags.resolve("text", {"a": value}).variant == "on"
        assert flags.resolve("start", {"a": value}).variant == "on"
        assert flags.resolve("end", {"a": [value]}).variant == "on"
        plain = flags.resolve("split", {"targetingKey": "NL"})
        assert flags.resolve("split", {"targetingKey": value}) is plain
    for number in (hostile.Level.FIVE, hostile.RaisingNumber(5), hostile.RaisingFloat(5.0)):
        assert flags.resolve("number", {"a": number}).variant == "on"
        assert flags.resolve("in number", {"a": number}).variant == "on"


@pytest.mark.parametrize("name", ["none", "number", "text", "list", "object", "raises", "bytes"])
def test_what_is_no_mapping_is_an_invalid_context(name: str) -> None:
    context: Any = hostile.VALUES[name]
    details = evaluate(compiled(flag(default_serve=HALF)), "f", False, context)
    assert details.error_code is ErrorCode.INVALID_CONTEXT
    assert "expected a mapping" in str(details.error_message)


def test_a_mapping_that_raises_is_an_invalid_context() -> None:
    details = evaluate(compiled(flag(default_serve=HALF)), "f", False, hostile.RaisingMapping())
    assert details.error_code is ErrorCode.INVALID_CONTEXT
    assert details.error_message == "reading the context raised OSError"
    assert details.flag_metadata["version"] == 7


@pytest.mark.parametrize("name", sorted(set(hostile.VALUES) - {"text", "lying"}))
def test_any_key_may_be_asked_for(name: str) -> None:
    key: Any = hostile.VALUES[name]
    details = evaluate(compiled(flag()), key, False, {})
    assert details.error_code is ErrorCode.FLAG_NOT_FOUND
    assert details.value is False


def test_a_key_of_a_subclass_of_str_is_the_text_it_holds() -> None:
    flags = compiled(flag("NL"))
    for key in (hostile.Country.NL, hostile.RaisingText("NL")):
        assert evaluate(flags, key, False, {}).value is True


def test_evaluation_leaves_the_context_alone() -> None:
    context: defaultdict[str, object] = defaultdict(list)
    flags = compiled(flag(default_serve=HALF), targeted(attribute("in", "x"), "g"))
    all_flags(flags, context)
    assert not context


def test_a_caller_near_the_recursion_limit_gets_an_error_and_no_exception() -> None:
    conditions: object = attribute("exists")
    for _ in range(60):
        conditions = {"not": conditions}
    flags = compiled(targeted(conditions))

    def at_depth(depth: int) -> str | None:
        if depth:
            return at_depth(depth - 1)
        return flags.resolve("f", {}).error_code

    found = set()
    for depth in count():
        try:
            found.add(at_depth(depth))
        except RecursionError:  # the caller itself has no frame left
            break
    assert found == {None, ErrorCode.GENERAL}


# --- prerequisites -----------------------------------------------------------------------------


def asking(key: str, *others: str, **changes: Any) -> dict[str, Any]:
    conditions = [{"flag": other, "variants": ["on"]} for other in others]
    return targeted({"any": conditions}, key, **changes)


def test_prerequisites_that_fan_out_are_each_evaluated_once() -> None:
    asked = []

    class Counting(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            asked.append(key)
            return super().get(key, default)

    # Asked twice at each level: 2^40 evaluations, were none remembered.
    levels = [asking(f"f{n}", f"f{n + 1}", f"f{n + 1}") for n in range(40)]
    flags = compiled(*levels, targeted(attribute("exists"), "f40"))
    assert flags.resolve("f0", Counting()).variant == "off"
    assert asked.count("a") == 1


def test_prerequisites_see_the_context_of_the_question() -> None:
    flags = compiled(asking("outer", "inner"), flag("inner", default_serve=HALF), flag("plain"))
    for number in range(50):
        context = {"targetingKey": f"user-{number}"}
        inner = flags.resolve("inner", context)
        assert flags.resolve("outer", context).variant == inner.variant


def test_a_pile_of_prerequisites_too_high_for_the_interpreter_is_an_error_of_its_top() -> None:
    levels = [asking(f"f{n}", f"f{n + 1}") for n in range(2000)]
    flags = compiled(*levels, flag("f2000"))
    assert not flags.faults
    assert flags.resolve("f0", {}).error_code is ErrorCode.GENERAL
    assert flags.resolve("f1990", {}).variant == "on"


def test_a_killed_flag_closes_no_cycle() -> None:
    flags = compiled(asking("a", "b"), asking("b", "a", kill=KILL))
    assert not flags.faults
    assert flags.resolve("a", {}).variant == "off"


# --- one flag changed --------------------------------------------------------------------------


def test_with_flag_changes_one_flag_and_keeps_the_old_set() -> None:
    before = compiled(flag("a"), flag("b"))
    after = before.with_flag(4, "a", flag("a", version=8, kill=KILL))
    assert (after.sequence, after.environment, after.unit_key) == (4, "production", before.unit_key)
    assert after.resolve("a", {}).reason is Reason.DISABLED
    assert before.resolve("a", {}).reason is Reason.STATIC
    assert after.flags["b"] is before.flags["b"]


def test_with_flag_adds_and_removes() -> None:
    flags = compiled(flag("a")).with_flag(4, "b", flag("b")).with_flag(5, "a", None)
    assert list(flags.flags) == list(flags.resolvers) == ["b"]
    assert flags.with_flag(6, "never there", None).resolve("b", {}).variant == "on"


def test_with_flag_keeps_faults_current() -> None:
    flags = compiled(flag("a"))
    broken = flags.with_flag(4, "a", flag("a", type="colour"))
    assert list(broken.faults) == ["a"]
    assert broken.with_flag(5, "a", flag("a")).faults == {}
    assert broken.with_flag(5, "a", None).faults == {}


def test_with_flag_uses_the_segments_of_the_set() -> None:
    flags = compiled(s=attribute("in", "x")).with_flag(4, "f", targeted({"segment": "s"}))
    assert flags.resolve("f", {"a": "x"}).variant == "on"


def test_a_cycle_may_be_closed_and_opened_by_one_flag() -> None:
    opened = compiled(asking("a", "b"), asking("b", "c"), flag("c"), flag("other"))
    closed = opened.with_flag(4, "c", asking("c", "a"))
    assert sorted(closed.faults) == ["a", "b", "c"]
    assert "a → b → c → a" in closed.faults["b"]
    for reopened in (
        closed.with_flag(5, "c", flag("c")),
        closed.with_flag(5, "c", asking("c", "a", enabled=False)),
        closed.with_flag(5, "b", flag("b")),
    ):
        assert reopened.faults == {}
        assert reopened.resolve("other", {}).variant == "on"
    removed = closed.with_flag(5, "b", None)
    assert removed.faults == {}
    assert removed.resolve("a", {}).variant == "off"


def test_an_edit_of_a_flag_in_a_cycle_keeps_the_others_broken() -> None:
    flags = compiled(asking("a", "b"), asking("b", "a"), flag("other"))
    edited = flags.with_flag(4, "a", asking("a", "b", version=8))
    assert sorted(edited.faults) == ["a", "b"]
    assert edited.with_flag(5, "other", flag("other", version=8)).faults == edited.faults
    assert edited.flags["a"].version == 8


def test_the_empty_flag_set_has_no_flag() -> None:
    assert (EMPTY_FLAG_SET.environment, EMPTY_FLAG_SET.sequence) == ("", 0)
    assert EMPTY_FLAG_SET.resolve("f", {}).error_code is ErrorCode.FLAG_NOT_FOUND
    assert all_flags(EMPTY_FLAG_SET, {}) == {}


def test_threads_share_a_flag_set() -> None:
    flags = compiled(asking("a", "b"), flag("b", default_serve=HALF))
    users = [{"targetingKey": f"user-{number}"} for number in range(500)]
    expected = [flags.resolve("a", user).variant for user in users]
    found: list[list[str | None]] = []

    def work() -> None:
        found.append([flags.resolve("a", user).variant for user in users])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_every_split_of_a_flag_serves_the_off_variant_to_whom_it_cannot_place() -> None:
    flags = compiled(flag(rules=[rule(attribute("exists"), HALF)], default_serve=HALF))
    for context in ({"a": 1}, {}):
        resolution = flags.resolve("f", context)
        assert (resolution.variant, resolution.reason) == ("off", Reason.DEFAULT)
        assert resolution.error_code is ErrorCode.TARGETING_KEY_MISSING


def test_a_list_as_a_value_belongs_to_its_receiver() -> None:
    flags = compiled(flag(type="object", variants={"on": [[1], 2.5], "off": {}}))
    value: Any = evaluate(flags, "f", [], {}).value
    value[0].append("changed")
    assert evaluate(flags, "f", [], {}).value == [[1], 2.5]
