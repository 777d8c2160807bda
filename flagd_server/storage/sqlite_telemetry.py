"""What processes report, in the SQLite database: counts, latencies, error kinds, local kills.

Nearly all of it runs for every summary, and so is prepared SQL, without sqlite-utils' tables.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from flagd_server.domain.times import format_time
from flagd_server.storage import telemetry_rows as convert
from flagd_server.storage.rows import to_json
from flagd_server.storage.sqlite_rows import SqliteRows
from flagd_server.storage.telemetry_records import (
    CountRow,
    ErrorKindRow,
    Instance,
    LatencyRow,
    LocalKillRow,
    ServiceCounts,
    ServiceSums,
)
from flagd_server.storage.telemetry_rows import HOUR, MAX_KINDS_OF_A_FLAG, MINUTE

_ADD_COUNTS = """
    INSERT INTO counts (
        environment, flag, minute, split, variant, config_version, service, service_version,
        exposures, errors, latency
    ) VALUES (
        :environment, :flag, :minute, :split, :variant, :config_version, :service,
        :service_version, :exposures, :errors, :latency
    )
    ON CONFLICT DO UPDATE SET
        exposures = exposures + excluded.exposures,
        errors = errors + excluded.errors,
        latency = merge_counts(latency, excluded.latency)
"""
_ADD_CONTROL_LATENCIES = """
    INSERT INTO control_latencies (environment, minute, service, latency)
    VALUES (:environment, :minute, :service, :latency)
    ON CONFLICT DO UPDATE SET latency = merge_counts(latency, excluded.latency)
"""
_ADD_SERVICE_COUNTS = """
    INSERT INTO service_counts (
        environment, service, minutes, minute, exposures, errors, requests, measured, slow
    ) VALUES (
        :environment, :service, :minutes, :minute, :exposures, :errors, :requests, :measured, :slow
    )
    ON CONFLICT DO UPDATE SET
        exposures = exposures + excluded.exposures,
        errors = errors + excluded.errors,
        requests = requests + excluded.requests,
        measured = measured + excluded.measured,
        slow = slow + excluded.slow
"""
_ADD_ERROR_KINDS = """
    INSERT INTO error_kinds (environment, flag, variant, kind, place, count, sample, seen_at)
    VALUES (
        :environment, :flag, :variant, :kind, :place, :count, :sample,
        CAST(strftime('%s', 'now') AS INTEGER)
    )
    ON CONFLICT DO UPDATE SET
        count = count + excluded.count, sample = excluded.sample, seen_at = excluded.seen_at
"""
_DROP_OLD_KINDS = """
    DELETE FROM error_kinds WHERE rowid IN (
        SELECT rowid FROM error_kinds WHERE environment = ? AND flag = ?
        ORDER BY seen_at DESC, rowid DESC LIMIT -1 OFFSET ?
    )
"""
_PUT_INSTANCES = """
    INSERT INTO instances (
        environment, instance, sequence, service, service_version, applied_sequence, seen_at
    ) VALUES (
        :environment, :instance, :sequence, :service, :service_version, :applied_sequence, :seen_at
    )
    ON CONFLICT DO UPDATE SET
        sequence = excluded.sequence,
        service = excluded.service,
        service_version = excluded.service_version,
        applied_sequence = excluded.applied_sequence,
        seen_at = excluded.seen_at
