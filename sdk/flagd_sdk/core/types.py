"""The words of OpenFeature that every part shares: reasons, resolution details, contexts."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from flagd_sdk.errors import ErrorCode

JsonValue: TypeAlias = (
    "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"  # as json.loads
)

# What an application knows of a user. Any value may stand in it; what no operator understands
# matches nothing.
ContextMapping: TypeAlias = Mapping[str, object]

Value = TypeVar("Value")


class Reason(StrEnum):
    """Why a value was served (OpenFeature specification, types, "Resolution Reason")."""

    STATIC = "STATIC"
    DEFAULT = "DEFAULT"
    TARGETING_MATCH = "TARGETING_MATCH"
    SPLIT = "SPLIT"
    DISABLED = "DISABLED"
    CACHED = "CACHED"
    STALE = "STALE"
    UNKNOWN = "UNKNOWN"
    ERROR = "ERROR"


class ResolutionDetails(NamedTuple, Generic[Value]):
    """What a caller learns of one evaluation.

    A named tuple: dataclasses would cost `import flagd_sdk` a third of what it may take.

    Attributes:
        value: of the variant served, or the caller's default where `reason` is ERROR.
        variant: None where the caller's default was served.
        flag_metadata: `version` of the configuration, and `split` (a rule's id or "default")
            where a split decided; of a killed flag `killed_by` (operator, guard, deployment, alert,
            or local where this process did it by itself) and `kill_reason`.
    """

    flag_key: str
    value: Value
    variant: str | None
    reason: Reason
    error_code: ErrorCode | None = None
    error_message: str | None = None
    flag_metadata: Mapping[str, bool | int | float | str] = MappingProxyType({})


class Evaluation(NamedTuple):
    """What a listener learns of one evaluation. Shared: it must not change what is in it.

    Attributes:
        details: what the caller was answered, with the caller's default where it was an error.
        context: what the flag was evaluated with.
        environment: the flag set's, which is its id.
    """

    details: ResolutionDetails[Any]
    context: ContextMapping
    environment: str


_SHOWN_CHARACTERS = 60


def shown(value: object) -> str:
    """Describe a value for a message: short, ASCII, and without calling code of its class."""
    if type(value) is str:
        text = ascii(value[:_SHOWN_CHARACTERS])
        return text if len(value) <= _SHOWN_CHARACTERS else f"{text[:-1]}…{text[-1]}"
    if type(value) is int:
        return str(value) if value.bit_length() <= _SHOWN_CHARACTERS else "a very large integer"
    if value is None or type(value) is bool or type(value) is float:
        return str(value)
    return _NAMES.get(type(value), f"a value of type {type(value).__name__}")


_NAMES: dict[type, str] = {dict: "an object", list: "a list"}
