"""The schema of the SQLite database: the table of all steps, and those that laid the ground.

The others are in the modules beside it, by area. A step that has been released is never edited; a
change is a new step after it. All pending steps are applied, and recorded, in one transaction.
"""

import json

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from flagd_server.storage.migrations import (
    sqlite_audit,
    sqlite_deployments,
    sqlite_identity,
    sqlite_releases,
    sqlite_replicas,
)

# Counts and kinds have the empty text where a cell had no split: NULLs are never equal, so that
# they could not be part of a key.
_INITIAL = (
    """CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)""",
    """INSERT INTO meta (name, value) VALUES ('token_generation', 0)""",
    """CREATE TABLE environments (
        key TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        unit_key BLOB NOT NULL CHECK (length(unit_key) = 16),
        sequence INTEGER NOT NULL,
        created_at TEXT NOT NULL
    )""",
    """CREATE TABLE flags (
        key TEXT PRIMARY KEY,
        type TEXT NOT NULL,
        variants TEXT NOT NULL,
        description TEXT NOT NULL,
        owner TEXT NOT NULL,
        tags TEXT NOT NULL,
        lifetime TEXT NOT NULL,
        expires_at TEXT,
        archived INTEGER NOT NULL,
        version INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    )""",
    """CREATE TABLE configuration_versions (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL REFERENCES flags (key),
        version INTEGER NOT NULL,
        configuration TEXT NOT NULL,
        variants TEXT NOT NULL,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        comment TEXT NOT NULL,
        PRIMARY KEY (environment, flag, version)
    )""",
    # The content stands once, in its version: current state and history can't disagree.
    """CREATE TABLE configurations (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (environment, flag),
        FOREIGN KEY (environment, flag, version)
            REFERENCES configuration_versions (environment, flag, version)
            ON DELETE CASCADE
    ) WITHOUT ROWID""",
    """CREATE INDEX configurations_by_flag ON configurations (flag)""",
    """CREATE INDEX configuration_versions_by_flag ON configuration_versions (flag)""",
    """CREATE TABLE segments (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        key TEXT NOT NULL,
        condition TEXT NOT NULL,
        description TEXT NOT NULL,
        version INTEGER NOT NULL,
        updated_at TEXT NOT NULL,
        PRIMARY KEY (environment, key)
    )""",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        environment TEXT,
        flag TEXT,
        before_version INTEGER,
        after_version INTEGER,
        comment TEXT NOT NULL,
        detail TEXT NOT NULL
    )""",
    """CREATE INDEX audit_by_flag ON audit (flag, id)""",
    """CREATE INDEX audit_by_environment ON audit (environment, id)""",
    # No reference to the environment: what a token was for stays known after it is gone.
    """CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        scope TEXT NOT NULL,
        environment TEXT,
        kind TEXT NOT NULL,
        prefix TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        created_at TEXT NOT NULL,
        created_by TEXT NOT NULL,
        revoked_at TEXT
    )""",
    """CREATE TABLE instances (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        instance TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        service TEXT NOT NULL,
        service_version TEXT NOT NULL,
        applied_sequence INTEGER NOT NULL,
        seen_at TEXT NOT NULL,
        PRIMARY KEY (environment, instance)
    ) WITHOUT ROWID""",
    """CREATE TABLE counts (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL,
        minute INTEGER NOT NULL,
        split TEXT NOT NULL,
        variant TEXT NOT NULL,
        config_version INTEGER NOT NULL,
        service TEXT NOT NULL,
        service_version TEXT NOT NULL,
        exposures INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        latency TEXT NOT NULL,
        PRIMARY KEY (
            environment, flag, minute, split, variant, config_version, service, service_version
        )
    ) WITHOUT ROWID""",
    """CREATE INDEX counts_by_minute ON counts (minute)""",
    """CREATE TABLE error_kinds (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL,
        variant TEXT NOT NULL,
        kind TEXT NOT NULL,
        place TEXT NOT NULL,
        count INTEGER NOT NULL,
        sample TEXT NOT NULL,
        seen_at INTEGER NOT NULL,
        UNIQUE (environment, flag, variant, kind, place)
    )""",
    """CREATE TABLE guard_lives (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL,
        document TEXT NOT NULL,
        ended_at TEXT,
        outcome TEXT
    )""",
    """CREATE INDEX guard_lives_by_environment ON guard_lives (environment)""",
    """CREATE INDEX guard_lives_running ON guard_lives (id) WHERE ended_at IS NULL""",
    """CREATE TABLE guard_events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        life_id INTEGER NOT NULL REFERENCES guard_lives (id) ON DELETE CASCADE,
        at REAL NOT NULL,
        has_units INTEGER NOT NULL,
        document TEXT NOT NULL
    )""",
    """CREATE INDEX guard_events_by_life ON guard_events (life_id, id)""",
    """CREATE INDEX guard_events_unitless ON guard_events (life_id, id) WHERE NOT has_units""",
    """CREATE TABLE guard_states (
        life_id INTEGER PRIMARY KEY REFERENCES guard_lives (id) ON DELETE CASCADE,
        event_id INTEGER NOT NULL,
        document TEXT NOT NULL
    )""",
    """CREATE TABLE evidence (
        id TEXT PRIMARY KEY,
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL,
        at TEXT NOT NULL,
        document TEXT NOT NULL
    )""",
    """CREATE INDEX evidence_by_flag ON evidence (environment, flag, at)""",
)


def _initial(db: Database) -> None:
    for statement in _INITIAL:
        db.execute(statement)


_SLOS = """CREATE TABLE slos (
    environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
    service TEXT NOT NULL,
    availability REAL NOT NULL,
    version INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (environment, service)
) WITHOUT ROWID"""


def _slos(db: Database) -> None:
    db.execute(_SLOS)


# A report never changes: what becomes known after it was written is a note on it.
_EVIDENCE_NOTES = """CREATE TABLE evidence_notes (
    evidence_id TEXT NOT NULL REFERENCES evidence (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    window_s INTEGER NOT NULL,
    at TEXT NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (evidence_id, kind, window_s)
)"""


def _evidence_notes(db: Database) -> None:
    db.execute(_EVIDENCE_NOTES)


_BRAKES = """CREATE TABLE brakes (
    environment TEXT PRIMARY KEY REFERENCES environments (key) ON DELETE CASCADE,
    engaged_at TEXT NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID"""
# What a policy of before this step does not say. Written out: a step never changes, whatever
# becomes of the defaults.
_POLICY_FIELDS_0004 = {
    "guards": ["error_rate", "latency", "availability"],
    "slow": ["p99"],
    "on_breach": "kill",
    "on_burn": "hold",
    "harm_budget": None,
}


def _guard_state(db: Database) -> None:
    """Make room for the brake; policies say everything; lives of the old form end, new ones start.

    The state of a running life has another form now. Its events would give other bits, so the
    flag is guarded anew from here, as after a change of the policy.
    """
    db.execute(_BRAKES)
    rows = list(db.query("SELECT rowid AS id, configuration FROM configuration_versions"))
    for row in rows:
        configuration = json.loads(row["configuration"])
        configuration["guard"] = {**_POLICY_FIELDS_0004, **configuration["guard"]}
        db.execute(
            "UPDATE configuration_versions SET configuration = ? WHERE rowid = ?",
            (json.dumps(configuration), row["id"]),
        )
    db.execute(
        "UPDATE guard_lives SET outcome = 'upgrade',"
        " ended_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE ended_at IS NULL"
    )
    db.execute("DELETE FROM guard_states")


# Apart from the counts, which hold what client-kind tokens report too, and which no longer say what
# the control was.
_CONTROL_LATENCIES = (
    """CREATE TABLE control_latencies (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        minute INTEGER NOT NULL,
        service TEXT NOT NULL,
        latency TEXT NOT NULL,
        PRIMARY KEY (environment, minute, service)
    ) WITHOUT ROWID""",
    """CREATE INDEX control_latencies_by_minute ON control_latencies (minute)""",
)


def _control_latencies(db: Database) -> None:
    for statement in _CONTROL_LATENCIES:
        db.execute(statement)


STEPS = {
    "0001_initial": _initial,
    "0002_slos": _slos,
    "0003_evidence_notes": _evidence_notes,
    "0004_guard_state": _guard_state,
    "0005_control_latencies": _control_latencies,
    "0006_local_kills": sqlite_releases.local_kills,
    "0007_rollouts": sqlite_releases.rollouts,
    "0008_healthy_versions": sqlite_releases.healthy_versions,
    "0009_deployments": sqlite_deployments.deployments,
    "0010_gates": sqlite_releases.gates,
    "0011_webhooks": sqlite_releases.webhooks,
    "0012_hook_secrets": sqlite_releases.hook_secrets,
    "0013_audit_chain": sqlite_audit.audit_chain,
    "0014_identity": sqlite_identity.identity,
    "0015_replicas": sqlite_replicas.replicas,
}
"""Every step this server knows, oldest first. A database that records another one is newer."""

MIGRATIONS = Migrations("flagd_server")
for _name, _step in STEPS.items():
    MIGRATIONS(name=_name)(_step)
