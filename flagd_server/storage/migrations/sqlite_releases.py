"""Steps of the SQLite schema for releasing: rollouts, gates, kills by others, and who is told."""

from sqlite_utils import Database

_LOCAL_KILLS = (
    """CREATE TABLE local_kills (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        id TEXT NOT NULL,
        instance TEXT NOT NULL,
        flag TEXT NOT NULL,
        service TEXT NOT NULL,
        service_version TEXT NOT NULL,
        document TEXT NOT NULL,
        told_at TEXT NOT NULL,
        ended_at TEXT,
        lifted_at TEXT,
        lifted_by TEXT,
        PRIMARY KEY (environment, id, instance)
    ) WITHOUT ROWID""",
    """CREATE INDEX local_kills_by_flag ON local_kills (environment, flag)""",
)


def local_kills(db: Database) -> None:
    for statement in _LOCAL_KILLS:
        db.execute(statement)


_ROLLOUTS = (
    """CREATE TABLE rollouts (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL REFERENCES flags (key) ON DELETE CASCADE,
        is_open INTEGER NOT NULL,
        version INTEGER NOT NULL,
        document TEXT NOT NULL
    )""",
    """CREATE INDEX rollouts_by_flag ON rollouts (environment, flag, number)""",
    # One flag is released by one rollout at a time, whoever starts them.
    """CREATE UNIQUE INDEX rollouts_open ON rollouts (environment, flag) WHERE is_open""",
)


def rollouts(db: Database) -> None:
    for statement in _ROLLOUTS:
        db.execute(statement)


# A mark beside the version, since a version never changes.
_HEALTHY_VERSIONS = """CREATE TABLE healthy_versions (
    environment TEXT NOT NULL,
    flag TEXT NOT NULL,
    version INTEGER NOT NULL,
    at TEXT NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (environment, flag, version),
    FOREIGN KEY (environment, flag, version)
        REFERENCES configuration_versions (environment, flag, version)
        ON DELETE CASCADE
) WITHOUT ROWID"""


def healthy_versions(db: Database) -> None:
    db.execute(_HEALTHY_VERSIONS)


# The counts go with the objective they are kept for; by minute for the fast windows and by hour for
# the slow ones.
_GATES = (
    """ALTER TABLE slos ADD COLUMN latency TEXT""",
    """ALTER TABLE slos ADD COLUMN window_days INTEGER NOT NULL DEFAULT 30""",
    """ALTER TABLE slos ADD COLUMN source TEXT""",
    """CREATE TABLE service_counts (
        environment TEXT NOT NULL,
        service TEXT NOT NULL,
        minutes INTEGER NOT NULL,
        minute INTEGER NOT NULL,
        exposures INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        measured INTEGER NOT NULL,
        slow INTEGER NOT NULL,
        PRIMARY KEY (environment, service, minutes, minute),
        FOREIGN KEY (environment, service) REFERENCES slos (environment, service) ON DELETE CASCADE
    ) WITHOUT ROWID""",
    """CREATE INDEX service_counts_by_age ON service_counts (minutes, minute)""",
    """CREATE TABLE gates (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        key TEXT NOT NULL,
        definition TEXT NOT NULL,
        version INTEGER NOT NULL,
        updated_at TEXT NOT NULL,
        PRIMARY KEY (environment, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE gate_approvals (
        environment TEXT NOT NULL,
        gate TEXT NOT NULL,
        by TEXT NOT NULL,
        at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (environment, gate),
        FOREIGN KEY (environment, gate) REFERENCES gates (environment, key) ON DELETE CASCADE
    ) WITHOUT ROWID""",
)


def gates(db: Database) -> None:
    for statement in _GATES:
        db.execute(statement)


_WEBHOOKS = (
    """CREATE TABLE webhooks (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        key TEXT NOT NULL,
        url TEXT NOT NULL,
        format TEXT NOT NULL,
        events TEXT NOT NULL,
        enabled INTEGER NOT NULL,
        secret TEXT NOT NULL,
        version INTEGER NOT NULL,
        updated_at TEXT NOT NULL,
        PRIMARY KEY (environment, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        environment TEXT NOT NULL,
        webhook TEXT NOT NULL,
        message_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        body BLOB NOT NULL,
        created_at TEXT NOT NULL,
        next_at TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        FOREIGN KEY (environment, webhook) REFERENCES webhooks (environment, key) ON DELETE CASCADE
    )""",
    """CREATE INDEX deliveries_by_webhook ON deliveries (environment, webhook, id)""",
    """CREATE INDEX deliveries_pending ON deliveries (environment, webhook, id)
       WHERE state = 'pending'""",
)


def webhooks(db: Database) -> None:
    for statement in _WEBHOOKS:
        db.execute(statement)


_HOOK_SECRETS = """
    CREATE TABLE hook_secrets (
        environment TEXT PRIMARY KEY REFERENCES environments (key) ON DELETE CASCADE,
        secret TEXT NOT NULL,
        created_at TEXT NOT NULL,
        created_by TEXT NOT NULL
    ) WITHOUT ROWID
"""


def hook_secrets(db: Database) -> None:
    db.execute(_HOOK_SECRETS)
