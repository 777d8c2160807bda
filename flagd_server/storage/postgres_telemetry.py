"""What processes report, in the Postgres database: counts, latencies, error kinds, local kills.

A batch of rows is one statement, which gets them as one JSON array and adds them to what is there.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from flagd_server.domain.times import format_time
from flagd_server.storage import telemetry_rows as convert
from flagd_server.storage.postgres_rows import PostgresRows, PostgresTable, select
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

_PAGE = 1_000
"""Rows read at a time of what is not held as a whole."""
_INSTANCES = select(Instance, "instances")
_COUNTS = select(CountRow, "counts")
_CONTROL_LATENCIES = select(LatencyRow, "control_latencies")
_ERROR_KINDS = select(ErrorKindRow, "error_kinds", where="place")
_LOCAL_KILLS = select(LocalKillRow, "local_kills")

# The columns by name, as everywhere.
_ADD_COUNTS = """
    INSERT INTO counts (
        environment, flag, minute, split, variant, config_version, service, service_version,
        exposures, errors, latency
    )
    SELECT
        environment, flag, minute, split, variant, config_version, service, service_version,
        exposures, errors, latency
    FROM json_populate_recordset(NULL::counts, %s)
    ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE SET
        exposures = counts.exposures + excluded.exposures,
        errors = counts.errors + excluded.errors,
        latency = merge_counts(counts.latency, excluded.latency)
"""
_ADD_CONTROL_LATENCIES = """
    INSERT INTO control_latencies (environment, minute, service, latency)
    SELECT environment, minute, service, latency
    FROM json_populate_recordset(NULL::control_latencies, %s)
    ON CONFLICT (environment, minute, service) DO UPDATE SET
        latency = merge_counts(control_latencies.latency, excluded.latency)
"""
_ADD_SERVICE_COUNTS = """
    INSERT INTO service_counts (
        environment, service, minutes, minute, exposures, errors, requests, measured, slow
    )
    SELECT environment, service, minutes, minute, exposures, errors, requests, measured, slow
    FROM json_populate_recordset(NULL::service_counts, %s)
    ON CONFLICT (environment, service, minutes, minute) DO UPDATE SET
        exposures = service_counts.exposures + excluded.exposures,
        errors = service_counts.errors + excluded.errors,
        requests = service_counts.requests + excluded.requests,
        measured = service_counts.measured + excluded.measured,
        slow = service_counts.slow + excluded.slow
"""
_ADD_ERROR_KINDS = """
    INSERT INTO error_kinds (environment, flag, variant, kind, place, count, sample, seen_at)
    SELECT environment, flag, variant, kind, place, count, sample, extract(epoch FROM now())::bigint
    FROM json_populate_recordset(NULL::error_kinds, %s)
    ON CONFLICT (environment, flag, variant, kind, place) DO UPDATE SET
        count = error_kinds.count + excluded.count,
        sample = excluded.sample,
        seen_at = excluded.seen_at
"""
_DROP_OLD_KINDS = """
    DELETE FROM error_kinds WHERE number IN (
        SELECT number FROM error_kinds WHERE environment = %s AND flag = %s
        ORDER BY seen_at DESC, number DESC OFFSET %s
    )
"""
_PUT_INSTANCES = """
    INSERT INTO instances (
        environment, instance, sequence, service, service_version, applied_sequence, seen_at
    )
    SELECT environment, instance, sequence, service, service_version, applied_sequence, seen_at
    FROM json_populate_recordset(NULL::instances, %s)
    ON CONFLICT (environment, instance) DO UPDATE SET
        sequence = excluded.sequence,
        service = excluded.service,
        service_version = excluded.service_version,
        applied_sequence = excluded.applied_sequence,
        seen_at = excluded.seen_at
"""
_PUT_LOCAL_KILL = """
    INSERT INTO local_kills (
        environment, id, instance, flag, service, service_version, document, told_at
    ) VALUES (
        %(environment)s, %(id)s, %(instance)s, %(flag)s, %(service)s, %(service_version)s,
        %(document)s, %(told_at)s
    )
    ON CONFLICT (environment, id, instance) DO UPDATE SET ended_at = NULL
