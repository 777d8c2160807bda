"""Records to rows of the SQLite database, within the one open write transaction.

Rare writes go through sqlite-utils' tables, which find the transaction open and commit nothing by
themselves; what the guard writes for every telemetry summary is prepared SQL.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlite_utils import Database

from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.times import format_time
from flagd_server.storage import rows as convert
from flagd_server.storage.audit_chain import chained_row
from flagd_server.storage.base import COVERED_EVENTS_KEPT, OnNotice
from flagd_server.storage.notices import decode_notice, encode_notice
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
from flagd_server.storage.sqlite_deployments import DeploymentsWriter
from flagd_server.storage.sqlite_gates import GatesWriter
from flagd_server.storage.sqlite_identity import IdentityWriter
from flagd_server.storage.sqlite_reader import SqliteReader
from flagd_server.storage.sqlite_releases import ReleasesWriter
from flagd_server.storage.sqlite_replicas import ReplicasWriter
from flagd_server.storage.sqlite_telemetry import TelemetryWriter

# The server on a file is alone on it, and leads all the time.
ONLY_TERM = 1


class SqliteTransaction(
    SqliteReader,
    ReleasesWriter,
    DeploymentsWriter,
    GatesWriter,
    TelemetryWriter,
    ReplicasWriter,
    IdentityWriter,
):
    """Writes through the one connection that writes, while its owner holds the lock."""

    def __init__(self, db: Database, on_notice: OnNotice) -> None:
        super().__init__(db)
        self.callbacks: list[Callable[[], None]] = []
        self._on_notice = on_notice

    def after_commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def announce(self, topic: str, document: JsonObject) -> None:
        # Through the text, so that it is heard as servers of another storage would hear it.
        notice = decode_notice(encode_notice(topic, document))
        self.callbacks.append(lambda: self._on_notice(*notice))

    def require_lead(self) -> int:
        return ONLY_TERM

    def insert_environment(self, environment: Environment) -> None:
        self._table("environments").insert(convert.environment_row(environment))

    def rename_environment(self, key: str, name: str) -> None:
        self._table("environments").update(key, {"name": name})

    def set_sequence(self, environment: str, sequence: int) -> None:
        self._table("environments").update(environment, {"sequence": sequence})

    def delete_environment(self, key: str) -> None:
        self._table("environments").delete(key)

    def insert_flag(self, flag: Flag) -> None:
        self._table("flags").insert(convert.flag_row(flag))

    def update_flag(self, flag: Flag) -> None:
        self._table("flags").update(flag.key, convert.flag_row(flag))

    def write_configuration(self, version: ConfigurationVersion) -> None:
        row = convert.configuration_version_row(version)
        self._table("configuration_versions").insert(row)
        self._db.execute(
            "INSERT INTO configurations (environment, flag, version) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET version = excluded.version",
            (version.environment, version.flag, version.version),
        )

    def mark_healthy(self, mark: HealthyVersion) -> None:
        self._db.execute(
            "INSERT INTO healthy_versions (environment, flag, version, at, why)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (mark.environment, mark.flag, mark.version, format_time(mark.at), mark.why),
        )

    def withdraw_healthy(self, environment: str, flag: str, version: int) -> None:
        self._db.execute(
            "DELETE FROM healthy_versions WHERE environment = ? AND flag = ? AND version = ?",
            (environment, flag, version),
        )

    def put_segment(self, segment: Segment) -> None:
        self._table("segments").upsert(convert.segment_row(segment), pk=("environment", "key"))

    def delete_segment(self, environment: str, key: str) -> None:
        self._table("segments").delete((environment, key))

    def put_slo(self, slo: Slo) -> None:
        self._table("slos").upsert(convert.slo_row(slo), pk=("environment", "service"))

    def delete_slo(self, environment: str, service: str) -> None:
        self._table("slos").delete((environment, service))

    def append_audit(self, entry: AuditEntry) -> None:
        self._table("audit").insert(chained_row(self.audit_head(), entry))

    def insert_guard_life(self, environment: str, flag: str, document: str) -> int:
        return self._insert(
            "INSERT INTO guard_lives (environment, flag, document) VALUES (?, ?, ?)",
            (environment, flag, document),
        )

    def end_guard_life(self, life_id: int, ended_at: datetime, outcome: str) -> None:
        self._table("guard_lives").update(
            life_id, {"ended_at": format_time(ended_at), "outcome": outcome}
        )

    def append_guard_event(self, life_id: int, at: float, document: str, *, has_units: bool) -> int:
        return self._insert(
            "INSERT INTO guard_events (life_id, at, has_units, document) VALUES (?, ?, ?, ?)",
            (life_id, at, has_units, document),
        )

    def save_guard_state(self, life_id: int, event_id: int, document: str) -> None:
        self._db.execute(
            "INSERT INTO guard_states (life_id, event_id, document) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET event_id = excluded.event_id, document = excluded.document",
            (life_id, event_id, document),
        )
        self._db.execute(
            "DELETE FROM guard_events WHERE life_id = ? AND id <= ? AND NOT has_units",
            (life_id, event_id),
        )
        self._db.execute(
            "DELETE FROM guard_events WHERE life_id = ? AND id <= (SELECT id FROM guard_events"
            " WHERE life_id = ? AND id <= ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (life_id, life_id, event_id, COVERED_EVENTS_KEPT),
        )

    def engage_brake(self, brake: Brake) -> None:
        self._db.execute(
            "INSERT INTO brakes (environment, engaged_at, reason) VALUES (?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (brake.environment, format_time(brake.engaged_at), brake.reason),
        )

    def release_brake(self, environment: str) -> None:
        self._db.execute("DELETE FROM brakes WHERE environment = ?", (environment,))

    def insert_evidence(
        self, evidence_id: str, environment: str, flag: str, at: datetime, document: str
    ) -> None:
        self._db.execute(
            "INSERT INTO evidence (id, environment, flag, at, document) VALUES (?, ?, ?, ?, ?)",
            (evidence_id, environment, flag, format_time(at), document),
        )

    def insert_evidence_note(self, note: EvidenceNote) -> None:
        self._db.execute(
            "INSERT INTO evidence_notes (evidence_id, kind, window_s, at, document)"
            " VALUES (?, ?, ?, ?, ?)",
            (note.evidence_id, note.kind, note.window_s, format_time(note.at), note.document),
        )

    def _insert(self, sql: str, parameters: tuple[Any, ...]) -> int:
        row_id = self._db.execute(sql, parameters).lastrowid
        assert row_id is not None
        return row_id
