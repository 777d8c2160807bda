"""Records of what processes report: that they live, what they count, and what they hold off."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """Sums of a service over one minute, of what the guard hears. Rows of the same key add up.

    Attributes:
        minute: whole minutes since the Unix epoch.
        requests: how many there were at the least; a request is an exposure of every flag it meets.
        measured, slow: of the exposures whose duration is known, those that took too long.
    """

    environment: str
    service: str
    minute: int
    exposures: int
    errors: int
    requests: int
    measured: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class ServiceSums:
    """The counts of a service over many minutes; fields as in `ServiceCounts`."""

    exposures: int
    errors: int
    requests: int
    measured: int
    slow: int


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
class LocalKillRow:
    """A flag that one process holds off by its own evidence.

    Attributes:
        id: of the kill; processes that share a disk share it, and have a row each.
        document: as the process told it.
        ended_at: when the process named it no longer; None while it does.
    """

    environment: str
    id: str
    instance: str
    flag: str
    service: str
    service_version: str
    document: str
    told_at: datetime
    ended_at: datetime | None = None
    lifted_at: datetime | None = None
    lifted_by: str | None = None
