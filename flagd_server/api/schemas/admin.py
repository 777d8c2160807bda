"""The bodies of the admin API, one model each."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

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
from flagd_server.domain.notifications import KINDS
from flagd_server.domain.targets import MAX_URL_CHARS
from flagd_server.domain.validation import MAX_RULES, MAX_VARIANTS

Variants = Annotated[dict[Key, JsonValue], Field(min_length=1, max_length=MAX_VARIANTS)]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
Tags = Annotated[list[Tag], Field(max_length=32)]
Lifetime = Literal["temporary", "permanent"]
FlagType = Literal["boolean", "string", "integer", "float", "object"]
TokenScope = Literal["admin", "read", "kill", "deploy", "sdk", "ofrep"]

_MAX_TOKEN_LIFE_S = 10 * 365 * 86_400

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
    on_breach: Literal["kill", "hold", "rollback"] = _NOT_GIVEN
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


class LiftBody(Document):
    """Names what it lifts, as restore does: what went off meanwhile stays off."""

    kills: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=1_000),
    ]
    reason: Text = ""


class RollbackBody(Document):
    version: Version
    comment: Text = ""


class SegmentBody(Document):
    condition: Condition
    description: Text = ""


class WebhookBody(Document):
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_CHARS)]
    format: Literal["json", "slack"] = "json"
    events: Annotated[list[Key], Field(max_length=len(KINDS))] = Field(default_factory=list)
    enabled: bool = True
    new_secret: bool = False


class TokenCreate(Document):
    scope: TokenScope
    name: Name
    environment: EnvironmentKey | None = None
    kind: Literal["server", "client"] = _NOT_GIVEN
    expires_at: Timestamp | None = None
    expires_in_s: Annotated[int, Field(ge=1, le=_MAX_TOKEN_LIFE_S)] | None = None

    @model_validator(mode="after")
    def _ends_once(self) -> "TokenCreate":
        if self.expires_at is not None and self.expires_in_s is not None:
            raise PydanticCustomError(
                "ends_once", "should have expires_at or expires_in_s, not both"
            )
        return self
