"""Records to rows of the Postgres database, within the one open write transaction."""

from collections.abc import Callable, Iterator
from datetime import datetime

from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.times import format_time
from flagd_server.errors import NotLeadingError
from flagd_server.storage import rows as convert
from flagd_server.storage.audit_chain import chained_row
from flagd_server.storage.base import COVERED_EVENTS_KEPT
from flagd_server.storage.postgres_connections import Connection
from flagd_server.storage.postgres_deployments import DeploymentsWriter
from flagd_server.storage.postgres_gates import GatesWriter
from flagd_server.storage.postgres_identity import IdentityWriter
from flagd_server.storage.postgres_notices import CHANNEL, PostgresNotices
from flagd_server.storage.postgres_reader import PostgresReader
from flagd_server.storage.postgres_releases import ReleasesWriter
from flagd_server.storage.postgres_replicas import ReplicasWriter
from flagd_server.storage.postgres_telemetry import TelemetryWriter
from flagd_server.storage.records import (
    AuditEntry,
    Brake,
    ConfigurationVersion,
    Environment,
    EvidenceNote,
    Flag,
    Segment,
    Slo,
)
from flagd_server.storage.release_records import HealthyVersion

_FIRST_IDS = 32  # one exchange for most batches of telemetry
_MAX_IDS = 1_000
_NEXT_EVENT_IDS = (
    "SELECT nextval(pg_get_serial_sequence('guard_events', 'id')) AS id FROM generate_series(1, %s)"
)
_ADD_GUARD_EVENTS = """
    INSERT INTO guard_events (id, life_id, at, has_units, document)
    SELECT id, life_id, at, has_units, document
    FROM json_populate_recordset(NULL::guard_events, %s)
"""


