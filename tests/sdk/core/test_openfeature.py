from typing import Any

import pytest

from flagd_sdk.core.evaluator import evaluate
from flagd_sdk.core.openfeature import openfeature_details
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.types import Reason, ResolutionDetails
from flagd_sdk.errors import ErrorCode
from tests.sdk.core.documents import attribute, flag, flag_set, rule, split

HALF = split((50_000, "on"), (100_000, "off"))
BY_COMPANY = split((50_000, "on"), (100_000, "off"), bucket_by="company")


def asked(
    document: dict[str, Any], context: dict[str, object], default: Any = True
) -> ResolutionDetails[Any]:
    flags = parse_flag_set(flag_set(document))
    return openfeature_details("f", flags.resolve("f", context), default)


def test_whom_a_split_cannot_place_gets_the_default_and_the_reason_why() -> None:
    assert asked(flag(default_serve=HALF), {}) == ResolutionDetails(
        "f",
        True,
        None,
        Reason.ERROR,
        ErrorCode.TARGETING_KEY_MISSING,
        "the context has no 'targetingKey' to be placed by",
        {"version": 7},
    )


def test_each_split_names_the_attribute_that_it_misses() -> None:
    document = flag(rules=[rule(attribute("exists"), BY_COMPANY)], default_serve=HALF)
    message = asked(document, {"targetingKey": "user-1", "a": 1}).error_message
    assert message == "the context has no 'company' to be placed by"


def test_a_default_of_another_type_is_the_greater_fault() -> None:
    details = asked(flag(default_serve=HALF), {}, default="text")
    assert (details.value, details.error_code) == ("text", ErrorCode.TYPE_MISMATCH)


@pytest.mark.parametrize(
    ("document", "context"),
    [
        (flag(), {}),
        (flag(enabled=False, default_serve=HALF), {}),
        (flag(default_serve=HALF), {"targetingKey": "user-1"}),
        (flag(rules=[rule(attribute("exists"))], default_serve=HALF), {"a": 1}),
        (flag(rules=[rule({"flag": "f", "variants": ["on"]})]), {}),
        (flag(type="integer"), {}),
    ],
)
def test_everyone_else_is_answered_as_by_the_sdk(
    document: dict[str, Any], context: dict[str, object]
) -> None:
    flags = parse_flag_set(flag_set(document))
    assert asked(document, context, False) == evaluate(flags, "f", False, context)


def test_to_be_in_no_place_is_no_error_of_the_sdk_itself() -> None:
    flags = parse_flag_set(flag_set(flag(default_serve=HALF)))
    details = evaluate(flags, "f", True, {})
    assert (details.value, details.reason) == (False, Reason.DEFAULT)
    assert (details.error_code, details.error_message) == (None, None)
    mistaken = evaluate(flags, "f", "text", {})
    assert (mistaken.reason, mistaken.error_code) == (Reason.ERROR, ErrorCode.TYPE_MISMATCH)
