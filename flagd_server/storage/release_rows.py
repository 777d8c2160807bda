"""Records of releasing to rows and back, as both databases hold them."""

import json
from dataclasses import asdict
from typing import Any

from flagd_server.domain.gates import Approval, GateDefinition
from flagd_server.domain.times import format_time, parse_time
from flagd_server.storage.release_records import (
    Delivery,
    Deployment,
    FirstServed,
    Gate,
    HookSecret,
    RolloutRecord,
    Webhook,
)
from flagd_server.storage.rows import Row, optional_text, optional_time


def webhook(row: Row) -> Webhook:
    return Webhook(
        **{
            **row,
            "events": tuple(json.loads(row["events"])),
            "enabled": bool(row["enabled"]),
            "updated_at": parse_time(row["updated_at"]),
        }
    )


def webhook_row(record: Webhook) -> dict[str, Any]:
    return asdict(record) | {
        "events": json.dumps(record.events),
        "updated_at": format_time(record.updated_at),
    }


def hook_secret(row: Row) -> HookSecret:
    return HookSecret(**{**row, "created_at": parse_time(row["created_at"])})


def hook_secret_row(record: HookSecret) -> dict[str, Any]:
    return asdict(record) | {"created_at": format_time(record.created_at)}


def delivery(row: Row) -> Delivery:
    times = {name: parse_time(row[name]) for name in ("created_at", "next_at")}
    return Delivery(**{**row, **times})


def delivery_row(record: Delivery) -> dict[str, Any]:
    """Return the row without its id, which the database gives out."""
    row = asdict(record) | {
        "created_at": format_time(record.created_at),
        "next_at": format_time(record.next_at),
    }
    del row["id"]
    return row


def rollout(row: Row) -> RolloutRecord:
    fields = {name: value for name, value in row.items() if name != "number"}
    return RolloutRecord(**{**fields, "is_open": bool(row["is_open"])})


def deployment(row: Row) -> Deployment:
    times = {name: optional_time(row[name]) for name in ("registered_at", "first_seen_at")}
    return Deployment(**{**row, **times})


def deployment_row(record: Deployment) -> dict[str, Any]:
    """Return the row without its number, which the database gives out.

    Its commit is `git_commit` there: the other is a word of SQL.
    """
    row = asdict(record) | {
        "git_commit": record.commit,
        "registered_at": optional_text(record.registered_at),
        "first_seen_at": optional_text(record.first_seen_at),
    }
    del row["number"], row["commit"]
    return row


def first_served(row: Row) -> FirstServed:
    times = {name: parse_time(row[name]) for name in ("version_seen_at", "served_at")}
    return FirstServed(**{**row, **times})


def first_served_row(record: FirstServed) -> dict[str, Any]:
    return asdict(record) | {
        "version_seen_at": format_time(record.version_seen_at),
        "served_at": format_time(record.served_at),
    }


def gate(row: Row) -> Gate:
    """Return a gate from its row with that of its approval, whose columns are NULL without one."""
    return Gate(
        environment=row["environment"],
        key=row["key"],
        definition=GateDefinition.from_document(json.loads(row["definition"])),
        version=row["version"],
        updated_at=parse_time(row["updated_at"]),
        approval=None
        if row["at"] is None
        else Approval(
            row["by"], parse_time(row["at"]), parse_time(row["expires_at"]), row["reason"]
        ),
    )


def gate_row(record: Gate) -> dict[str, Any]:
    """Return the row of the gate itself; its approval has one of its own."""
    return {
        "environment": record.environment,
        "key": record.key,
        "definition": json.dumps(record.definition.to_document()),
        "version": record.version,
        "updated_at": format_time(record.updated_at),
    }
