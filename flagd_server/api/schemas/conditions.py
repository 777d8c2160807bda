"""Conditions and what a rule serves, as clients write them.

A condition is one of six objects, told apart by the one name that only it has; so a fault inside
is reported against the alternative that was meant, and not against all six.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from flagd_server.api.schemas.base import Document, Key, Scalar
from flagd_server.api.schemas.faults import MEMBER_PREFIX

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

MAX_VALUES = 10_000
MAX_BRANCHES = 100


def _member(*names: str) -> Discriminator:
    """Return the choice among alternatives by the first of `names` that an object holds."""

    def choose(value: Any) -> str | None:
        if isinstance(value, dict):
            return next((MEMBER_PREFIX + name for name in names if name in value), None)
        return None

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


class SplitBody(Document):
    weights: Annotated[
        dict[Key, Annotated[int, Field(ge=0, le=100_000)]],
        Field(min_length=1, max_length=MAX_BRANCHES),
    ]
    # Left out, the server fills them in; these defaults never leave the model.
    bucket_by: Attribute = ""
    salt: Annotated[str, StringConstraints(min_length=1, max_length=256)] = ""


class VariantServe(Document):
    variant: Key


class SplitServe(Document):
    split: SplitBody


Serve = Annotated[
    Annotated[VariantServe, Tag(MEMBER_PREFIX + "variant")]
    | Annotated[SplitServe, Tag(MEMBER_PREFIX + "split")],
    _member("variant", "split"),
]
