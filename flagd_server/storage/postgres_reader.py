"""Rows of the Postgres database to records, within one view of it."""

from collections.abc import Iterator
from datetime import datetime

from flagd_server.domain.audit_chain import Head, Link
from flagd_server.domain.times import format_time
from flagd_server.storage import rows as convert
from flagd_server.storage.audit_chain import COVERED, NO_ENTRY, link_of
from flagd_server.storage.postgres_deployments import DeploymentsReader
from flagd_server.storage.postgres_gates import GatesReader
from flagd_server.storage.postgres_identity import IdentityReader
from flagd_server.storage.postgres_releases import ReleasesReader
from flagd_server.storage.postgres_replicas import ReplicasReader
from flagd_server.storage.postgres_rows import select
from flagd_server.storage.postgres_telemetry import TelemetryReader
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

_VERSION = (
    "SELECT v.environment, v.flag, v.version, v.configuration, v.variants, v.at, v.actor, v.action,"
    " v.comment, h.at AS healthy_at"
)
_MARK = (
    " LEFT JOIN healthy_versions AS h"
    " ON h.environment = v.environment AND h.flag = v.flag AND h.version = v.version"
)
_NEWEST_VERSION = (
    f"{_VERSION} FROM configurations AS c JOIN configuration_versions AS v"
    f" ON v.environment = c.environment AND v.flag = c.flag AND v.version = c.version{_MARK}"
)
_ANY_VERSION = f"{_VERSION} FROM configuration_versions AS v{_MARK}"
_ENVIRONMENTS = select(Environment, "environments")
_FLAGS = select(Flag, "flags")
_HEALTHY_VERSIONS = select(HealthyVersion, "healthy_versions")
_SEGMENTS = select(Segment, "segments")
_SLOS = select(Slo, "slos")
_AUDIT = select(AuditEntry, "audit")
_CHAIN = f"SELECT {', '.join(COVERED)}, previous_hash, hash FROM audit"  # noqa: S608 - ours
_GUARD_LIVES = select(GuardLife, "guard_lives")
_GUARD_STATES = select(GuardState, "guard_states")
_GUARD_EVENTS = select(GuardEvent, "guard_events")
_BRAKES = select(Brake, "brakes")
_EVIDENCE = select(Evidence, "evidence")
_EVIDENCE_NOTES = select(EvidenceNote, "evidence_notes")

_PAGE = 1_000
"""Events, or entries of the audit, read at a time."""


