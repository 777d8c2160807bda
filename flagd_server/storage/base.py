"""What the server needs of a storage. No SQL, no HTTP.

Rules that every storage keeps:

- A transaction is one: all of it is durable when `transaction()` ends without an exception, and
  none of it otherwise. Writers take turns; a transaction never sees another one half done.
- What is told to the world after a commit is told in the order of the commits.
- A configuration version, once written, never changes; neither does an evidence report, nor a
  note on one.
- Times are aware, UTC, and kept to the millisecond.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from flagd_server.storage.records import (
    AuditEntry,
    Brake,
    ConfigurationVersion,
    CountRow,
    Environment,
    ErrorKindRow,
    Evidence,
    EvidenceNote,
    Flag,
    GuardEvent,
    GuardLife,
    GuardState,
    Instance,
    LatencyRow,
    Segment,
    Slo,
    Token,
)

# With a steady rate of errors every summary has units; this many are enough to try a policy on,
# and bound what a life takes on disk to some megabytes.
COVERED_EVENTS_KEPT = 20_000


class Reader(Protocol):
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

    def tokens(self) -> list[Token]:
        """Return every token, revoked ones too, oldest first."""
        ...

    def token(self, token_id: str) -> Token | None: ...
    def last_sequence(self, environment: str, instance: str) -> int | None:
        """Return the number of the last summary counted for the instance."""
        ...

    def instances(self, environment: str) -> list[Instance]: ...
    def counts(self, environment: str, flag: str, since_minute: int) -> list[CountRow]: ...
    def control_latencies(self, environment: str, since_minute: int) -> Iterator[LatencyRow]:
        """Yield the rows by minute, without holding them all."""
        ...

    def error_kinds(self, environment: str, flag: str) -> list[ErrorKindRow]:
        """Return the kinds, most frequent first."""
        ...

    def running_lives(self) -> list[GuardLife]: ...
    def guard_lives(self, environment: str, flag: str) -> list[GuardLife]:
        """Return the flag's lives, ended ones too, newest first."""
        ...

    def load_guard_state(self, life_id: int) -> GuardState | None: ...
    def guard_events_after(self, life_id: int, event_id: int) -> Iterator[GuardEvent]:
        """Yield the life's events in order, without holding them all."""
        ...

    def kills_since(self, environment: str, actor: str, since: datetime) -> int:
        """Return how many kills the actor has made in the environment since then."""
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


class Transaction(Reader, Protocol):
    """Reads its own writes. Used by the thread that opened it, and only until it ends."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call it after the commit, in the order registered, before the next writer's turn.

        It is not called when the transaction fails. It must be quick and must not write: others
        wait. What it raises is logged; the transaction stands.
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

    def put_segment(self, segment: Segment) -> None: ...
    def delete_segment(self, environment: str, key: str) -> None: ...
    def put_slo(self, slo: Slo) -> None: ...
    def delete_slo(self, environment: str, service: str) -> None: ...
    def append_audit(self, entry: AuditEntry) -> None: ...
    def insert_token(self, token: Token) -> None: ...
    def revoke_token(self, token_id: str, revoked_at: datetime) -> None: ...

    def upsert_instance(
        self,
        environment: str,
        instance: str,
        sequence: int,
        service: str,
        service_version: str,
        applied_sequence: int,
        seen_at: datetime,
    ) -> None: ...

    def add_counts(self, rows: Iterable[CountRow]) -> None:
        """Add the rows to what is there. Cheapest with all rows of a batch at once."""
        ...

    def add_control_latencies(self, rows: Iterable[LatencyRow]) -> None:
        """Add the rows to what is there."""
        ...

    def prune_control_latencies(self, before_minute: int) -> None: ...

    def add_error_kinds(self, rows: Iterable[ErrorKindRow]) -> None:
        """Add the rows to what is there; a flag keeps the 500 kinds it saw last."""
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

    def prune_telemetry(self, before: datetime) -> None:
        """Delete counts, error kinds, instances and the events of ended lives older than that."""
        ...


class Storage(Protocol):
    """Opened once for the process; every method may be called by any thread."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction; commits at the end of the block, rolls back on an exception.

        Raises:
            StorageError: the thread has one open already.
            StorageUnavailableError: it can't be begun or committed; nothing was changed.
        """
        ...

    def read(self) -> AbstractContextManager[Reader]:
        """Open a view of what is committed now. Writers don't wait for it, nor it for them."""
        ...

    def token_generation(self) -> int:
        """Return a number that grows whenever a token changes, by whichever process. Cheap."""
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
