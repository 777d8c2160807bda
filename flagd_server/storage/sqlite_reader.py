"""Rows of the SQLite database to records, within one view of it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlite_utils import Database

from flagd_server.domain.configuration import Configuration
from flagd_server.domain.times import format_time, parse_time
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

_NEWEST_VERSION = (
    "SELECT v.* FROM configurations AS c JOIN configuration_versions AS v"
    " ON v.environment = c.environment AND v.flag = c.flag AND v.version = c.version"
)
_NO_BOUND = 2**63 - 1

Row = Mapping[str, Any]
T = TypeVar("T")


class SqliteReader:
    """Reads through a connection that the owner has put inside a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def environments(self) -> list[Environment]:
        return [_environment(row) for row in self._rows("SELECT * FROM environments ORDER BY key")]

    def environment(self, key: str) -> Environment | None:
        return _first(_environment, self._rows("SELECT * FROM environments WHERE key = ?", [key]))

    def flags(self, *, tag: str | None = None, archived: bool | None = None) -> list[Flag]:
        rows = self._rows(
            "SELECT * FROM flags WHERE (:archived IS NULL OR archived = :archived)"
            " AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag))"
            " ORDER BY key",
            {"archived": archived, "tag": tag},
        )
        return [_flag(row) for row in rows]

    def flag(self, key: str) -> Flag | None:
        return _first(_flag, self._rows("SELECT * FROM flags WHERE key = ?", [key]))

    def configuration(self, environment: str, flag: str) -> ConfigurationVersion | None:
        rows = self._rows(
            f"{_NEWEST_VERSION} WHERE c.environment = ? AND c.flag = ?", [environment, flag]
        )
        return _first(_configuration_version, rows)

    def configurations(self, environment: str) -> list[ConfigurationVersion]:
        rows = self._rows(
            f"{_NEWEST_VERSION} WHERE c.environment = ? ORDER BY c.flag", [environment]
        )
        return [_configuration_version(row) for row in rows]

    def configurations_of(self, flag: str) -> list[ConfigurationVersion]:
        rows = self._rows(f"{_NEWEST_VERSION} WHERE c.flag = ? ORDER BY c.environment", [flag])
        return [_configuration_version(row) for row in rows]

    def configuration_version(
        self, environment: str, flag: str, version: int
    ) -> ConfigurationVersion | None:
        rows = self._rows(
            "SELECT * FROM configuration_versions"
            " WHERE environment = ? AND flag = ? AND version = ?",
            [environment, flag, version],
        )
        return _first(_configuration_version, rows)

    def history(
        self, environment: str, flag: str, limit: int, before: int | None = None
    ) -> list[ConfigurationVersion]:
        rows = self._rows(
            "SELECT * FROM configuration_versions"
            " WHERE environment = ? AND flag = ? AND version < ?"
            " ORDER BY version DESC LIMIT ?",
            [environment, flag, _NO_BOUND if before is None else before, limit],
        )
        return [_configuration_version(row) for row in rows]

    def split_weights(
        self, environment: str, flag: str, config_version: int
    ) -> dict[str, dict[str, int]] | None:
        version = self.configuration_version(environment, flag, config_version)
        return None if version is None else version.configuration.split_weights()

    def segments(self, environment: str) -> list[Segment]:
        rows = self._rows(
            "SELECT * FROM segments WHERE environment = ? ORDER BY key", [environment]
        )
        return [_segment(row) for row in rows]

    def segment(self, environment: str, key: str) -> Segment | None:
        rows = self._rows(
            "SELECT * FROM segments WHERE environment = ? AND key = ?", [environment, key]
        )
        return _first(_segment, rows)

    def slos(self, environment: str) -> list[Slo]:
        rows = self._rows(
            "SELECT * FROM slos WHERE environment = ? ORDER BY service", [environment]
        )
        return [_slo(row) for row in rows]

    def slo(self, environment: str, service: str) -> Slo | None:
        rows = self._rows(
            "SELECT * FROM slos WHERE environment = ? AND service = ?", [environment, service]
        )
        return _first(_slo, rows)

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
                "before": _NO_BOUND if before is None else before,
                "flag": flag,
                "environment": environment,
                "action": action,
            },
            order_by="id DESC",
            limit=limit,
        )
        return [_audit_entry(row) for row in rows]

    def tokens(self) -> list[Token]:
        return [_token(row) for row in self._rows("SELECT * FROM tokens ORDER BY rowid")]

    def token(self, token_id: str) -> Token | None:
        return _first(_token, self._rows("SELECT * FROM tokens WHERE id = ?", [token_id]))

    def last_sequence(self, environment: str, instance: str) -> int | None:
        # Asked once a summary: without the dictionaries of _rows.
        row = self._db.execute(
            "SELECT sequence FROM instances WHERE environment = ? AND instance = ?",
            (environment, instance),
        ).fetchone()
        return None if row is None else int(row[0])

    def instances(self, environment: str) -> list[Instance]:
        rows = self._rows(
            "SELECT * FROM instances WHERE environment = ? ORDER BY instance", [environment]
        )
        return [Instance(**{**row, "seen_at": parse_time(row["seen_at"])}) for row in rows]

    def counts(self, environment: str, flag: str, since_minute: int) -> list[CountRow]:
        rows = self._rows(
            "SELECT * FROM counts WHERE environment = ? AND flag = ? AND minute >= ?"
            " ORDER BY minute, split, variant, config_version, service, service_version",
            [environment, flag, since_minute],
        )
        return [_count_row(row) for row in rows]

    def control_latencies(self, environment: str, since_minute: int) -> Iterator[LatencyRow]:
        cursor = self._db.execute(
            "SELECT service, minute, latency FROM control_latencies"
            " WHERE environment = ? AND minute >= ? ORDER BY minute, service",
            (environment, since_minute),
        )
        return (
            LatencyRow(environment, service, minute, _histogram(latency))
            for service, minute, latency in cursor
        )

    def error_kinds(self, environment: str, flag: str) -> list[ErrorKindRow]:
        rows = self._rows(
            'SELECT environment, flag, variant, kind, place AS "where", count, sample'
            " FROM error_kinds WHERE environment = ? AND flag = ?"
            " ORDER BY count DESC, variant, kind, place",
            [environment, flag],
        )
        return [ErrorKindRow(**row) for row in rows]

    def running_lives(self) -> list[GuardLife]:
        rows = self._rows("SELECT * FROM guard_lives WHERE ended_at IS NULL ORDER BY id")
        return [_guard_life(row) for row in rows]

    def guard_lives(self, environment: str, flag: str) -> list[GuardLife]:
        rows = self._rows(
            "SELECT * FROM guard_lives WHERE environment = ? AND flag = ? ORDER BY id DESC",
            [environment, flag],
        )
        return [_guard_life(row) for row in rows]

    def load_guard_state(self, life_id: int) -> GuardState | None:
        rows = self._rows(
            "SELECT event_id, document FROM guard_states WHERE life_id = ?", [life_id]
        )
        return _first(lambda row: GuardState(**row), rows)

    def guard_events_after(self, life_id: int, event_id: int) -> Iterator[GuardEvent]:
        cursor = self._db.execute(
            "SELECT id, at, document FROM guard_events WHERE life_id = ? AND id > ? ORDER BY id",
            (life_id, event_id),
        )
        return (GuardEvent(*row) for row in cursor)

    def kills_since(self, environment: str, actor: str, since: datetime) -> int:
        rows = self._rows(
            "SELECT COUNT(*) AS kills FROM configuration_versions"
            " WHERE environment = ? AND actor = ? AND action = 'kill' AND at >= ?",
            [environment, actor, format_time(since)],
        )
        return int(rows[0]["kills"])

    def brake(self, environment: str) -> Brake | None:
        return _first(
            _brake, self._rows("SELECT * FROM brakes WHERE environment = ?", [environment])
        )

    def list_evidence(self, environment: str, flag: str) -> list[Evidence]:
        rows = self._rows(
            "SELECT * FROM evidence WHERE environment = ? AND flag = ? ORDER BY rowid DESC",
            [environment, flag],
        )
        return [_evidence(row) for row in rows]

    def evidence(self, evidence_id: str) -> Evidence | None:
        return _first(_evidence, self._rows("SELECT * FROM evidence WHERE id = ?", [evidence_id]))

    def evidence_since(self, at: datetime) -> list[Evidence]:
        rows = self._rows("SELECT * FROM evidence WHERE at >= ? ORDER BY rowid", [format_time(at)])
        return [_evidence(row) for row in rows]

    def evidence_notes(self, evidence_id: str) -> list[EvidenceNote]:
        rows = self._rows(
            "SELECT * FROM evidence_notes WHERE evidence_id = ? ORDER BY rowid", [evidence_id]
        )
        return [EvidenceNote(**{**row, "at": parse_time(row["at"])}) for row in rows]

    def _rows(
        self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None
    ) -> list[Row]:
        return list(self._db.query(sql, parameters))


