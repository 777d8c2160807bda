"""Records of releasing: what is deployed, rolled out and let through, and who is told of it."""

from dataclasses import dataclass, field
from datetime import datetime

from flagd_server.domain.gates import Approval, GateDefinition


@dataclass(frozen=True, slots=True)
class HealthyVersion:
    """A configuration version that served its share for long enough, with a guard that saw it and
    had nothing against it. `why` is one sentence.
    """

    environment: str
    flag: str
    version: int
    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Gate:
    """What has to hold before a release goes on; the approval is the last one given, if any."""

    environment: str
    key: str
    definition: GateDefinition
    version: int
    updated_at: datetime
    approval: Approval | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version of a service in one environment: registered by tooling, seen at work, or both.

    Attributes:
        image: `name@sha256:…`; None while it is known from telemetry only, as are `commit` (the
            hexadecimal name of the source) and `url` (where a person reads on).
        registered_by: the name of a token; with `registered_at` None while nobody has.
        first_seen_at: when a process of it first reported; None before that.
        number: grows with every deployment; 0 before it is stored.
    """

    id: str
    environment: str
    service: str
    version: str
    image: str | None = None
    commit: str | None = None
    url: str | None = None
    registered_at: datetime | None = None
    registered_by: str | None = None
    first_seen_at: datetime | None = None
    number: int = 0

    @property
    def source(self) -> str:
        return "telemetry" if self.registered_at is None else "registered"


@dataclass(frozen=True, slots=True)
class FirstServed:
    """The version of a service that served a flag first, in one environment.

    Of the versions that have served it this is the one that was itself seen first.

    Attributes:
        version_seen_at: when that was.
        served_at: when any version of the service first served the flag.
    """

    environment: str
    service: str
    flag: str
    version: str
    version_seen_at: datetime
    served_at: datetime


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A staged rollout. `document` is JSON; `is_open` while it may still move."""

    id: str
    environment: str
    flag: str
    is_open: bool
    version: int
    document: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where an environment's happenings are told.

    Attributes:
        events: the kinds that are told; empty for all.
        secret: its messages are signed with it.
    """

    environment: str
    key: str
    url: str
    format: str
    events: tuple[str, ...]
    enabled: bool
    secret: str = field(repr=False)
    version: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PendingDeliveries:
    """How many messages wait for a webhook that is enabled.

    Attributes:
        attempts: begun for the oldest of them; it is the one that holds up the others.
    """

    environment: str
    webhook: str
    waiting: int
    attempts: int


@dataclass(frozen=True, slots=True)
class HookSecret:
    """What tools sign their calls with, in one environment."""

    environment: str
    secret: str = field(repr=False)
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to a webhook.

    Attributes:
        state: "pending", "delivered" or "failed".
        attempts: begun so far.
        next_at: of the next attempt while it is pending; of the last one afterwards.
        outcome: what became of the last attempt, for a person; "" before the first.
    """

    environment: str
    webhook: str
    message_id: str
    kind: str
    body: bytes
    created_at: datetime
    next_at: datetime
    state: str = "pending"
    attempts: int = 0
    outcome: str = ""
    id: int = 0
