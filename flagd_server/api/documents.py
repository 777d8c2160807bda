"""Records of the services → the JSON documents that `openapi.yaml` describes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flagd_server.domain.targets import parse_target
from flagd_server.domain.times import format_time
from flagd_server.services.alarms import Alarm
from flagd_server.services.evidence import EvidenceReport
from flagd_server.services.local_kills import ToldKill
from flagd_server.services.people import roles_document
from flagd_server.storage.identity_records import Person
from flagd_server.storage.records import (
    AuditEntry,
    ConfigurationVersion,
    Environment,
    Flag,
    Segment,
    Slo,
    Token,
)
from flagd_server.storage.release_records import Delivery, Deployment, Gate, Webhook
from flagd_server.storage.telemetry_records import Instance

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
        "healthy_at": _optional_time(record.healthy_at),
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
        "latency": None if record.latency is None else record.latency.to_document(),
        "window_days": record.window_days,
        "source": None if record.source is None else record.source.to_document(),
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }


def gate(record: Gate) -> Json:
    return {
        "environment": record.environment,
        "gate": record.key,
        **record.definition.to_document(),
        "approved": None if record.approval is None else record.approval.to_document(),
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }


def deployment(record: Deployment) -> Json:
    return {
        "id": record.id,
        "service": record.service,
        "version": record.version,
        "image": record.image,
        "environment": record.environment,
        "commit": record.commit,
        "url": record.url,
        "registered_at": _optional_time(record.registered_at),
        "registered_by": record.registered_by,
        "first_seen_at": _optional_time(record.first_seen_at),
        "source": record.source,
    }


def process(record: Instance) -> Json:
    """Return a process as it last reported."""
    return {
        "instance": record.instance,
        "service": record.service,
        "service_version": record.service_version,
        "applied_sequence": record.applied_sequence,
        "seen_at": format_time(record.seen_at),
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


def local_kill(record: ToldKill) -> Json:
    row = record.row
    return {
        **record.kill.to_document(),
        "reason": record.kill.reason,
        "instance": row.instance,
        "service": row.service,
        "service_version": row.service_version,
        "told_at": format_time(row.told_at),
        "standing": record.is_standing,
        "ended_at": _optional_time(row.ended_at),
        "lifted_at": _optional_time(row.lifted_at),
        "lifted_by": row.lifted_by,
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
        "expires_at": _optional_time(record.expires_at),
        "last_used_at": _optional_time(record.last_used_at),
    }


def person(record: Person) -> Json:
    """Nothing of the password is in it."""
    return {
        "name": record.name,
        "roles": roles(record),
        "must_choose_password": record.password_expires_at is not None,
        "created_at": format_time(record.created_at),
        "created_by": record.created_by,
        "disabled_at": _optional_time(record.disabled_at),
        "last_login_at": _optional_time(record.last_login_at),
    }


def roles(record: Person) -> list[Json]:
    """Return the roles with their environments; null stands for all."""
    return [dict(role) for role in roles_document(record.roles)]


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


def webhook(record: Webhook, *, is_whole: bool) -> Json:
    """The secret is left out: it is in the answer that made it, and nowhere else.

    Args:
        is_whole: whether the path of its URL is shown, which in Slack's is the secret.
    """
    return {
        "environment": record.environment,
        "key": record.key,
        "url": record.url if is_whole else parse_target(record.url).origin,
        "format": record.format,
        "events": list(record.events),
        "enabled": record.enabled,
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }


def delivery(record: Delivery) -> Json:
    return {
        "id": record.message_id,
        "kind": record.kind,
        "state": record.state,
        "attempts": record.attempts,
        "outcome": record.outcome,
        "created_at": format_time(record.created_at),
        "next_at": format_time(record.next_at) if record.state == "pending" else None,
    }