def _first(record: Callable[[Row], T], rows: list[Row]) -> T | None:
    return record(rows[0]) if rows else None


def _environment(row: Row) -> Environment:
    return Environment(**{**row, "created_at": parse_time(row["created_at"])})


def _flag(row: Row) -> Flag:
    return Flag(
        **{
            **row,
            "variants": json.loads(row["variants"]),
            "tags": tuple(json.loads(row["tags"])),
            "expires_at": _optional_time(row["expires_at"]),
            "archived": bool(row["archived"]),
            "created_at": parse_time(row["created_at"]),
            "updated_at": parse_time(row["updated_at"]),
        }
    )


def _configuration_version(row: Row) -> ConfigurationVersion:
    return ConfigurationVersion(
        **{
            **row,
            "configuration": Configuration.from_document(json.loads(row["configuration"])),
            "variants": json.loads(row["variants"]),
            "at": parse_time(row["at"]),
        }
    )


def _segment(row: Row) -> Segment:
    return Segment(
        **{
            **row,
            "condition": json.loads(row["condition"]),
            "updated_at": parse_time(row["updated_at"]),
        }
    )


def _slo(row: Row) -> Slo:
    return Slo(**{**row, "updated_at": parse_time(row["updated_at"])})


def _audit_entry(row: Row) -> AuditEntry:
    return AuditEntry(**{**row, "at": parse_time(row["at"]), "detail": json.loads(row["detail"])})


def _token(row: Row) -> Token:
    return Token(
        **{
            **row,
            "created_at": parse_time(row["created_at"]),
            "revoked_at": _optional_time(row["revoked_at"]),
        }
    )


def _count_row(row: Row) -> CountRow:
    latency = _histogram(row["latency"])
    return CountRow(**{**row, "split": row["split"] or None, "latency": latency})


def _histogram(text: str) -> dict[int, int]:
    return {int(bucket): count for bucket, count in json.loads(text).items()}


def _guard_life(row: Row) -> GuardLife:
    return GuardLife(**{**row, "ended_at": _optional_time(row["ended_at"])})


def _brake(row: Row) -> Brake:
    return Brake(**{**row, "engaged_at": parse_time(row["engaged_at"])})


def _evidence(row: Row) -> Evidence:
    return Evidence(**{**row, "at": parse_time(row["at"])})


def _optional_time(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)
