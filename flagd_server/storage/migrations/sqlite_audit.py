"""The step that chains the audit, and lets it grow at its end only."""

import json

from sqlite_utils import Database

from flagd_server.domain.audit_chain import GENESIS, link

_CHAINED = """CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    environment TEXT,
    flag TEXT,
    before_version INTEGER,
    after_version INTEGER,
    comment TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous_hash BLOB NOT NULL CHECK (length(previous_hash) = 32),
    hash BLOB NOT NULL CHECK (length(hash) = 32)
)"""
# REPLACE deletes without a trigger, so an insertion has to be at the end, too.
_AFTERWARDS = (
    """CREATE INDEX audit_by_flag ON audit (flag, id)""",
    """CREATE INDEX audit_by_environment ON audit (environment, id)""",
    """CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only: no entry changes'); END""",
    """CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only: no entry is deleted'); END""",
    """CREATE TRIGGER audit_grows_at_its_end BEFORE INSERT ON audit
    WHEN NEW.id <= coalesce((SELECT max(id) FROM audit), 0) OR NEW.previous_hash IS NOT
        coalesce((SELECT hash FROM audit ORDER BY id DESC LIMIT 1), zeroblob(32))
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only: an entry follows the last'); END""",
)
_COLUMNS = (
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


def audit_chain(db: Database) -> None:
    """Chain what is there, in its order: from here on it can't be changed unseen."""
    db.execute("ALTER TABLE audit RENAME TO audit_before")
    db.execute(_CHAINED)
    previous = GENESIS
    columns = ", ".join(_COLUMNS)
    for row in db.execute(f"SELECT {columns} FROM audit_before ORDER BY id"):  # noqa: S608 - ours
        content = dict(zip(_COLUMNS, row, strict=True))
        content["detail"] = json.loads(content["detail"])
        hash_ = link(previous, content)
        db.execute(
            f"INSERT INTO audit VALUES ({', '.join('?' * (len(row) + 2))})",  # noqa: S608 - ours
            (*row, previous, hash_),
        )
        previous = hash_
    db.execute("DROP TABLE audit_before")
    for statement in _AFTERWARDS:
        db.execute(statement)
