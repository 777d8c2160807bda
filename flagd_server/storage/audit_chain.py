"""Rows of the audit, as both databases hold them: an entry, and what chains it to the last."""

import json
from typing import Any

from flagd_server.domain.audit_chain import GENESIS, Head, Link, link
from flagd_server.storage.records import AuditEntry
from flagd_server.storage.rows import Row, audit_row

NO_ENTRY = Head(0, GENESIS)
COVERED = (
    "id",
    "at",
    "actor",
    "action",
    "target",
    "environment",
    "flag",
    "before_version",
    "after_version",
    "comment",
    "detail",
)
"""The columns of an entry; its hash covers all of them."""


def chained_row(head: Head, entry: AuditEntry) -> dict[str, Any]:
    """Return the row of the entry that follows the head."""
    row = {**audit_row(entry), "id": head.id + 1}
    return {**row, "previous_hash": head.hash, "hash": link(head.hash, _content(row))}


def link_of(row: Row) -> Link:
    """Return an entry with its hashes as they stand in a row."""
    return Link(row["id"], _content(row), bytes(row["previous_hash"]), bytes(row["hash"]))


def _content(row: Row) -> dict[str, Any]:
    # What can be read of the detail, however it is spelled.
    return {name: row[name] for name in COVERED} | {"detail": json.loads(row["detail"])}
