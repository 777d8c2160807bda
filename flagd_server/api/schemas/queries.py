"""Query strings: every parameter is declared, and arrives as text."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.base import MAX_SAFE_INTEGER, EnvironmentKey, Key

_DECIMAL = re.compile(r"[0-9]{1,16}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?", re.ASCII)


class Query(BaseModel):
    """A query string; a parameter that is not declared is a typing error of the client."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _integer(text: Any) -> Any:
    if isinstance(text, str) and _DECIMAL.fullmatch(text):
        return int(text)
    raise PydanticCustomError("int_text", "should be a whole number in decimal digits")


def _seconds(text: Any) -> Any:
    if isinstance(text, str) and _SECONDS.fullmatch(text):
        return float(text)
    raise PydanticCustomError("seconds_text", "should be a number of seconds, such as 5 or 0.5")


def _boolean(text: Any) -> Any:
    if text in ("true", "false"):
        return text == "true"
    raise PydanticCustomError("bool_text", "should be true or false")


class PageQuery(Query):
    limit: Annotated[int, BeforeValidator(_integer), Field(ge=1, le=200)] = 50
    before: Annotated[int, BeforeValidator(_integer), Field(ge=1, le=MAX_SAFE_INTEGER)] | None = (
        None
    )


class AuditQuery(PageQuery):
    flag: Key | None = None
    environment: EnvironmentKey | None = None


class FlagsQuery(Query):
    tag: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    archived: Annotated[bool, BeforeValidator(_boolean)] | None = None


class EvidenceQuery(Query):
    format: Literal["json", "text"] | None = None


class KillQuery(Query):
    wait_s: Annotated[float, BeforeValidator(_seconds), Field(le=30)] | None = None


class NoQuery(Query):
    """Of an operation that takes no parameters."""
