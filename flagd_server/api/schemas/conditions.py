"""Conditions and what a rule serves, as clients write them.

A condition is one of six objects, told apart by the one name that only it has; so a fault inside
is reported against the alternative that was meant, and not against all six.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PlainValidator, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.base import Document, Key, Scalar
from flagd_server.api.schemas.faults import MEMBER_PREFIX
from flagd_server.domain.condition_check import MAX_BRANCHES, MAX_VALUES

Operator = Literal[
    "in",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "eq",
    "lt",
    "lte",
    "gt",
    "gte",
    "semver_eq",
    "semver_lt",
    "semver_lte",
    "semver_gt",
    "semver_gte",
    "before",
    "after",
    "exists",
]
Attribute = Annotated[str, StringConstraints(min_length=1, max_length=256)]

MAX_ALLOCATION = 100_000


def _member(*names: str) -> Discriminator:
    """Return the choice among alternatives by the first of `names` that an object holds."""

    def choose(value: Any) -> str | None:
        # Pydantic asks about documents when it reads and about models when it writes.
        if isinstance(value, Document):
            fields = type(value).model_fields
            held = {field.alias or name for name, field in fields.items()}
        elif isinstance(value, dict):
            held = set(value)
        else:
            return None
        return next((MEMBER_PREFIX + name for name in names if name in held), None)

    return Discriminator(
        choose,
        custom_error_type="alternative",
        custom_error_message=f"should be an object with one of: {', '.join(names)}",
    )


class AttributeCondition(Document):
    attribute: Attribute
    op: Operator
    values: Annotated[list[Scalar], Field(max_length=MAX_VALUES)]


class AllCondition(Document):
    conditions: "Conditions" = Field(alias="all")


class AnyCondition(Document):
    conditions: "Conditions" = Field(alias="any")


class NotCondition(Document):
    condition: "Condition" = Field(alias="not")


class SegmentCondition(Document):
    segment: Key


class FlagCondition(Document):
    flag: Key
    variants: Annotated[list[Key], Field(min_length=1, max_length=MAX_BRANCHES)]


Condition = Annotated[
    Annotated[AttributeCondition, Tag(MEMBER_PREFIX + "attribute")]
    | Annotated[AllCondition, Tag(MEMBER_PREFIX + "all")]
    | Annotated[AnyCondition, Tag(MEMBER_PREFIX + "any")]
    | Annotated[NotCondition, Tag(MEMBER_PREFIX + "not")]
    | Annotated[SegmentCondition, Tag(MEMBER_PREFIX + "segment")]
    | Annotated[FlagCondition, Tag(MEMBER_PREFIX + "flag")],
    _member("all", "any", "not", "segment", "flag", "attribute"),
]
Conditions = Annotated[list[Condition], Field(min_length=1, max_length=MAX_BRANCHES)]


def _allocation(value: Any) -> Any:
    is_allocation = isinstance(value, list) and all(
        isinstance(entry, list)
        and len(entry) == 2
        and type(entry[0]) is int
        and isinstance(entry[1], str)
        for entry in value
    )
    if is_allocation and len(value) <= MAX_ALLOCATION:
        return value
    raise PydanticCustomError(
        "allocation", "should be as it was read, [[upto, variant], …]; it may be left out"
    )


def _rested(value: Any) -> Any:
    is_rested = isinstance(value, list) and all(
        isinstance(entry, list) and len(entry) == 2 and all(type(bound) is int for bound in entry)
        for entry in value
    )
    if is_rested and len(value) <= MAX_ALLOCATION:
        return value
    raise PydanticCustomError(
        "rested", "should be as it was read, [[from, upto], …]; it may be left out"
    )


class SplitBody(Document):
    weights: Annotated[
        dict[Key, Annotated[int, Field(ge=0, le=100_000)]],
        Field(min_length=1, max_length=MAX_BRANCHES),
    ]
    # Left out, the server fills them in; these defaults never leave the model.
    bucket_by: Attribute = ""
    salt: Annotated[str, StringConstraints(min_length=1, max_length=256)] = ""
    # Computed by the server; taken so that what was read can be sent back with a change.
    allocation: Annotated[Any, PlainValidator(_allocation)] = None
    rested: Annotated[Any, PlainValidator(_rested)] = None


class VariantServe(Document):
    variant: Key


class SplitServe(Document):
    split: SplitBody


Serve = Annotated[
    Annotated[VariantServe, Tag(MEMBER_PREFIX + "variant")]
    | Annotated[SplitServe, Tag(MEMBER_PREFIX + "split")],
    _member("variant", "split"),
]
