"""The schema of the Postgres database: all steps, and how a database is brought up to date.

A step that has been released is never edited; a change is a new step after it, and bears the name
of the SQLite step that does the same. All pending steps are applied, and recorded, in one
transaction, by one server at a time.

Servers of the version before may still be at work meanwhile: a step adds what they need not know,
and takes nothing from them.
"""

from flagd_server.errors import SchemaError
from flagd_server.storage.migrations import (
    postgres_audit,
    postgres_identity,
    postgres_replicas,
    postgres_schema,
)
from flagd_server.storage.postgres_connections import SCHEMA_LOCK, Connection

STEPS: dict[str, tuple[str, ...]] = {
    "0001_schema": postgres_schema.STATEMENTS,
    "0013_audit_chain": postgres_audit.STATEMENTS,
    "0014_identity": postgres_identity.STATEMENTS,
    "0015_replicas": postgres_replicas.STATEMENTS,
}
"""Every step this server knows, oldest first. A database that records another one is newer."""

_CREATE_RECORD = (
    "CREATE TABLE schema_steps ("
    "number bigint GENERATED ALWAYS AS IDENTITY, name text PRIMARY KEY,"
    " applied_at timestamptz NOT NULL DEFAULT now())"
)


def bring_up_to_date(connection: Connection, database: str) -> None:
    """Apply the steps that the database lacks: all of them, or none.

    Args:
        database: what it is called in messages.

    Raises:
        SchemaError: it is of something else, or of a newer server. Nothing was changed.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA_LOCK])
        applied = _applied(connection, database)
        if applied is None:
            connection.execute(_CREATE_RECORD)
        for name in _pending(applied):
            for statement in STEPS[name]:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_steps (name) VALUES (%s)", [name])


def require_current(connection: Connection, database: str) -> None:
    """Return if the database has this server's schema.

    Raises:
        SchemaError: it is of something else, or of another version.
    """
    pending = pending_steps(connection, database)
    if pending:
        raise SchemaError(
            f"{database} was written by an older server (it lacks step {pending[0]}): "
            "start this one on it first"
        )


def pending_steps(connection: Connection, database: str) -> list[str]:
    """Return the steps that the database lacks, oldest first.

    Raises:
        SchemaError: it is of something else, or of a newer server.
    """
    return _pending(_applied(connection, database))


def _pending(applied: list[str] | None) -> list[str]:
    return [name for name in STEPS if name not in (applied or ())]


def _applied(connection: Connection, database: str) -> list[str] | None:
    """Return the steps that are recorded; None where the database is empty."""
    tables = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    ).fetchall()
    if not tables:
        return None
    if not any(row["tablename"] == "schema_steps" for row in tables):
        raise SchemaError(f"{database} is a database of something else")
    rows = connection.execute("SELECT name FROM schema_steps ORDER BY number").fetchall()
    applied = [str(row["name"]) for row in rows]
    newer = [name for name in applied if name not in STEPS]
    if newer:
        raise SchemaError(f"{database} was written by a newer server (it has step {newer[-1]})")
    return applied
