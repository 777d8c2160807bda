"""Records to rows of the SQLite database, within the one open write transaction.

Rare writes go through sqlite-utils' tables, which find the transaction open and commit nothing by
themselves; what runs for every telemetry summary is prepared SQL.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlite_utils import Database
from sqlite_utils.db import Table

from flagd_server.domain.times import format_time
from flagd_server.storage.base import COVERED_EVENTS_KEPT
from flagd_server.storage.records import (
    AuditEntry,
    Brake,
    ConfigurationVersion,
    CountRow,
    Environment,
    ErrorKindRow,
    EvidenceNote,
    Flag,
    LatencyRow,
    Segment,
    Slo,
    Token,
)
from flagd_server.storage.sqlite_reader import SqliteReader

_MAX_KINDS_OF_A_FLAG = 500
"""A person reads the first twenty; the rest only shows that there is a rest."""

# Made once: `json.dumps` with options makes an encoder each time, for longer than it encodes.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_ADD_COUNTS = """
    INSERT INTO counts (
        environment, flag, minute, split, variant, config_version, service, service_version,
        exposures, errors, latency
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        exposures = exposures + excluded.exposures,
        errors = errors + excluded.errors,
        latency = merge_counts(latency, excluded.latency)
"""
_ADD_CONTROL_LATENCIES = """
    INSERT INTO control_latencies (environment, minute, service, latency) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET latency = merge_counts(latency, excluded.latency)
"""
_ADD_ERROR_KINDS = """
    INSERT INTO error_kinds (environment, flag, variant, kind, place, count, sample, seen_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, CAST(strftime('%s', 'now') AS INTEGER))
    ON CONFLICT DO UPDATE SET
        count = count + excluded.count, sample = excluded.sample, seen_at = excluded.seen_at
"""
_DROP_OLD_KINDS = """
    DELETE FROM error_kinds WHERE rowid IN (
        SELECT rowid FROM error_kinds WHERE environment = ? AND flag = ?
        ORDER BY seen_at DESC, rowid DESC LIMIT -1 OFFSET ?
    )
"""
_UPSERT_INSTANCE = """
    INSERT INTO instances (
        environment, instance, sequence, service, service_version, applied_sequence, seen_at
    ) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        sequence = excluded.sequence,
        service = excluded.service,
        service_version = excluded.service_version,
        applied_sequence = excluded.applied_sequence,
        seen_at = excluded.seen_at
"""


class SqliteTransaction(SqliteReader):
    """Writes through the one connection that writes, while its owner holds the lock."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.callbacks: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def insert_environment(self, environment: Environment) -> None:
        row = asdict(environment) | {"created_at": format_time(environment.created_at)}
        self._table("environments").insert(row)

    def rename_environment(self, key: str, name: str) -> None:
        self._table("environments").update(key, {"name": name})

    def set_sequence(self, environment: str, sequence: int) -> None:
        self._table("environments").update(environment, {"sequence": sequence})

    def delete_environment(self, key: str) -> None:
        self._table("environments").delete(key)

    def insert_flag(self, flag: Flag) -> None:
        self._table("flags").insert(_flag_row(flag))

    def update_flag(self, flag: Flag) -> None:
        self._table("flags").update(flag.key, _flag_row(flag))

    def write_configuration(self, version: ConfigurationVersion) -> None:
        self._table("configuration_versions").insert(
            {
                "environment": version.environment,
                "flag": version.flag,
                "version": version.version,
                "configuration": _json(version.configuration.to_document()),
                "variants": _json(version.variants),
                "at": format_time(version.at),
                "actor": version.actor,
                "action": version.action,
                "comment": version.comment,
            }
        )
        self._db.execute(
            "INSERT INTO configurations (environment, flag, version) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET version = excluded.version",
            (version.environment, version.flag, version.version),
        )

    def put_segment(self, segment: Segment) -> None:
        self._table("segments").upsert(
            {
                "environment": segment.environment,
                "key": segment.key,
                "condition": _json(segment.condition),
                "description": segment.description,
                "version": segment.version,
                "updated_at": format_time(segment.updated_at),
            },
            pk=("environment", "key"),
        )

    def delete_segment(self, environment: str, key: str) -> None:
        self._table("segments").delete((environment, key))

    def put_slo(self, slo: Slo) -> None:
        self._table("slos").upsert(
            asdict(slo) | {"updated_at": format_time(slo.updated_at)},
            pk=("environment", "service"),
        )

    def delete_slo(self, environment: str, service: str) -> None:
        self._table("slos").delete((environment, service))

    def append_audit(self, entry: AuditEntry) -> None:
        row = asdict(entry) | {"at": format_time(entry.at), "detail": _json(entry.detail)}
        del row["id"]
        self._table("audit").insert(row)

    def insert_token(self, token: Token) -> None:
        row = asdict(token) | {
            "created_at": format_time(token.created_at),
            "revoked_at": None if token.revoked_at is None else format_time(token.revoked_at),
        }
        self._table("tokens").insert(row)
        self._touch_tokens()

    def revoke_token(self, token_id: str, revoked_at: datetime) -> None:
        self._table("tokens").update(token_id, {"revoked_at": format_time(revoked_at)})
        self._touch_tokens()

    def upsert_instance(
        self,
        environment: str,
        instance: str,
        sequence: int,
        service: str,
        service_version: str,
        applied_sequence: int,
        seen_at: datetime,
    ) -> None:
        self._db.execute(
            _UPSERT_INSTANCE,
            (
                environment,
                instance,
                sequence,
                service,
                service_version,
                applied_sequence,
                format_time(seen_at),
            ),
        )

    def add_counts(self, rows: Iterable[CountRow]) -> None:
        # Merged here first: the summaries of one batch mostly speak of the same few cells, and a
        # row merged in memory costs a tenth of one merged by the database.
        sums: dict[tuple[Any, ...], tuple[list[int], dict[int, int]]] = {}
        for row in rows:
            key = (
                row.environment,
                row.flag,
                row.minute,
                row.split or "",
                row.variant,
                row.config_version,
                row.service,
                row.service_version,
            )
            totals, latency = sums.setdefault(key, ([0, 0], {}))
            totals[0] += row.exposures
            totals[1] += row.errors
            _add(latency, row.latency)
        self._db.conn.executemany(
            _ADD_COUNTS,
            ((*key, *totals, _json(latency)) for key, (totals, latency) in sums.items()),
        )

    def add_control_latencies(self, rows: Iterable[LatencyRow]) -> None:
        sums: dict[tuple[str, int, str], dict[int, int]] = {}
        for row in rows:
            latency = sums.setdefault((row.environment, row.minute, row.service), {})
            _add(latency, row.latency)
        self._db.conn.executemany(
            _ADD_CONTROL_LATENCIES, ((*key, _json(latency)) for key, latency in sums.items())
        )

    def prune_control_latencies(self, before_minute: int) -> None:
        self._db.execute("DELETE FROM control_latencies WHERE minute < ?", (before_minute,))

    def add_error_kinds(self, rows: Iterable[ErrorKindRow]) -> None:
        counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        samples: dict[tuple[str, ...], str] = {}
        for row in rows:
            key = (row.environment, row.flag, row.variant, row.kind, row.where)
            counts[key] += row.count
            samples[key] = row.sample
        self._db.conn.executemany(
            _ADD_ERROR_KINDS, ((*key, count, samples[key]) for key, count in counts.items())
        )
        for environment, flag in {key[:2] for key in counts}:
            self._db.execute(_DROP_OLD_KINDS, (environment, flag, _MAX_KINDS_OF_A_FLAG))

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

    def prune_telemetry(self, before: datetime) -> None:
        text, seconds = format_time(before), int(before.timestamp())
        self._db.execute("DELETE FROM counts WHERE minute < ?", (seconds // 60,))
        self._db.execute("DELETE FROM error_kinds WHERE seen_at < ?", (seconds,))
        self._db.execute("DELETE FROM instances WHERE seen_at < ?", (text,))
        self._db.execute(
            "DELETE FROM guard_events WHERE life_id IN"
            " (SELECT id FROM guard_lives WHERE ended_at < ?)",
            (text,),
        )

    def _table(self, name: str) -> Table:
        return self._db.table(name)

    def _insert(self, sql: str, parameters: tuple[Any, ...]) -> int:
        row_id = self._db.execute(sql, parameters).lastrowid
        assert row_id is not None
        return row_id

    def _touch_tokens(self) -> None:
        self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'token_generation'")


def merge_counts(first: str, second: str) -> str:
    """Add up two JSON objects of counts. Registered as an SQL function for the upserts."""
    counts: dict[str, int] = json.loads(first)
    for key, count in json.loads(second).items():
        counts[key] = counts.get(key, 0) + count
    return _json(counts)


def _add(into: dict[int, int], latency: Mapping[int, int]) -> None:
    for bucket, count in latency.items():
        into[bucket] = into.get(bucket, 0) + count


def _flag_row(flag: Flag) -> dict[str, Any]:
    return {
        "key": flag.key,
        "type": flag.type,
        "variants": _json(flag.variants),
        "description": flag.description,
        "owner": flag.owner,
        "tags": _json(flag.tags),
        "lifetime": flag.lifetime,
        "expires_at": None if flag.expires_at is None else format_time(flag.expires_at),
        "archived": int(flag.archived),
        "version": flag.version,
        "created_at": format_time(flag.created_at),
        "updated_at": format_time(flag.updated_at),
    }
