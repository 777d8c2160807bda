"""Rows of the SQLite database to records, within one view of it."""

from collections.abc import Iterator
from datetime import datetime

from flagd_server.domain.audit_chain import Head, Link
from flagd_server.domain.times import format_time
from flagd_server.storage import rows as convert
from flagd_server.storage.audit_chain import NO_ENTRY, link_of
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
from flagd_server.storage.rows import NO_BOUND, first
from flagd_server.storage.sqlite_deployments import DeploymentsReader
from flagd_server.storage.sqlite_gates import GatesReader
from flagd_server.storage.sqlite_identity import IdentityReader
from flagd_server.storage.sqlite_releases import ReleasesReader
from flagd_server.storage.sqlite_replicas import ReplicasReader
from flagd_server.storage.sqlite_telemetry import TelemetryReader

_NEWEST_VERSION = (
    "SELECT v.*, h.at AS healthy_at FROM configurations AS c JOIN configuration_versions AS v"
    " ON v.environment = c.environment AND v.flag = c.flag AND v.version = c.version"
    " LEFT JOIN healthy_versions AS h"
    " ON h.environment = v.environment AND h.flag = v.flag AND h.version = v.version"
)
_ANY_VERSION = (
    "SELECT v.*, h.at AS healthy_at FROM configuration_versions AS v"
    " LEFT JOIN healthy_versions AS h"
    " ON h.environment = v.environment AND h.flag = v.flag AND h.version = v.version"
)


