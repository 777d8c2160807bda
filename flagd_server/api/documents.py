"""Records of the services → the JSON documents that `openapi.yaml` describes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flagd_server.domain.times import format_time
from flagd_server.services.alarms import Alarm
from flagd_server.services.evidence import EvidenceReport
from flagd_server.storage.records import (
    AuditEntry,
    ConfigurationVersion,
    Environment,
    Flag,
    Segment,
    Slo,
    Token,
)

Json = dict[str, Any]


def _optional_time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def items(documents: Iterable[Json]) -> Json:
    return {"items": list(documents)}


def page(documents: Iterable[Json], next_before: int | None) -> Json:
    """Return one page; `next` is what to pass as `before` for the one after it."""
    return {"items": list(documents), "next": next_before}


def environment(record: Environment) -> Json:
    """The unit key is left out: it is for those who hash units, and they get it with the flags."""
    return {
        "key": record.key,
        "name": record.name,
        "sequence": record.sequence,
        "created_at": format_time(record.created_at),
    }


def flag(record: Flag) -> Json:
    return {
        "key": record.key,
        "type": record.type,
        "variants": dict(record.variants),
        "description": record.description,
        "owner": record.owner,
        "tags": list(record.tags),
        "lifetime": record.lifetime,
        "expires_at": _optional_time(record.expires_at),
        "archived": record.archived,
        "version": record.version,
        "created_at": format_time(record.created_at),
        "updated_at": format_time(record.updated_at),
    }


def configuration(record: ConfigurationVersion) -> Json:
    return {
        "environment": record.environment,
        "flag": record.flag,
        "version": record.version,
        **record.configuration.to_document(),
        "variants": dict(record.variants),
        "at": format_time(record.at),
        "actor": record.actor,
        "action": record.action,
        "comment": record.comment,
    }


def segment(record: Segment) -> Json:
    return {
        "environment": record.environment,
        "key": record.key,
        "condition": record.condition,
        "description": record.description,
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }


def slo(record: Slo) -> Json:
    return {
        "environment": record.environment,
        "service": record.service,
        "availability": record.availability,
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }


def audit_entry(record: AuditEntry) -> Json:
    return {
        "id": record.id,
        "at": format_time(record.at),
        "actor": record.actor,
        "action": record.action,
        "target": record.target,
        "environment": record.environment,
        "flag": record.flag,
        "before_version": record.before_version,
        "after_version": record.after_version,
        "comment": record.comment,
        "detail": dict(record.detail),
    }


def alarm(record: Alarm) -> Json:
    return {
        "kind": record.kind.value,
        "environment": record.environment,
        "flag": record.flag,
        "subject": record.subject,
        "detail": record.detail,
        "first_at": format_time(record.first_at),
        "last_at": format_time(record.last_at),
        "count": record.count,
    }


def token(record: Token) -> Json:
    """Nothing of the secret is in it."""
    return {
        "id": record.id,
        "name": record.name,
        "scope": record.scope,
        "environment": record.environment,
        "kind": record.kind,
        "prefix": record.prefix,
        "created_at": format_time(record.created_at),
        "created_by": record.created_by,
        "revoked_at": _optional_time(record.revoked_at),
    }


def evidence_report(record: EvidenceReport) -> Json:
    """Return the whole report, with what has become known since it was written."""
    return {**record.document, "notes": list(record.notes)}


def evidence_summary(record: EvidenceReport) -> Json:
    """Return what a list shows of a report; the tosses and paths are in the report itself."""
    return {
        "id": record.id,
        "environment": record.environment,
        "flag": record.flag,
        "at": format_time(record.at),
        "mode": record.document["mode"],
        "action": record.document["action"],
        "decision": record.document["decision"],
    }
