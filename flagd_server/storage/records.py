"""The records that go into a storage and come out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flagd_server.domain.configuration import Configuration, JsonObject


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
        action: what made it: "create", "update", "kill", "restore", "rollback", "variants".
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
    """

    environment: str
    service: str
    availability: float
    version: int
    updated_at: datetime


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
        prefix: its public part, which tells people which one it is.
        digest: SHA-256 of the whole text.
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


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that sends telemetry, as it was when it last did."""

    environment: str
    instance: str
    sequence: int
    service: str
    service_version: str
    applied_sequence: int
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class CountRow:
    """Sums of one cell over one minute. Rows of the same key are added up.

    Attributes:
        minute: whole minutes since the Unix epoch.
        latency: bucket index → count, as in `flagd_sdk.core.latency`.
    """

    environment: str
    flag: str
    split: str | None
    variant: str
    config_version: int
    service: str
    service_version: str
    minute: int
    exposures: int
    errors: int
    latency: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """How long the exposures of a service's controls took in one minute; rows add up.

    Attributes:
        minute: whole minutes since the Unix epoch.
        latency: bucket index → count, as in `flagd_sdk.core.latency`.
    """

    environment: str
    service: str
    minute: int
    latency: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ErrorKindRow:
    """How often one kind of error was seen at one place in one variant, with a sample of it."""

    environment: str
    flag: str
    variant: str
    kind: str
    where: str
    count: int
    sample: str


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
