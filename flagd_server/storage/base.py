"""What the server needs of a storage. No SQL, no HTTP.

Rules that every storage keeps:

- A transaction is one: all of it is durable when `transaction()` ends without an exception, and
  none of it otherwise. Writers take turns; a transaction never sees another one half done.
- What is told to the world after a commit is told in the order of the commits, and on every server
  of the storage in the same one.
- At most one of them leads, and a transaction that required it commits only while it still does.
- A configuration version, once written, never changes; neither does an evidence report, a note on
  one, or an entry of the audit.
- Times are aware, UTC, and kept to the millisecond.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

from flagd_server.domain.audit_chain import Head, Link
from flagd_server.domain.configuration import JsonObject
from flagd_server.storage.deployments import DeploymentsReader, DeploymentsWriter
from flagd_server.storage.gates import GatesReader, GatesWriter
from flagd_server.storage.identity import IdentityReader, IdentityWriter
from flagd_server.storage.records import (
    AuditEntry,
    Brake,
    ConfigurationVersion,
    Environment,
    Evidence,
    EvidenceNote,
    Flag,
    GuardEvent,
    GuardLife,
    GuardState,
    Segment,
    Slo,
)
from flagd_server.storage.release_records import HealthyVersion
from flagd_server.storage.releases import ReleasesReader, ReleasesWriter
from flagd_server.storage.replicas import ReplicasReader, ReplicasWriter
from flagd_server.storage.telemetry import TelemetryReader, TelemetryWriter

# With a steady rate of errors every summary has units; this many are enough to try a policy on,
# and bound what a life takes on disk to some megabytes.
COVERED_EVENTS_KEPT = 20_000


OnNotice: TypeAlias = Callable[[str, JsonObject], None]
"""(topic, document)."""


class Reader(
    ReleasesReader,
    DeploymentsReader,
    GatesReader,
    TelemetryReader,
    ReplicasReader,
    IdentityReader,
    Protocol,
):
    """One consistent view. What is not there is None or empty, never an error."""

    def environments(self) -> list[Environment]: ...
    def environment(self, key: str) -> Environment | None: ...
    def flags(self, *, tag: str | None = None, archived: bool | None = None) -> list[Flag]:
        """Return flags by key; `archived` None means both kinds."""
        ...

    def flag(self, key: str) -> Flag | None: ...
    def configuration(self, environment: str, flag: str) -> ConfigurationVersion | None:
        """Return the newest version."""
        ...

    def configurations(self, environment: str) -> list[ConfigurationVersion]:
        """Return the newest version of every flag, archived ones too, by flag key."""
        ...

    def configurations_of(self, flag: str) -> list[ConfigurationVersion]:
        """Return the newest version in every environment, by environment key."""
        ...

    def configuration_version(
        self, environment: str, flag: str, version: int
    ) -> ConfigurationVersion | None: ...

    def history(
        self, environment: str, flag: str, limit: int, before: int | None = None
    ) -> list[ConfigurationVersion]:
        """Return versions below `before`, newest first."""
        ...

    def healthy_versions(self, environment: str, flag: str) -> list[HealthyVersion]:
        """Return the marks that stand, the newest version's first."""
        ...

    def split_weights(
        self, environment: str, flag: str, config_version: int
    ) -> dict[str, dict[str, int]] | None:
        """Return weights by split name, of any version; None where there is no such version."""
        ...

    def segments(self, environment: str) -> list[Segment]: ...
    def segment(self, environment: str, key: str) -> Segment | None: ...
    def slos(self, environment: str) -> list[Slo]:
        """Return the objectives of its services, by service."""
        ...

    def slo(self, environment: str, service: str) -> Slo | None: ...
    def audit(
        self,
        limit: int,
        before: int | None = None,
        *,
        flag: str | None = None,
        environment: str | None = None,
        action: str | None = None,
    ) -> list[AuditEntry]:
        """Return entries with an id below `before`, newest first."""
        ...

    def audit_head(self) -> Head:
        """Return id and hash of the newest entry; id 0 where there is none. Cheap."""
        ...

    def audit_chain(self) -> Iterator[Link]:
        """Yield every entry as it stands, with its hashes, by id, without holding them all."""
        ...

    def running_lives(self) -> list[GuardLife]: ...
    def guard_lives(self, environment: str, flag: str) -> list[GuardLife]:
        """Return the flag's lives, ended ones too, newest first."""
        ...

    def load_guard_state(self, life_id: int) -> GuardState | None: ...
    def guard_events_after(self, life_id: int, event_id: int) -> Iterator[GuardEvent]:
        """Yield the life's events in order, without holding them all."""
        ...

    def interventions_since(self, environment: str, actor: str, since: datetime) -> int:
        """Return how many kills and rollbacks the actor has made in the environment since then."""
        ...

    def brake(self, environment: str) -> Brake | None:
        """Return the brake that is engaged, None where none is."""
        ...

    def list_evidence(self, environment: str, flag: str) -> list[Evidence]:
        """Return reports, newest first."""
        ...

    def evidence(self, evidence_id: str) -> Evidence | None: ...
    def evidence_since(self, at: datetime) -> list[Evidence]:
        """Return the reports of every flag and environment from `at` on, in order of writing."""
        ...

    def evidence_notes(self, evidence_id: str) -> list[EvidenceNote]:
        """Return the notes on a report, in order of writing."""
        ...


