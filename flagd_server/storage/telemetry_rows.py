"""Records of what processes report to rows and back, as both databases hold them.

Rows of one key are added up here first: the summaries of one batch mostly speak of the same few
cells, and a row merged in memory costs a tenth of one merged by the database.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage.rows import Row, to_json
from flagd_server.storage.telemetry_records import (
    CountRow,
    ErrorKindRow,
    Instance,
    LatencyRow,
    LocalKillRow,
    ServiceCounts,
)

MINUTE, HOUR = 1, 60
"""Over how many minutes a row of service_counts is a sum."""
MAX_KINDS_OF_A_FLAG = 500
"""A person reads the first twenty; the rest only shows that there is a rest."""


def instance(row: Row) -> Instance:
    return Instance(**{**row, "seen_at": parse_time(row["seen_at"])})


def newest_instances(records: Iterable[Instance]) -> list[dict[str, Any]]:
    """Return one row for each process, its last."""
    newest = {(record.environment, record.instance): record for record in records}
    # Those of a batch were all heard at once.
    times = {at: format_time(at) for at in {record.seen_at for record in newest.values()}}
    return [
        {
            "environment": record.environment,
            "instance": record.instance,
            "sequence": record.sequence,
            "service": record.service,
            "service_version": record.service_version,
            "applied_sequence": record.applied_sequence,
            "seen_at": times[record.seen_at],
        }
        for record in newest.values()
    ]


def count(row: Row) -> CountRow:
    latency = histogram(row["latency"])
    return CountRow(**{**row, "split": row["split"] or None, "latency": latency})


def latency(row: Row) -> LatencyRow:
    return LatencyRow(**{**row, "latency": histogram(row["latency"])})


def histogram(text: str) -> dict[int, int]:
    return {int(bucket): count for bucket, count in json.loads(text).items()}


def local_kill(row: Row) -> LocalKillRow:
    times = {name: row[name] and parse_time(row[name]) for name in row if name.endswith("_at")}
    return LocalKillRow(**{**row, **times})


def local_kill_row(record: LocalKillRow) -> dict[str, Any]:
    """Return the row of one that is told now; it has not ended, nor was it lifted."""
    row = asdict(record) | {"told_at": format_time(record.told_at)}
    del row["ended_at"], row["lifted_at"], row["lifted_by"]
    return row


def summed_counts(records: Iterable[CountRow]) -> list[dict[str, Any]]:
    """Return one row for each key."""
    sums: dict[tuple[Any, ...], tuple[list[int], dict[int, int]]] = {}
    for record in records:
        key = (
            record.environment,
            record.flag,
            record.minute,
            record.split or "",
            record.variant,
            record.config_version,
            record.service,
            record.service_version,
        )
        totals, latency = sums.setdefault(key, ([0, 0], {}))
        totals[0] += record.exposures
        totals[1] += record.errors
        _add(latency, record.latency)
    names = ("environment", "flag", "minute", "split", "variant", "config_version", "service")
    return [
        {
            **dict(zip((*names, "service_version"), key, strict=True)),
            "exposures": exposures,
            "errors": errors,
            "latency": to_json(latency),
        }
        for key, ((exposures, errors), latency) in sums.items()
    ]


def summed_latencies(records: Iterable[LatencyRow]) -> list[dict[str, Any]]:
    """Return one row for each key."""
    sums: dict[tuple[str, int, str], dict[int, int]] = {}
    for record in records:
        key = (record.environment, record.minute, record.service)
        _add(sums.setdefault(key, {}), record.latency)
    return [
        {
            "environment": environment,
            "minute": minute,
            "service": service,
            "latency": to_json(latency),
        }
        for (environment, minute, service), latency in sums.items()
    ]


def summed_kinds(records: Iterable[ErrorKindRow]) -> list[dict[str, Any]]:
    """Return one row for each key, with the newest sample."""
    counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
    samples: dict[tuple[str, ...], str] = {}
    for record in records:
        key = (record.environment, record.flag, record.variant, record.kind, record.where)
        counts[key] += record.count
        samples[key] = record.sample
    names = ("environment", "flag", "variant", "kind", "place")
    return [
        {**dict(zip(names, key, strict=True)), "count": count, "sample": samples[key]}
        for key, count in counts.items()
    ]


def summed_service_counts(records: Iterable[ServiceCounts]) -> list[dict[str, Any]]:
    """Return one row for each service and minute, and one for each hour."""
    fields = ("exposures", "errors", "requests", "measured", "slow")
    sums: dict[tuple[str, str, int, int], list[int]] = {}
    for record in records:
        for minutes in (MINUTE, HOUR):
            begins = record.minute - record.minute % minutes
            key = (record.environment, record.service, minutes, begins)
            totals = sums.setdefault(key, [0] * len(fields))
            for index, name in enumerate(fields):
                totals[index] += getattr(record, name)
    return [
        {
            "environment": environment,
            "service": service,
            "minutes": minutes,
            "minute": minute,
            **dict(zip(fields, totals, strict=True)),
        }
        for (environment, service, minutes, minute), totals in sums.items()
    ]


def _add(into: dict[int, int], latency: Mapping[int, int]) -> None:
    for bucket, count in latency.items():
        into[bucket] = into.get(bucket, 0) + count