class PostgresReader(
    ReleasesReader, DeploymentsReader, GatesReader, TelemetryReader, ReplicasReader, IdentityReader
):
    """Reads through a connection that the owner has put inside a transaction."""

    def environments(self) -> list[Environment]:
        return [convert.environment(row) for row in self._rows(f"{_ENVIRONMENTS} ORDER BY key")]

    def environment(self, key: str) -> Environment | None:
        return first(convert.environment, self._rows(f"{_ENVIRONMENTS} WHERE key = %s", [key]))

    def flags(self, *, tag: str | None = None, archived: bool | None = None) -> list[Flag]:
        rows = self._rows(
            f"{_FLAGS} WHERE archived = COALESCE(%(archived)s, archived)"
            " AND (%(tag)s::text IS NULL OR tags::jsonb ? %(tag)s::text) ORDER BY key",
            {"archived": archived, "tag": tag},
        )
        return [convert.flag(row) for row in rows]

    def flag(self, key: str) -> Flag | None:
        return first(convert.flag, self._rows(f"{_FLAGS} WHERE key = %s", [key]))

    def configuration(self, environment: str, flag: str) -> ConfigurationVersion | None:
        rows = self._rows(
            f"{_NEWEST_VERSION} WHERE c.environment = %s AND c.flag = %s", [environment, flag]
        )
        return first(convert.configuration_version, rows)

    def configurations(self, environment: str) -> list[ConfigurationVersion]:
        rows = self._rows(
            f"{_NEWEST_VERSION} WHERE c.environment = %s ORDER BY c.flag", [environment]
        )
        return [convert.configuration_version(row) for row in rows]

    def configurations_of(self, flag: str) -> list[ConfigurationVersion]:
        rows = self._rows(f"{_NEWEST_VERSION} WHERE c.flag = %s ORDER BY c.environment", [flag])
        return [convert.configuration_version(row) for row in rows]

    def configuration_version(
        self, environment: str, flag: str, version: int
    ) -> ConfigurationVersion | None:
        rows = self._rows(
            f"{_ANY_VERSION} WHERE v.environment = %s AND v.flag = %s AND v.version = %s",
            [environment, flag, version],
        )
        return first(convert.configuration_version, rows)

    def history(
        self, environment: str, flag: str, limit: int, before: int | None = None
    ) -> list[ConfigurationVersion]:
        rows = self._rows(
            f"{_ANY_VERSION} WHERE v.environment = %s AND v.flag = %s AND v.version < %s"
            " ORDER BY v.version DESC LIMIT %s",
            [environment, flag, NO_BOUND if before is None else before, limit],
        )
        return [convert.configuration_version(row) for row in rows]

    def healthy_versions(self, environment: str, flag: str) -> list[HealthyVersion]:
        rows = self._rows(
            f"{_HEALTHY_VERSIONS} WHERE environment = %s AND flag = %s ORDER BY version DESC",
            [environment, flag],
        )
        return [convert.healthy_version(row) for row in rows]

    def split_weights(
        self, environment: str, flag: str, config_version: int
    ) -> dict[str, dict[str, int]] | None:
        version = self.configuration_version(environment, flag, config_version)
        return None if version is None else version.configuration.split_weights()

    def segments(self, environment: str) -> list[Segment]:
        rows = self._rows(f"{_SEGMENTS} WHERE environment = %s ORDER BY key", [environment])
        return [convert.segment(row) for row in rows]

    def segment(self, environment: str, key: str) -> Segment | None:
        rows = self._rows(f"{_SEGMENTS} WHERE environment = %s AND key = %s", [environment, key])
        return first(convert.segment, rows)

    def slos(self, environment: str) -> list[Slo]:
        rows = self._rows(f"{_SLOS} WHERE environment = %s ORDER BY service", [environment])
        return [convert.slo(row) for row in rows]

    def slo(self, environment: str, service: str) -> Slo | None:
        rows = self._rows(
            f"{_SLOS} WHERE environment = %s AND service = %s", [environment, service]
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
        where = ["id < %(before)s"]
        # Added only where asked for, so that the planner can use the index that fits.
        if flag is not None:
            where.append("flag = %(flag)s")
        if environment is not None:
            where.append("environment = %(environment)s")
        if action is not None:
            where.append("action = %(action)s")
        rows = self._rows(
            f"{_AUDIT} WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT %(limit)s",
            {
                "before": NO_BOUND if before is None else before,
                "flag": flag,
                "environment": environment,
                "action": action,
                "limit": limit,
            },
        )
        return [convert.audit_entry(row) for row in rows]

    def audit_head(self) -> Head:
        rows = self._rows("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        return Head(rows[0]["id"], bytes(rows[0]["hash"])) if rows else NO_ENTRY

    def audit_chain(self) -> Iterator[Link]:
        last = 0
        while rows := self._rows(f"{_CHAIN} WHERE id > %s ORDER BY id LIMIT {_PAGE}", [last]):
            yield from map(link_of, rows)
            last = rows[-1]["id"]

    def running_lives(self) -> list[GuardLife]:
        rows = self._rows(f"{_GUARD_LIVES} WHERE ended_at IS NULL ORDER BY id")
        return [convert.guard_life(row) for row in rows]

    def guard_lives(self, environment: str, flag: str) -> list[GuardLife]:
        rows = self._rows(
            f"{_GUARD_LIVES} WHERE environment = %s AND flag = %s ORDER BY id DESC",
            [environment, flag],
        )
        return [convert.guard_life(row) for row in rows]

    def load_guard_state(self, life_id: int) -> GuardState | None:
        rows = self._rows(f"{_GUARD_STATES} WHERE life_id = %s", [life_id])
        return first(lambda row: GuardState(**row), rows)

    def guard_events_after(self, life_id: int, event_id: int) -> Iterator[GuardEvent]:
        while True:
            rows = self._rows(
                f"{_GUARD_EVENTS} WHERE life_id = %s AND id > %s ORDER BY id LIMIT %s",
                [life_id, event_id, _PAGE],
            )
            for row in rows:
                yield GuardEvent(**row)
            if len(rows) < _PAGE:
                return
            event_id = rows[-1]["id"]

    def interventions_since(self, environment: str, actor: str, since: datetime) -> int:
        (row,) = self._rows(
            "SELECT COUNT(*) AS found FROM configuration_versions"
            " WHERE environment = %s AND actor = %s AND action IN ('kill', 'rollback')"
            " AND at >= %s",
            [environment, actor, format_time(since)],
        )
        return int(row["found"])

    def brake(self, environment: str) -> Brake | None:
        return first(convert.brake, self._rows(f"{_BRAKES} WHERE environment = %s", [environment]))

    def list_evidence(self, environment: str, flag: str) -> list[Evidence]:
        rows = self._rows(
            f"{_EVIDENCE} WHERE environment = %s AND flag = %s ORDER BY number DESC",
            [environment, flag],
        )
        return [convert.evidence(row) for row in rows]

    def evidence(self, evidence_id: str) -> Evidence | None:
        return first(convert.evidence, self._rows(f"{_EVIDENCE} WHERE id = %s", [evidence_id]))

    def evidence_since(self, at: datetime) -> list[Evidence]:
        rows = self._rows(f"{_EVIDENCE} WHERE at >= %s ORDER BY number", [format_time(at)])
        return [convert.evidence(row) for row in rows]

    def evidence_notes(self, evidence_id: str) -> list[EvidenceNote]:
        rows = self._rows(
            f"{_EVIDENCE_NOTES} WHERE evidence_id = %s ORDER BY number", [evidence_id]
        )
        return [convert.evidence_note(row) for row in rows]
