"""Records to rows and back, as both databases hold them: times and JSON as text, truth as truth.

SQLite hands out 0 and 1 for what Postgres calls false and true; either is read here.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, TypeVar

from flagd_server.domain.configuration import Configuration
from flagd_server.domain.objectives import LatencyObjective, PrometheusSource
from flagd_server.domain.roles import Role
from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage.identity_records import Person, Session
from flagd_server.storage.records import (
    AuditEntry,
    Brake,
    ConfigurationVersion,
    Environment,
    Evidence,
    EvidenceNote,
    Flag,
    GuardLife,
    Segment,
    Slo,
    Token,
)
from flagd_server.storage.release_records import HealthyVersion

Row = Mapping[str, Any]
T = TypeVar("T")

NO_BOUND = 2**63 - 1
"""Above every number that is given out."""

# Made once: `json.dumps` with options makes an encoder each time, for longer than it encodes.
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def first(record: Callable[[Row], T], rows: list[Row]) -> T | None:
    """Return the first row as a record; None where there is none."""
    return record(rows[0]) if rows else None


def optional_time(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)


def optional_text(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def environment(row: Row) -> Environment:
    return Environment(**{**row, "created_at": parse_time(row["created_at"])})


def environment_row(record: Environment) -> dict[str, Any]:
    return asdict(record) | {"created_at": format_time(record.created_at)}


def flag(row: Row) -> Flag:
    return Flag(
        **{
            **row,
            "variants": json.loads(row["variants"]),
            "tags": tuple(json.loads(row["tags"])),
            "expires_at": optional_time(row["expires_at"]),
            "archived": bool(row["archived"]),
            "created_at": parse_time(row["created_at"]),
            "updated_at": parse_time(row["updated_at"]),
        }
    )


def flag_row(record: Flag) -> dict[str, Any]:
    return {
        "key": record.key,
        "type": record.type,
        "variants": to_json(record.variants),
        "description": record.description,
        "owner": record.owner,
        "tags": to_json(record.tags),
        "lifetime": record.lifetime,
        "expires_at": optional_text(record.expires_at),
        "archived": record.archived,
        "version": record.version,
        "created_at": format_time(record.created_at),
        "updated_at": format_time(record.updated_at),
    }


def configuration_version(row: Row) -> ConfigurationVersion:
    return ConfigurationVersion(
        **{
            **row,
            "configuration": Configuration.from_document(json.loads(row["configuration"])),
            "variants": json.loads(row["variants"]),
            "at": parse_time(row["at"]),
            "healthy_at": optional_time(row["healthy_at"]),
        }
    )


def configuration_version_row(record: ConfigurationVersion) -> dict[str, Any]:
    return {
        "environment": record.environment,
        "flag": record.flag,
        "version": record.version,
        "configuration": to_json(record.configuration.to_document()),
        "variants": to_json(record.variants),
        "at": format_time(record.at),
        "actor": record.actor,
        "action": record.action,
        "comment": record.comment,
    }


def healthy_version(row: Row) -> HealthyVersion:
    return HealthyVersion(**{**row, "at": parse_time(row["at"])})


def segment(row: Row) -> Segment:
    return Segment(
        **{
            **row,
            "condition": json.loads(row["condition"]),
            "updated_at": parse_time(row["updated_at"]),
        }
    )


def segment_row(record: Segment) -> dict[str, Any]:
    return {
        "environment": record.environment,
        "key": record.key,
        "condition": to_json(record.condition),
        "description": record.description,
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }


def slo(row: Row) -> Slo:
    latency, source = row["latency"], row["source"]
    return Slo(
        **{
            **row,
            "updated_at": parse_time(row["updated_at"]),
            "latency": None if latency is None else LatencyObjective(**json.loads(latency)),
            "source": None if source is None else PrometheusSource(**json.loads(source)),
        }
    )


def slo_row(record: Slo) -> dict[str, Any]:
    return asdict(record) | {
        "updated_at": format_time(record.updated_at),
        "latency": None if record.latency is None else to_json(record.latency.to_document()),
        "source": None if record.source is None else to_json(record.source.to_document()),
    }


def audit_entry(row: Row) -> AuditEntry:
    record = {**row, "at": parse_time(row["at"]), "detail": json.loads(row["detail"])}
    for hash_ in ("previous_hash", "hash"):  # see `storage.audit_chain`
        record.pop(hash_, None)
    return AuditEntry(**record)


def audit_row(record: AuditEntry) -> dict[str, Any]:
    """Return the row without its id, which is that of the last entry and one."""
    row = asdict(record) | {"at": format_time(record.at), "detail": to_json(record.detail)}
    del row["id"]
    return row


def token(row: Row) -> Token:
    return Token(**_with_times(row))


def token_row(record: Token) -> dict[str, Any]:
    return _with_texts(asdict(record))


def person(row: Row, roles: Mapping[str | None, Role]) -> Person:
    return Person(**_with_times(row), roles=roles)


def person_row(record: Person) -> dict[str, Any]:
    """Return the row without the roles, which are rows of their own."""
    names = (field.name for field in fields(record) if field.name != "roles")
    return _with_texts({name: getattr(record, name) for name in names})


def session(row: Row) -> Session:
    return Session(**_with_times(row))


def session_row(record: Session) -> dict[str, Any]:
    return _with_texts(asdict(record))


def _with_times(row: Row) -> dict[str, Any]:
    return {
        name: optional_time(value) if name.endswith("_at") else value for name, value in row.items()
    }


def _with_texts(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: format_time(value) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def guard_life(row: Row) -> GuardLife:
    return GuardLife(**{**row, "ended_at": optional_time(row["ended_at"])})


def brake(row: Row) -> Brake:
    return Brake(**{**row, "engaged_at": parse_time(row["engaged_at"])})


def evidence(row: Row) -> Evidence:
    return Evidence(**{**row, "at": parse_time(row["at"])})


def evidence_note(row: Row) -> EvidenceNote:
    return EvidenceNote(**{**row, "at": parse_time(row["at"])})