class PostgresTransaction(
    PostgresReader,
    ReleasesWriter,
    DeploymentsWriter,
    GatesWriter,
    TelemetryWriter,
    ReplicasWriter,
    IdentityWriter,
):
    """Writes through a connection whose transaction has the turn among all servers."""

    def __init__(
        self, connection: Connection, notices: PostgresNotices, term: int | None = None
    ) -> None:
        """Args:
        term: in which this server leads, as far as it knows; None where it does not.
        """
        super().__init__(connection)
        self.callbacks: list[Callable[[], None]] = []
        self.last_notice: int | None = None
        """The mark of the newest one that was announced."""
        self._notices = notices
        self._term = term
        self._event_ids = self._next_event_ids()

    def after_commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def announce(self, topic: str, document: JsonObject) -> None:
        self.last_notice, payload = self._notices.compose(topic, document)
        self._run("SELECT pg_notify(%s, %s)", [CHANNEL, payload])

    def require_lead(self) -> int:
        # A new leader begins its term in a turn, so that none can before this one has ended.
        (row,) = self._rows("SELECT term, holder FROM leadership")
        if row["term"] != self._term:
            raise NotLeadingError(f"{row['holder'] or 'no server'} leads, in term {row['term']}")
        return int(row["term"])

    def insert_environment(self, environment: Environment) -> None:
        self._insert("environments", convert.environment_row(environment))

    def rename_environment(self, key: str, name: str) -> None:
        self._update("environments", {"key": key}, {"name": name})

    def set_sequence(self, environment: str, sequence: int) -> None:
        self._update("environments", {"key": environment}, {"sequence": sequence})

    def delete_environment(self, key: str) -> None:
        self._delete("environments", key=key)

    def insert_flag(self, flag: Flag) -> None:
        self._insert("flags", convert.flag_row(flag))

    def update_flag(self, flag: Flag) -> None:
        self._update("flags", {"key": flag.key}, convert.flag_row(flag))

    def write_configuration(self, version: ConfigurationVersion) -> None:
        self._insert("configuration_versions", convert.configuration_version_row(version))
        self._upsert(
            "configurations",
            {
                "environment": version.environment,
                "flag": version.flag,
                "version": version.version,
            },
            ("environment", "flag"),
        )

    def mark_healthy(self, mark: HealthyVersion) -> None:
        self._run(
            "INSERT INTO healthy_versions (environment, flag, version, at, why)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [mark.environment, mark.flag, mark.version, format_time(mark.at), mark.why],
        )

    def withdraw_healthy(self, environment: str, flag: str, version: int) -> None:
        self._delete("healthy_versions", environment=environment, flag=flag, version=version)

    def put_segment(self, segment: Segment) -> None:
        self._upsert("segments", convert.segment_row(segment), ("environment", "key"))

    def delete_segment(self, environment: str, key: str) -> None:
        self._delete("segments", environment=environment, key=key)

    def put_slo(self, slo: Slo) -> None:
        self._upsert("slos", convert.slo_row(slo), ("environment", "service"))

    def delete_slo(self, environment: str, service: str) -> None:
        self._delete("slos", environment=environment, service=service)

    def append_audit(self, entry: AuditEntry) -> None:
        self._insert("audit", chained_row(self.audit_head(), entry))

    def insert_guard_life(self, environment: str, flag: str, document: str) -> int:
        (row,) = self._rows(
            "INSERT INTO guard_lives (environment, flag, document) VALUES (%s, %s, %s)"
            " RETURNING id",
            [environment, flag, document],
        )
        return int(row["id"])

    def end_guard_life(self, life_id: int, ended_at: datetime, outcome: str) -> None:
        changes = {"ended_at": format_time(ended_at), "outcome": outcome}
        self._update("guard_lives", {"id": life_id}, changes)

    def append_guard_event(self, life_id: int, at: float, document: str, *, has_units: bool) -> int:
        event_id = next(self._event_ids)
        row = {
            "id": event_id,
            "life_id": life_id,
            "at": at,
            "has_units": has_units,
            "document": document,
        }
        self._add_later(_ADD_GUARD_EVENTS, event_id, row)
        return event_id

    def save_guard_state(self, life_id: int, event_id: int, document: str) -> None:
        self._upsert(
            "guard_states",
            {"life_id": life_id, "event_id": event_id, "document": document},
            ("life_id",),
        )
        self._run(
            "DELETE FROM guard_events WHERE life_id = %s AND id <= %s AND NOT has_units",
            [life_id, event_id],
        )
        self._run(
            "DELETE FROM guard_events WHERE life_id = %s AND id <= (SELECT id FROM guard_events"
            " WHERE life_id = %s AND id <= %s ORDER BY id DESC LIMIT 1 OFFSET %s)",
            [life_id, life_id, event_id, COVERED_EVENTS_KEPT],
        )

    def engage_brake(self, brake: Brake) -> None:
        self._run(
            "INSERT INTO brakes (environment, engaged_at, reason) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            [brake.environment, format_time(brake.engaged_at), brake.reason],
        )

    def release_brake(self, environment: str) -> None:
        self._delete("brakes", environment=environment)

    def insert_evidence(
        self, evidence_id: str, environment: str, flag: str, at: datetime, document: str
    ) -> None:
        self._run(
            "INSERT INTO evidence (id, environment, flag, at, document)"
            " VALUES (%s, %s, %s, %s, %s)",
            [evidence_id, environment, flag, format_time(at), document],
        )

    def insert_evidence_note(self, note: EvidenceNote) -> None:
        self._run(
            "INSERT INTO evidence_notes (evidence_id, kind, window_s, at, document)"
            " VALUES (%s, %s, %s, %s, %s)",
            [note.evidence_id, note.kind, note.window_s, format_time(note.at), note.document],
        )

    def _next_event_ids(self) -> Iterator[int]:
        """Yield ids in order, fetched twice as many each time; those left over are never given."""
        number = _FIRST_IDS
        while True:
            # Not by `_run`: what is held may stay so.
            yield from (row["id"] for row in self._connection.execute(_NEXT_EVENT_IDS, [number]))
            number = min(2 * number, _MAX_IDS)