class SqliteReader(
    ReleasesReader, DeploymentsReader, GatesReader, TelemetryReader, ReplicasReader, IdentityReader
):
    """Reads through a connection that the owner has put inside a transaction."""

    def environments(self) -> list[Environment]:
        return [
            convert.environment(row)
            for row in self._rows("SELECT * FROM environments ORDER BY key")
        ]

    def environment(self, key: str) -> Environment | None:
        return first(
            convert.environment, self._rows("SELECT * FROM environments WHERE key = ?", [key])
        )

    def flags(self, *, tag: str | None = None, archived: bool | None = None) -> list[Flag]:
        rows = self._rows(
            "SELECT * FROM flags WHERE (:archived IS NULL OR archived = :archived)"
            " AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag))"
            " ORDER BY key",
            {"archived": archived, "tag": tag},
        )
        return [convert.flag(row) for row in rows]

    def flag(self, key: str) -> Flag | None:
        return first(convert.flag, self._rows("SELECT * FROM flags WHERE key = ?", [key]))

    def configuration(self, environment: str, flag: str) -> ConfigurationVersion | None:
        rows = self._rows(
            f"{_NEWEST_VERSION} WHERE c.environment = ? AND c.flag = ?", [environment, flag]
        )
        return first(convert.configuration_version, rows)

    def configurations(self, environment: str) -> list[ConfigurationVersion]:
        rows = self._rows(
            f"{_NEWEST_VERSION} WHERE c.environment = ? ORDER BY c.flag", [environment]
        )
        return [convert.configuration_version(row) for row in rows]

    def configurations_of(self, flag: str) -> list[ConfigurationVersion]:
        rows = self._rows(f"{_NEWEST_VERSION} WHERE c.flag = ? ORDER BY c.environment", [flag])
        return [convert.configuration_version(row) for row in rows]

    def configuration_version(
        self, environment: str, flag: str, version: int
    ) -> ConfigurationVersion | None:
        rows = self._rows(
            f"{_ANY_VERSION} WHERE v.environment = ? AND v.flag = ? AND v.version = ?",
            [environment, flag, version],
        )
        return first(convert.configuration_version, rows)

    def history(
        self, environment: str, flag: str, limit: int, before: int | None = None
    ) -> list[ConfigurationVersion]:
        rows = self._rows(
            f"{_ANY_VERSION} WHERE v.environment = ? AND v.flag = ? AND v.version < ?"
            " ORDER BY v.version DESC LIMIT ?",
            [environment, flag, NO_BOUND if before is None else before, limit],
        )
        return [convert.configuration_version(row) for row in rows]

    def healthy_versions(self, environment: str, flag: str) -> list[HealthyVersion]:
        rows = self._rows(
            "SELECT * FROM healthy_versions WHERE environment = ? AND flag = ?"
            " ORDER BY version DESC",
            [environment, flag],
        )
        return [convert.healthy_version(row) for row in rows]

    def split_weights(
        self, environment: str, flag: str, config_version: int
    ) -> dict[str, dict[str, int]] | None:
        version = self.configuration_version(environment, flag, config_version)
        return None if version is None else version.configuration.split_weights()

    def segments(self, environment: str) -> list[Segment]:
        rows = self._rows(
            "SELECT * FROM segments WHERE environment = ? ORDER BY key", [environment]
        )
        return [convert.segment(row) for row in rows]

    def segment(self, environment: str, key: str) -> Segment | None:
        rows = self._rows(
            "SELECT * FROM segments WHERE environment = ? AND key = ?", [environment, key]
        )
        return first(convert.segment, rows)

    def slos(self, environment: str) -> list[Slo]:
        rows = self._rows(
            "SELECT * FROM slos WHERE environment = ? ORDER BY service", [environment]
        )
        return [convert.slo(row) for row in rows]

    def slo(self, environment: str, service: str) -> Slo | None:
        rows = self._rows(
            "SELECT * FROM slos WHERE environment = ? AND service = ?", [environment, service]
        )
        return first(convert.slo, rows)

    def audit(
        self,
        limit: int,
        before: int | None = None,
        *,
        flag: str | None = None,
        environment: str | None = None,
        action: str | None = None,
    ) -> list[AuditEntry]:
        where = ["id < :before"]
        # Added only where asked for, so that the planner can use the index that fits.
        if flag is not None:
            where.append("flag = :flag")
        if environment is not None:
            where.append("environment = :environment")
        if action is not None:
            where.append("action = :action")
        rows = self._db.table("audit").rows_where(
            " AND ".join(where),
            {
                "before": NO_BOUND if before is None else before,
                "flag": flag,
                "environment": environment,
                "action": action,
            },
            order_by="id DESC",
            limit=limit,
        )
        return [convert.audit_entry(row) for row in rows]

    def audit_head(self) -> Head:
        row = self._db.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
        return NO_ENTRY if row is None else Head(*row)

    def audit_chain(self) -> Iterator[Link]:
        return map(link_of, self._db.query("SELECT * FROM audit ORDER BY id"))

    def running_lives(self) -> list[GuardLife]:
        rows = self._rows("SELECT * FROM guard_lives WHERE ended_at IS NULL ORDER BY id")
        return [convert.guard_life(row) for row in rows]

    def guard_lives(self, environment: str, flag: str) -> list[GuardLife]:
        rows = self._rows(
            "SELECT * FROM guard_lives WHERE environment = ? AND flag = ? ORDER BY id DESC",
            [environment, flag],
        )
        return [convert.guard_life(row) for row in rows]

    def load_guard_state(self, life_id: int) -> GuardState | None:
        rows = self._rows(
            "SELECT event_id, document FROM guard_states WHERE life_id = ?", [life_id]
        )
        return first(lambda row: GuardState(**row), rows)

    def guard_events_after(self, life_id: int, event_id: int) -> Iterator[GuardEvent]:
        cursor = self._db.execute(
            "SELECT id, at, document FROM guard_events WHERE life_id = ? AND id > ? ORDER BY id",
            (life_id, event_id),
        )
        return (GuardEvent(*row) for row in cursor)

    def interventions_since(self, environment: str, actor: str, since: datetime) -> int:
        rows = self._rows(
            "SELECT COUNT(*) AS found FROM configuration_versions"
            " WHERE environment = ? AND actor = ? AND action IN ('kill', 'rollback') AND at >= ?",
            [environment, actor, format_time(since)],
        )
        return int(rows[0]["found"])

    def brake(self, environment: str) -> Brake | None:
        return first(
            convert.brake, self._rows("SELECT * FROM brakes WHERE environment = ?", [environment])
        )

    def list_evidence(self, environment: str, flag: str) -> list[Evidence]:
        rows = self._rows(
            "SELECT * FROM evidence WHERE environment = ? AND flag = ? ORDER BY rowid DESC",
            [environment, flag],
        )
        return [convert.evidence(row) for row in rows]

    def evidence(self, evidence_id: str) -> Evidence | None:
        return first(
            convert.evidence, self._rows("SELECT * FROM evidence WHERE id = ?", [evidence_id])
        )

    def evidence_since(self, at: datetime) -> list[Evidence]:
        rows = self._rows("SELECT * FROM evidence WHERE at >= ? ORDER BY rowid", [format_time(at)])
        return [convert.evidence(row) for row in rows]

    def evidence_notes(self, evidence_id: str) -> list[EvidenceNote]:
        rows = self._rows(
            "SELECT * FROM evidence_notes WHERE evidence_id = ? ORDER BY rowid", [evidence_id]
        )
        return [convert.evidence_note(row) for row in rows]
