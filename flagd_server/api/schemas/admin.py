"""The bodies of the admin API, one model each."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from flagd_server.api.schemas.base import (
    Document,
    EnvironmentKey,
    JsonValue,
    Key,
    Line,
    Name,
    Reason,
    Text,
    Timestamp,
    Version,
)
from flagd_server.api.schemas.conditions import Condition, Serve
from flagd_server.domain.guard_policy import MAX_HARM_BUDGET
from flagd_server.domain.validation import MAX_RULES, MAX_VARIANTS

Variants = Annotated[dict[Key, JsonValue], Field(min_length=1, max_length=MAX_VARIANTS)]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
Tags = Annotated[list[Tag], Field(max_length=32)]
Lifetime = Literal["temporary", "permanent"]
FlagType = Literal["boolean", "string", "integer", "float", "object"]
TokenScope = Literal["admin", "read", "kill", "sdk"]

# The default of a field that may be left out but has no value of its own. It never leaves the
# model: what a client wrote is read through `Document.given()`.
_NOT_GIVEN: Any = None


class EnvironmentCreate(Document):
    key: EnvironmentKey
    name: Name = _NOT_GIVEN


class EnvironmentRename(Document):
    name: Name


class FlagCreate(Document):
    key: Key
    type: FlagType
    variants: Variants
    off_variant: Key = _NOT_GIVEN
    description: Text = _NOT_GIVEN
    owner: Line = _NOT_GIVEN
    tags: Tags = _NOT_GIVEN
    lifetime: Lifetime = _NOT_GIVEN
    expires_at: Timestamp | None = None


class FlagUpdate(Document):
    variants: Variants = _NOT_GIVEN
    description: Text = _NOT_GIVEN
    owner: Line = _NOT_GIVEN
    tags: Tags = _NOT_GIVEN
    lifetime: Lifetime = _NOT_GIVEN
    expires_at: Timestamp | None = None
    archived: bool = _NOT_GIVEN
    comment: Text = ""


class RuleBody(Document):
    id: Key = _NOT_GIVEN
    description: Text = _NOT_GIVEN
    condition: Condition
    serve: Serve


class GuardBody(Document):
    mode: Literal["enforce", "observe", "off"] = _NOT_GIVEN
    control: Key | None = None
    alpha: Annotated[float, Field(gt=0, le=0.1)] = _NOT_GIVEN
    margin: Annotated[float, Field(ge=1, le=10)] = _NOT_GIVEN
    guards: Annotated[
        list[Literal["error_rate", "latency", "availability"]], Field(min_length=1, max_length=3)
    ] = _NOT_GIVEN
    slow: Annotated[list[Literal["p99", "p90"]], Field(min_length=1, max_length=2)] = _NOT_GIVEN
    on_breach: Literal["kill", "hold"] = _NOT_GIVEN
    on_burn: Literal["hold", "kill"] = _NOT_GIVEN
    harm_budget: Annotated[int, Field(ge=1, le=MAX_HARM_BUDGET)] | None = None


class ConfigurationUpdate(Document):
    enabled: bool = _NOT_GIVEN
    off_variant: Key = _NOT_GIVEN
    rules: Annotated[list[RuleBody], Field(max_length=MAX_RULES)] = _NOT_GIVEN
    default_serve: Serve = _NOT_GIVEN
    guard: GuardBody = _NOT_GIVEN
    comment: Text = ""


class KillBody(Document):
    reason: Reason
    source: Literal["operator", "deployment", "alert"] = "operator"


class RestoreBody(Document):
    kill: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    reason: Text = ""


class RollbackBody(Document):
    version: Version
    comment: Text = ""


class SegmentBody(Document):
    condition: Condition
    description: Text = ""


class SloBody(Document):
    availability: Annotated[float, Field(ge=0.5, lt=1)]


class TokenCreate(Document):
    scope: TokenScope
    name: Name
    environment: EnvironmentKey | None = None
    kind: Literal["server", "client"] = _NOT_GIVEN