"""


class TelemetryReader(SqliteRows):
    """See `storage.telemetry`."""

    def last_sequences(self, environment: str, instances: Collection[str]) -> dict[str, int]:
        rows = self._rows(
            "SELECT instance, sequence FROM instances WHERE environment = ?"
            " AND instance IN (SELECT value FROM json_each(?))",
            [environment, json.dumps(list(instances))],
        )
        return {row["instance"]: row["sequence"] for row in rows}

    def instances(self, environment: str) -> list[Instance]:
        rows = self._rows(
            "SELECT * FROM instances WHERE environment = ? ORDER BY instance", [environment]
        )
        return [convert.instance(row) for row in rows]

    def counts(self, environment: str, flag: str, since_minute: int) -> list[CountRow]:
        rows = self._rows(
            "SELECT * FROM counts WHERE environment = ? AND flag = ? AND minute >= ?"
            " ORDER BY minute, split, variant, config_version, service, service_version",
            [environment, flag, since_minute],
        )
        return [convert.count(row) for row in rows]

    def control_latencies(self, environment: str, since_minute: int) -> Iterator[LatencyRow]:
        cursor = self._db.execute(
            "SELECT service, minute, latency FROM control_latencies"
            " WHERE environment = ? AND minute >= ? ORDER BY minute, service",
            (environment, since_minute),
        )
        return (
            LatencyRow(environment, service, minute, convert.histogram(latency))
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

    def service_sums(
        self, environment: str, service: str, since_minute: int, *, by_hour: bool
    ) -> ServiceSums:
        row = self._db.execute(
            "SELECT TOTAL(exposures), TOTAL(errors), TOTAL(requests), TOTAL(measured), TOTAL(slow)"
            " FROM service_counts"
            " WHERE environment = ? AND service = ? AND minutes = ? AND minute >= ?",
            (environment, service, HOUR if by_hour else MINUTE, since_minute),
        ).fetchone()
        return ServiceSums(*map(int, row))

    def local_kills(self, environment: str = "", flag: str = "") -> list[LocalKillRow]:
        rows = self._rows(
            "SELECT * FROM local_kills WHERE :environment IN ('', environment)"
            " AND :flag IN ('', flag) ORDER BY told_at DESC, id, instance",
            {"environment": environment, "flag": flag},
        )
        return [convert.local_kill(row) for row in rows]

    def lifted_local_kills(self, environment: str, ids: Collection[str]) -> set[str]:
        rows = self._rows(
            "SELECT id FROM local_kills WHERE environment = ? AND lifted_at IS NOT NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            [environment, json.dumps(list(ids))],
        )
        return {row["id"] for row in rows}


class TelemetryWriter(SqliteRows):
    """See `storage.telemetry`."""

    def put_instances(self, rows: Iterable[Instance]) -> None:
        self._db.conn.executemany(_PUT_INSTANCES, convert.newest_instances(rows))

    def add_counts(self, rows: Iterable[CountRow]) -> None:
        self._db.conn.executemany(_ADD_COUNTS, convert.summed_counts(rows))

    def add_control_latencies(self, rows: Iterable[LatencyRow]) -> None:
        self._db.conn.executemany(_ADD_CONTROL_LATENCIES, convert.summed_latencies(rows))

    def prune_control_latencies(self, before_minute: int) -> None:
        self._db.execute("DELETE FROM control_latencies WHERE minute < ?", (before_minute,))

    def add_error_kinds(self, rows: Iterable[ErrorKindRow]) -> None:
        sums = convert.summed_kinds(rows)
        self._db.conn.executemany(_ADD_ERROR_KINDS, sums)
        for environment, flag in {(row["environment"], row["flag"]) for row in sums}:
            self._db.execute(_DROP_OLD_KINDS, (environment, flag, MAX_KINDS_OF_A_FLAG))

    def add_service_counts(self, rows: Iterable[ServiceCounts]) -> None:
        self._db.conn.executemany(_ADD_SERVICE_COUNTS, convert.summed_service_counts(rows))

    def forget_service_latencies(self, environment: str, service: str) -> None:
        self._db.execute(
            "UPDATE service_counts SET measured = 0, slow = 0"
            " WHERE environment = ? AND service = ?",
            (environment, service),
        )

    def prune_service_counts(self, before_minute: int, before_hour: int) -> None:
        for minutes, before in ((MINUTE, before_minute), (HOUR, before_hour)):
            self._db.execute(
                "DELETE FROM service_counts WHERE minutes = ? AND minute < ?", (minutes, before)
            )

    def put_local_kill(self, row: LocalKillRow) -> None:
        self._db.execute(
            "INSERT INTO local_kills (environment, id, instance, flag, service, service_version,"
            " document, told_at) VALUES (:environment, :id, :instance, :flag, :service,"
            " :service_version, :document, :told_at) ON CONFLICT DO UPDATE SET ended_at = NULL",
            convert.local_kill_row(row),
        )

    def end_local_kills(
        self, environment: str, instance: str, ids: Collection[str], at: datetime
    ) -> None:
        self._db.execute(
            "UPDATE local_kills SET ended_at = ? WHERE environment = ? AND instance = ?"
            " AND id IN (SELECT value FROM json_each(?))",
            (format_time(at), environment, instance, to_json(list(ids))),
        )

    def lift_local_kills(
        self, environment: str, ids: Collection[str], at: datetime, actor: str
    ) -> None:
        self._db.execute(
            "UPDATE local_kills SET lifted_at = ?, lifted_by = ? WHERE environment = ?"
            " AND id IN (SELECT value FROM json_each(?))",
            (format_time(at), actor, environment, to_json(list(ids))),
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
        self._db.execute(
            "DELETE FROM local_kills WHERE told_at < ? AND (ended_at < ? OR NOT EXISTS"
            " (SELECT 1 FROM instances AS i WHERE i.environment = local_kills.environment"
            " AND i.instance = local_kills.instance))",
            (text, text),
        )


def merge_counts(first: str, second: str) -> str:
    """Add up two JSON objects of counts. Registered as an SQL function for the upserts."""
    counts: dict[str, int] = json.loads(first)
    for key, count in json.loads(second).items():
        counts[key] = counts.get(key, 0) + count
    return to_json(counts)
