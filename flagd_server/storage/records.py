"""The records of flags and of those who change them, people and the guard, in a storage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flagd_server.domain.configuration import Configuration, JsonObject
from flagd_server.domain.objectives import (
    DEFAULT_WINDOW_DAYS,
    LatencyObjective,
    PrometheusSource,
)


@dataclass(frozen=True, slots=True)
class Environment:
    """`unit_key` keys the hashes of units; `sequence` numbers the changes that SDKs see."""

    key: str
    name: str
    unit_key: bytes
    sequence: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Flag:
    """What is the same in every environment. `version` grows with every change of this record."""

    key: str
    type: str
    variants: Mapping[str, Any]
    description: str
    owner: str
    tags: tuple[str, ...]
    lifetime: str
    expires_at: datetime | None
    archived: bool
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ConfigurationVersion:
    """One version of a flag's configuration in one environment, with who made it and why.

    Attributes:
        variants: the flag's variants at that time.
        action: what made it: "create", "update", "kill", "restore", "rollback", "rollout",
            "variants".
        healthy_at: when it was marked as healthy; kept beside it, and never written with it.
    """

    environment: str
    flag: str
    version: int
    configuration: Configuration
    variants: Mapping[str, Any]
    at: datetime
    actor: str
    action: str
    comment: str
    healthy_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A named condition that the flags of one environment share."""

    environment: str
    key: str
    condition: JsonObject
    description: str
    version: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Slo:
    """What a service is held to in one environment.

    Attributes:
        service: as its applications report it.
        availability: the share of exposures that must not fail, above 0 and below 1.
        window_days: over how many days the objectives hold.
        source: who counts; None where this server does.
    """

    environment: str
    service: str
    availability: float
    version: int
    updated_at: datetime
    latency: LatencyObjective | None = None
    window_days: int = DEFAULT_WINDOW_DAYS
    source: PrometheusSource | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, to what.

    Attributes:
        id: grows with time; 0 before it is stored.
        target: what was changed, as a path: "flags/new-checkout", "tokens/tok-1a2b".
        before_version, after_version: of the thing changed, where it has versions.
        detail: what else is needed to understand or undo it.
    """

    at: datetime
    actor: str
    action: str
    target: str
    environment: str | None = None
    flag: str | None = None
    before_version: int | None = None
    after_version: int | None = None
    comment: str = ""
    detail: JsonObject = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret.

    Attributes:
        prefix: says what it opens, in its text.
        digest: SHA-256 of the secret; of the whole text where there is no selector.
        selector: by which the record is found; None with a token of an earlier server.
        last_used_at: when it was last presented, to the minute.
    """

    id: str
    name: str
    scope: str
    environment: str | None
    kind: str
    prefix: str
    digest: bytes
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None
    selector: str | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def is_alive(self, now: datetime) -> bool:
        """Tell whether it opens anything."""
        return self.revoked_at is None and not self.has_expired(now)


@dataclass(frozen=True, slots=True)
class GuardLife:
    """One life of the guard over one flag; the document is the guard's own."""

    id: int
    environment: str
    flag: str
    document: str
    ended_at: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class GuardEvent:
    """One event of a life, in the order of commit; `at` is seconds since the Unix epoch."""

    id: int
    at: float
    document: str


@dataclass(frozen=True, slots=True)
class GuardState:
    """The state of a life after the event `event_id`; 0 before the first."""

    event_id: int
    document: str


@dataclass(frozen=True, slots=True)
class Brake:
    """The guard of an environment kills nothing more until a person releases it."""

    environment: str
    engaged_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """An evidence report; the document is the guard's own."""

    id: str
    environment: str
    flag: str
    at: datetime
    document: str


@dataclass(frozen=True, slots=True)
class EvidenceNote:
    """What became known about a report after it was written; a report has one of each key.

    Attributes:
        kind: "told" (whom the kill reached) or "aftermath" (whether it helped).
        window_s: of an aftermath, how long after the kill was looked at; else 0.
    """

    evidence_id: str
    kind: str
    window_s: int
    at: datetime
    document: str