"""


class TelemetryReader(PostgresRows):
    """See `storage.telemetry`."""

    def last_sequences(self, environment: str, instances: Collection[str]) -> dict[str, int]:
        rows = self._rows(
            "SELECT instance, sequence FROM instances WHERE environment = %s"
            " AND instance = ANY(%s)",
            [environment, list(instances)],
        )
        return {row["instance"]: row["sequence"] for row in rows}

    def instances(self, environment: str) -> list[Instance]:
        rows = self._rows(f"{_INSTANCES} WHERE environment = %s ORDER BY instance", [environment])
        return [convert.instance(row) for row in rows]

    def counts(self, environment: str, flag: str, since_minute: int) -> list[CountRow]:
        rows = self._rows(
            f"{_COUNTS} WHERE environment = %s AND flag = %s AND minute >= %s"
            " ORDER BY minute, split, variant, config_version, service, service_version",
            [environment, flag, since_minute],
        )
        return [convert.count(row) for row in rows]

    def control_latencies(self, environment: str, since_minute: int) -> Iterator[LatencyRow]:
        after = (since_minute, "")  # the services of the minute have longer names than none
        is_first = True
        while True:
            rows = self._rows(
                f"{_CONTROL_LATENCIES} WHERE environment = %s"
                f" AND (minute, service) {'>=' if is_first else '>'} (%s, %s)"
                " ORDER BY minute, service LIMIT %s",
                [environment, *after, _PAGE],
            )
            yield from map(convert.latency, rows)
            if len(rows) < _PAGE:
                return
            after, is_first = (rows[-1]["minute"], rows[-1]["service"]), False

    def error_kinds(self, environment: str, flag: str) -> list[ErrorKindRow]:
        rows = self._rows(
            f"{_ERROR_KINDS} WHERE environment = %s AND flag = %s"
            " ORDER BY count DESC, variant, kind, place",
            [environment, flag],
        )
        return [ErrorKindRow(**row) for row in rows]

    def service_sums(
        self, environment: str, service: str, since_minute: int, *, by_hour: bool
    ) -> ServiceSums:
        (row,) = self._rows(
            "SELECT COALESCE(SUM(exposures), 0)::bigint AS exposures,"
            " COALESCE(SUM(errors), 0)::bigint AS errors,"
            " COALESCE(SUM(requests), 0)::bigint AS requests,"
            " COALESCE(SUM(measured), 0)::bigint AS measured,"
            " COALESCE(SUM(slow), 0)::bigint AS slow FROM service_counts"
            " WHERE environment = %s AND service = %s AND minutes = %s AND minute >= %s",
            [environment, service, HOUR if by_hour else MINUTE, since_minute],
        )
        return ServiceSums(**row)

    def local_kills(self, environment: str = "", flag: str = "") -> list[LocalKillRow]:
        rows = self._rows(
            f"{_LOCAL_KILLS} WHERE %(environment)s IN ('', environment)"
            " AND %(flag)s IN ('', flag) ORDER BY told_at DESC, id, instance",
            {"environment": environment, "flag": flag},
        )
        return [convert.local_kill(row) for row in rows]

    def lifted_local_kills(self, environment: str, ids: Collection[str]) -> set[str]:
        rows = self._rows(
            "SELECT id FROM local_kills WHERE environment = %s AND lifted_at IS NOT NULL"
            " AND id = ANY(%s)",
            [environment, list(ids)],
        )
        return {row["id"] for row in rows}


class TelemetryWriter(PostgresTable):
    """See `storage.telemetry`."""

    def put_instances(self, rows: Iterable[Instance]) -> None:
        self._add(_PUT_INSTANCES, convert.newest_instances(rows))

    def add_counts(self, rows: Iterable[CountRow]) -> None:
        self._add(_ADD_COUNTS, convert.summed_counts(rows))

    def add_control_latencies(self, rows: Iterable[LatencyRow]) -> None:
        self._add(_ADD_CONTROL_LATENCIES, convert.summed_latencies(rows))

    def prune_control_latencies(self, before_minute: int) -> None:
        self._run("DELETE FROM control_latencies WHERE minute < %s", [before_minute])

    def add_error_kinds(self, rows: Iterable[ErrorKindRow]) -> None:
        sums = convert.summed_kinds(rows)
        self._add(_ADD_ERROR_KINDS, sums)
        for environment, flag in {(row["environment"], row["flag"]) for row in sums}:
            self._run(_DROP_OLD_KINDS, [environment, flag, MAX_KINDS_OF_A_FLAG])

    def add_service_counts(self, rows: Iterable[ServiceCounts]) -> None:
        self._add(_ADD_SERVICE_COUNTS, convert.summed_service_counts(rows))

    def forget_service_latencies(self, environment: str, service: str) -> None:
        key = {"environment": environment, "service": service}
        self._update("service_counts", key, {"measured": 0, "slow": 0})

    def prune_service_counts(self, before_minute: int, before_hour: int) -> None:
        for minutes, before in ((MINUTE, before_minute), (HOUR, before_hour)):
            self._run(
                "DELETE FROM service_counts WHERE minutes = %s AND minute < %s", [minutes, before]
            )

    def put_local_kill(self, row: LocalKillRow) -> None:
        self._run(_PUT_LOCAL_KILL, convert.local_kill_row(row))

    def end_local_kills(
        self, environment: str, instance: str, ids: Collection[str], at: datetime
    ) -> None:
        self._run(
            "UPDATE local_kills SET ended_at = %s WHERE environment = %s AND instance = %s"
            " AND id = ANY(%s)",
            [format_time(at), environment, instance, list(ids)],
        )

    def lift_local_kills(
        self, environment: str, ids: Collection[str], at: datetime, actor: str
    ) -> None:
        self._run(
            "UPDATE local_kills SET lifted_at = %s, lifted_by = %s WHERE environment = %s"
            " AND id = ANY(%s)",
            [format_time(at), actor, environment, list(ids)],
        )

    def prune_telemetry(self, before: datetime) -> None:
        text, seconds = format_time(before), int(before.timestamp())
        self._run("DELETE FROM counts WHERE minute < %s", [seconds // 60])
        self._run("DELETE FROM error_kinds WHERE seen_at < %s", [seconds])
        self._run("DELETE FROM instances WHERE seen_at < %s", [text])
        self._run(
            "DELETE FROM guard_events WHERE life_id IN"
            " (SELECT id FROM guard_lives WHERE ended_at < %s)",
            [text],
        )
        self._run(
            "DELETE FROM local_kills AS k WHERE told_at < %s AND (ended_at < %s OR NOT EXISTS"
            " (SELECT 1 FROM instances AS i WHERE i.environment = k.environment"
            " AND i.instance = k.instance))",
            [text, text],
        )
