"""Section 2 of OpenFeature's specification (providers), but for what `…_lifecycle` tests.

Each test names its requirement. The specification is at github.com/open-feature/spec, 0.8.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

import pytest
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagType
from openfeature.provider import AbstractProvider

from flagd_sdk.integrations.openfeature import FlagReleaseProvider
from tests.sdk.fakes import MemoryTransport, flag
from tests.sdk.integrations.openfeature_world import World, flag_client, typed_flag, world_of

OBJECT = {"title": "hello", "sizes": [1, 2.5, None]}


def targeted(condition: dict[str, Any], **changes: Any) -> dict[str, Any]:
    rules = [{"id": "r", "condition": condition, "serve": {"variant": "on"}}]
    return {**flag("targeted", on=0), "rules": rules, **changes}


def asks(name: str, op: str, *values: object) -> dict[str, Any]:
    return {"attribute": name, "op": op, "values": list(values)}


FLAGS = (
    flag("boolean", on=100_000),
    typed_flag("string", "string", {"hi": "hi", "none": ""}, "hi"),
    typed_flag("integer", "integer", {"ten": 10, "zero": 0}, "ten"),
    typed_flag("float", "float", {"half": 0.5, "zero": 0.0}, "half"),
    typed_flag("object", "object", {"full": OBJECT, "none": {}}, "full"),
    typed_flag("list", "object", {"full": [1, 2], "none": []}, "full"),
    flag("split", on=50_000),
    flag("disabled", on=100_000, enabled=False),
    flag("killed", on=100_000, killed=True),
    {**flag("unknown"), "default_serve": {"magic": 1}},
    targeted(asks("country", "in", "NL")),
)
# The type asked for, a flag of it, a default, the value and the variant served.
EVERY_TYPE = [
    (FlagType.BOOLEAN, "boolean", False, True, "on"),
    (FlagType.STRING, "string", "bye", "hi", "hi"),
    (FlagType.INTEGER, "integer", 1, 10, "ten"),
    (FlagType.FLOAT, "float", 0.1, 0.5, "half"),
    (FlagType.FLOAT, "integer", 1, 10.0, "ten"),
    (FlagType.OBJECT, "object", {}, OBJECT, "full"),
    (FlagType.OBJECT, "object", [], OBJECT, "full"),
    (FlagType.OBJECT, "list", {}, [1, 2], "full"),
]


@pytest.fixture
def world() -> Iterator[World]:
    with world_of(*FLAGS) as world:
        yield world


@pytest.fixture
def client(world: World) -> OpenFeatureClient:
    return world.use(FlagReleaseProvider(world.flags))


Details = FlagEvaluationDetails[Any]


def evaluated(
    client: OpenFeatureClient, kind: FlagType, key: str, default: Any, **attributes: Any
) -> Details:
    context = EvaluationContext(attributes.pop("targeting_key", None), attributes)
    return client.evaluate_flag_details(kind, key, default, context)


def boolean(client: OpenFeatureClient, key: str, **attributes: Any) -> Details:
    return evaluated(client, FlagType.BOOLEAN, key, True, **attributes)


def test_2_1_1_the_provider_has_a_name_that_is_not_flagds(client: OpenFeatureClient) -> None:
    assert client.provider.get_metadata().name == "flagd-release"


@pytest.mark.parametrize(("kind", "key", "default", "value", "variant"), EVERY_TYPE)
def test_2_2_1_to_2_2_6_each_type_is_resolved_to_its_value_and_variant(
    client: OpenFeatureClient, kind: FlagType, key: str, default: Any, value: Any, variant: str
) -> None:
    details = evaluated(client, kind, key, default)
    assert details.value == value
    assert type(details.value) is type(value)
    assert (details.variant, details.reason) == (variant, "STATIC")
    assert (details.error_code, details.error_message) == (None, None)


@pytest.mark.parametrize(("kind", "key", "default", "value", "variant"), EVERY_TYPE)
def test_2_2_1_the_asynchronous_variants_answer_the_same(
    client: OpenFeatureClient, kind: FlagType, key: str, default: Any, value: Any, variant: str
) -> None:
    details = asyncio.run(client.evaluate_flag_details_async(kind, key, default))
    assert details == evaluated(client, kind, key, default)
    assert (details.value, details.variant) == (value, variant)


@pytest.mark.parametrize("method", ["boolean", "string", "integer", "float", "object"])
def test_2_2_2_1_there_is_a_method_for_each_type(method: str) -> None:
    for name in (f"resolve_{method}_details", f"resolve_{method}_details_async"):
        assert callable(getattr(FlagReleaseProvider, name))
    assert f"resolve_{method}_details" in vars(FlagReleaseProvider)
    assert issubclass(FlagReleaseProvider, AbstractProvider)


def test_2_2_3_a_falsy_value_is_a_value(world: World, client: OpenFeatureClient) -> None:
    for key, kind in (("string", "string"), ("integer", "integer"), ("float", "float")):
        zero = {"hi": "hi", "none": ""} if key == "string" else {"one": 1, "zero": 0}
        document = typed_flag(key, kind, zero, list(zero)[1])
        change = {"sequence": world.state.flag_set.sequence + 1, "key": key, "flag": document}
        assert world.state.apply_flag(change)
    assert client.get_string_details("string", "default").value == ""
    assert client.get_integer_details("integer", 1).value == 0
    assert client.get_float_details("float", 1.0).value == 0.0
    assert client.get_float_details("float", 1.0).reason == "STATIC"


@pytest.mark.parametrize(
    ("key", "context", "variant", "reason"),
    [
        ("boolean", {}, "on", "STATIC"),
        ("targeted", {"country": "NL"}, "on", "TARGETING_MATCH"),
        ("targeted", {"country": "BE"}, "off", "STATIC"),
        ("split", {"targeting_key": "user-1"}, None, "SPLIT"),
        ("disabled", {}, "off", "DISABLED"),
        ("killed", {}, "off", "DISABLED"),
    ],
)
def test_2_2_5_the_reason_says_how_the_value_came_about(
    client: OpenFeatureClient, key: str, context: dict[str, Any], variant: str, reason: str
) -> None:
    details = boolean(client, key, **context)
    assert details.reason == reason
    assert details.variant == variant or variant is None
    assert details.value is (details.variant == "on")


def test_2_2_5_what_may_be_out_of_date_is_stale(world: World, client: OpenFeatureClient) -> None:
    world.state.lose_touch(is_refused=False)
    stale = boolean(client, "split", targeting_key="user-1")
    assert (stale.reason, stale.flag_metadata["reason"]) == ("STALE", "SPLIT")
    assert boolean(client, "missing").reason == "ERROR"
    world.state.confirm()
    fresh = boolean(client, "split", targeting_key="user-1")
    assert (fresh.reason, fresh.value) == ("SPLIT", stale.value)
    assert "reason" not in fresh.flag_metadata


@pytest.mark.parametrize(
    ("kind", "key", "default", "code", "message"),
    [
        (FlagType.BOOLEAN, "missing", True, "FLAG_NOT_FOUND", "there is no flag 'missing'"),
        (FlagType.BOOLEAN, "string", True, "TYPE_MISMATCH", "the flag is of type string"),
        (FlagType.BOOLEAN, "integer", True, "TYPE_MISMATCH", "the flag is of type integer"),
        (FlagType.STRING, "boolean", "x", "TYPE_MISMATCH", "the flag is of type boolean"),
        (FlagType.INTEGER, "boolean", 1, "TYPE_MISMATCH", "the flag is of type boolean"),
        (FlagType.INTEGER, "float", 1, "TYPE_MISMATCH", "the flag is of type float"),
        (FlagType.FLOAT, "string", 0.1, "TYPE_MISMATCH", "the flag is of type string"),
        (FlagType.OBJECT, "string", {}, "TYPE_MISMATCH", "the flag is of type string"),
        (FlagType.STRING, "object", "x", "TYPE_MISMATCH", "the flag is of type object"),
        (FlagType.BOOLEAN, "unknown", True, "PARSE_ERROR", "default_serve"),
        (FlagType.BOOLEAN, "split", True, "TARGETING_KEY_MISSING", "'targetingKey'"),
    ],
)
def test_2_2_7_and_2_3_3_what_goes_wrong_has_its_code_and_says_why(
    client: OpenFeatureClient, kind: FlagType, key: str, default: Any, code: str, message: str
) -> None:
    details = evaluated(client, kind, key, default)
    assert (details.error_code, details.reason, details.variant) == (code, "ERROR", None)
    assert details.value == default
    assert message in (details.error_message or "")


class Hostile(dict[str, Any]):
    def items(self) -> Any:
        raise LookupError("the host's fault")


def test_2_2_7_a_context_that_can_not_be_read_is_invalid(world: World) -> None:
    provider = FlagReleaseProvider(world.flags)
    details = provider.resolve_boolean_details("boolean", False, EvaluationContext(None, Hostile()))
    assert (details.value, details.error_code) == (False, "INVALID_CONTEXT")
    assert details.error_message == "reading the context raised LookupError"


def test_2_2_7_a_list_that_holds_itself_is_invalid(client: OpenFeatureClient) -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert boolean(client, "boolean", endless=endless).error_code == "INVALID_CONTEXT"


def test_2_2_7_a_fault_of_ours_is_general(
    world: World, client: OpenFeatureClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagd_sdk.client.openfeature_details", lambda *_: 1 / 0)
    assert boolean(client, "boolean").error_code == "GENERAL"


def test_2_2_9_and_2_2_10_flag_metadata_are_plain_values(client: OpenFeatureClient) -> None:
    split = boolean(client, "split", targeting_key="user-1").flag_metadata
    assert split == {"version": 1, "split": "default", "flagSetId": "production"}
    assert boolean(client, "boolean").flag_metadata == {"version": 1, "flagSetId": "production"}
    assert boolean(client, "string").flag_metadata == {"version": 1}  # a type mismatch


# --- the context (2.2.1; section 3.1 and types, "Datetime") -------------------------------------

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("condition", "attributes"),
    [
        (asks("country", "in", "NL"), {"country": "NL"}),
        (asks("age", "gte", 18), {"age": 18}),
        (asks("age", "gte", 18), {"age": 18.5}),
        (asks("beta", "in", True), {"beta": True}),
        (asks("groups", "in", "staff"), {"groups": ["guests", "staff"]}),
        (asks("groups", "in", "staff"), {"groups": ("guests", "staff")}),
        (asks("nested", "exists"), {"nested": {"a": {"b": [1]}}}),
        (asks("targetingKey", "in", "ann"), {"targeting_key": "ann"}),
        (asks("targetingKey", "in", "ann"), {"targetingKey": "ann"}),
        (asks("at", "before", "2027-01-01T00:00:00Z"), {"at": NEW_YEAR - timedelta(seconds=1)}),
        # Without a zone it is in UTC, also in a list.
        (asks("at", "before", "2027-01-01T00:00:01Z"), {"at": datetime(2027, 1, 1)}),  # noqa: DTZ001
        (asks("at", "after", "2026-12-31T23:59:59Z"), {"at": [datetime(2027, 1, 1)]}),  # noqa: DTZ001
        (
            asks("at", "before", "2027-01-01T00:00:00Z"),
            {"at": datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
        ),
    ],
)
def test_2_2_1_every_kind_of_attribute_reaches_the_rules(
    condition: dict[str, Any], attributes: dict[str, Any]
) -> None:
    with world_of(targeted(condition)) as world:
        client = world.use(FlagReleaseProvider(world.flags))
        assert boolean(client, "targeted", **attributes).variant == "on"
        assert boolean(client, "targeted").variant == "off"


class BrokenZone(tzinfo):
    def utcoffset(self, _at: datetime | None) -> timedelta:
        raise RuntimeError("the host's fault")


def test_2_2_1_an_attribute_that_no_rule_can_use_matches_nothing(client: OpenFeatureClient) -> None:
    at: Mapping[str, Any] = {
        "country": datetime(2027, 1, 1, tzinfo=BrokenZone()),
        "other": object(),
    }
    assert boolean(client, "targeted", **at).variant == "off"


def test_the_targeting_key_goes_before_an_attribute_of_its_name(client: OpenFeatureClient) -> None:
    alone = boolean(client, "split", targeting_key="user-7")
    users = [f"user-{number}" for number in range(100)]
    both = [boolean(client, "split", targeting_key="user-7", targetingKey=user) for user in users]
    assert {details.value for details in both} == {alone.value}


def test_an_object_served_is_the_callers_own(client: OpenFeatureClient) -> None:
    first = client.get_object_value("object", {})
    first["title"] = "changed"  # type: ignore[index]
    assert client.get_object_value("object", {}) == OBJECT


def test_before_it_knows_any_flag_the_provider_says_so() -> None:
    with flag_client(MemoryTransport()) as flags:
        details = FlagReleaseProvider(flags).resolve_boolean_details("boolean", True)
    assert (details.value, details.error_code) == (True, "PROVIDER_NOT_READY")


def test_what_the_table_of_conformance_names_is_there() -> None:
    root = Path(__file__).parents[3]
    named = re.findall(r"`(test_\w+)`", (root / "docs" / "openfeature.md").read_text("utf-8"))
    tests = [*root.glob("tests/sdk/integrations/*.py"), *root.glob("tests/end_to_end/*openf*.py")]
    written = "".join(path.read_text("utf-8") for path in tests)
    assert len(named) > 30
    assert [name for name in named if f"def {name}(" not in written] == []