class Transaction(
    Reader,
    ReleasesWriter,
    DeploymentsWriter,
    GatesWriter,
    TelemetryWriter,
    ReplicasWriter,
    IdentityWriter,
    Protocol,
):
    """Reads its own writes. Used by the thread that opened it, and only until it ends."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call it after the commit, in the order registered, before the next writer's turn.

        It is not called when the transaction fails. It must be quick and must not write: others
        wait. What it raises is logged; the transaction stands.
        """
        ...

    def announce(self, topic: str, document: JsonObject) -> None:
        """Tell every server on this storage, this one too, once the transaction is durable.

        A notice is small: it names what has changed, and who hears it reads that. They come in the
        order of the commits, and those of one transaction in the order they were announced.

        Raises:
            StorageError: it takes more than `notices.MAX_BYTES`.
        """
        ...

    def require_lead(self) -> int:
        """Return the term in which this server leads; it goes on to until the transaction ends.

        Raises:
            NotLeadingError: another does, or none.
        """
        ...

    def insert_environment(self, environment: Environment) -> None: ...
    def rename_environment(self, key: str, name: str) -> None: ...
    def set_sequence(self, environment: str, sequence: int) -> None: ...
    def delete_environment(self, key: str) -> None:
        """Delete it with everything that is kept by environment, except the audit."""
        ...

    def insert_flag(self, flag: Flag) -> None: ...
    def update_flag(self, flag: Flag) -> None: ...
    def write_configuration(self, version: ConfigurationVersion) -> None:
        """Keep the version for good and make it the newest."""
        ...

    def mark_healthy(self, mark: HealthyVersion) -> None:
        """Mark a version; a mark that it has already stays as it is."""
        ...

    def withdraw_healthy(self, environment: str, flag: str, version: int) -> None:
        """Take a version's mark away, if it has one."""
        ...

    def put_segment(self, segment: Segment) -> None: ...
    def delete_segment(self, environment: str, key: str) -> None: ...
    def put_slo(self, slo: Slo) -> None: ...
    def delete_slo(self, environment: str, service: str) -> None:
        """Delete it with what was counted for it."""
        ...

    def append_audit(self, entry: AuditEntry) -> None:
        """Add the entry after the newest, and chain it to that; it never changes again."""
        ...

    def insert_guard_life(self, environment: str, flag: str, document: str) -> int:
        """Start a life and return its id."""
        ...

    def end_guard_life(self, life_id: int, ended_at: datetime, outcome: str) -> None: ...
    def append_guard_event(self, life_id: int, at: float, document: str, *, has_units: bool) -> int:
        """Store the event as the life's newest and return its id."""
        ...

    def save_guard_state(self, life_id: int, event_id: int, document: str) -> None:
        """Replace the life's state by this one.

        Of the events up to `event_id`, which the state covers, the newest `COVERED_EVENTS_KEPT`
        with units stay, for a backtest; the others are deleted.
        """
        ...

    def engage_brake(self, brake: Brake) -> None:
        """Engage it; one that is engaged already stays as it is."""
        ...

    def release_brake(self, environment: str) -> None: ...

    def insert_evidence(
        self, evidence_id: str, environment: str, flag: str, at: datetime, document: str
    ) -> None: ...

    def insert_evidence_note(self, note: EvidenceNote) -> None:
        """Add a note to a report.

        Raises:
            StorageError: there is no such report, or it has a note of this kind and window.
        """
        ...


class PoolUse(NamedTuple):
    """How far a pool of connections is used: how many it has, of at most how many, how many of
    them are lent, and how many threads wait for one.
    """

    size: int
    limit: int
    lent: int
    waiting: int


class Ledger(Protocol):
    """The part of a storage that is read and written; every method may be called by any thread."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction; commits at the end of the block, rolls back on an exception.

        When it returns, what it announced has been heard by this server's own listener, unless
        that can't be reached just now.

        Raises:
            StorageError: the thread has one open already.
            StorageUnavailableError: it can't be begun or committed; nothing was changed.
        """
        ...

    def read(self) -> AbstractContextManager[Reader]:
        """Open a view of what is committed now. Writers don't wait for it, nor it for them."""
        ...


class Storage(Ledger, Protocol):
    """Opened once for the process; every method may be called by any thread."""

    def listen(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        """Hear what is announced from now on. Called once, before the first transaction.

        Args:
            on_notice: called with topic and document, one notice at a time. It must be quick and
                must not write; what it raises is logged.
            on_gap: some notices may have been missed: whatever was learnt from them is to be read
                again. Never during `on_notice`.
        """
        ...

    def lead(self, on_change: Callable[[bool], None]) -> None:
        """Stand for leadership from now on, until `close`. Called once.

        Args:
            on_change: called with True when this server begins to lead and with False when it no
                longer does, by one thread. What it does may take its time.
        """
        ...

    @property
    def is_leading(self) -> bool:
        """Whether this server leads, as far as it knows; `Transaction.require_lead` is certain."""
        ...

    @property
    def term(self) -> int | None:
        """The term in which it does: another number each time that a server begins to lead."""
        ...

    def token_generation(self) -> int:
        """Return a number that grows whenever a token changes, by whichever process. Cheap."""
        ...

    def pools(self) -> Mapping[str, PoolUse]:
        """Return the use of each pool of connections, by name; empty where there are none."""
        ...

    def check_writable(self, timeout_s: float) -> None:
        """Return if a transaction can be made durable now; it costs one.

        Raises:
            StorageUnavailableError: it could not, or no turn came within the time.
        """
        ...

    def close(self) -> None:
        """Close all connections; waits for the transaction under way."""
        ...
