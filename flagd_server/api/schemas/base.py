"""The base of every model, and the kinds of text, number and time they are made of."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, StringConstraints
from pydantic_core import PydanticCustomError

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader gets right (RFC 8259, section 6)."""
MAX_VALUE_BYTES = 64 * 1024

KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ENVIRONMENT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]*$"
_KEY = re.compile(KEY_PATTERN, re.ASCII)
_ENVIRONMENT = re.compile(ENVIRONMENT_PATTERN, re.ASCII)
_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


class Document(BaseModel):
    """An object in a request: exact types, and no field that is not declared."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def given(self) -> dict[str, Any]:
        """Return the fields the client wrote, as plain JSON values, and no defaults."""
        return self.model_dump(by_alias=True, exclude_unset=True)


# Reports name the same few keys each second; only good ones, which are short, are remembered.
@lru_cache(maxsize=4_096)
def _checked_key(text: str) -> str:
    if _KEY.match(text) and not text.endswith("\n"):
        return text
    raise PydanticCustomError(
        "key",
        "should be 1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or a digit",
    )


def _checked_environment(text: str) -> str:
    if _ENVIRONMENT.match(text) and not text.endswith("\n"):
        return text
    raise PydanticCustomError(
        "environment_key",
        "should be 1 to 63 of a-z 0-9 -, beginning with a letter or a digit",
    )


Key = Annotated[str, AfterValidator(_checked_key)]
EnvironmentKey = Annotated[str, AfterValidator(_checked_environment)]
Line = Annotated[str, StringConstraints(max_length=128, pattern=NO_CONTROL_CHARACTERS)]
"""Up to 128 characters on one line; may be empty."""
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=NO_CONTROL_CHARACTERS)
]
Text = Annotated[str, StringConstraints(max_length=2_000)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Version = Annotated[int, Field(ge=1, le=MAX_SAFE_INTEGER)]


def _timestamp(value: object) -> datetime:
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):  # the 30th of February; year 1 in another zone
            pass
    raise PydanticCustomError(
        "timestamp", "should be a time as in RFC 3339, such as 2026-11-23T19:14:37.123Z"
    )


Timestamp = Annotated[datetime, PlainValidator(_timestamp)]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= MAX_SAFE_INTEGER


def _scalar(value: object) -> object:
    if isinstance(value, bool) or _is_number(value):
        return value
    if isinstance(value, str) and len(value) <= 1_024:
        return value
    raise PydanticCustomError(
        "scalar",
        "should be a string of at most 1024 characters, true, false or a number"
        " (integers within ±(2^53 - 1))",
    )


Scalar = Annotated[str | bool | int | float, PlainValidator(_scalar)]


def _json_value(value: object) -> object:
    """Check what the decoder leaves open; depth is bounded by it already."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, int | float) and not isinstance(item, bool) and not _is_number(item):
            raise PydanticCustomError(
                "json_integer", "holds an integer outside ±(2^53 - 1); send it as a string"
            )
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_VALUE_BYTES:
        raise PydanticCustomError("json_size", "should be at most 64 KiB of JSON")
    return value


JsonValue = Annotated[Any, PlainValidator(_json_value)]
