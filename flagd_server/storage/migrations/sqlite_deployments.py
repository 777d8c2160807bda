"""The step of the SQLite schema that knows deployments, and what ran before it did."""

from sqlite_utils import Database

_DEPLOYMENTS = (
    """CREATE TABLE deployments (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        service TEXT NOT NULL,
        version TEXT NOT NULL,
        image TEXT,
        git_commit TEXT,
        url TEXT,
        registered_at TEXT,
        registered_by TEXT,
        first_seen_at TEXT,
        UNIQUE (environment, service, version)
    )""",
    """CREATE INDEX deployments_by_artefact ON deployments (service, version)""",
    """CREATE TABLE first_served (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        service TEXT NOT NULL,
        flag TEXT NOT NULL,
        version TEXT NOT NULL,
        version_seen_at TEXT NOT NULL,
        served_at TEXT NOT NULL,
        PRIMARY KEY (environment, service, flag)
    ) WITHOUT ROWID""",
)
# What is counted already tells what ran before this step: otherwise the versions of today would
# pass for having brought every flag. Releases beyond the limit are counted as "(other)".
_FILL_DEPLOYMENTS = """
    INSERT INTO deployments (id, environment, service, version, first_seen_at)
    SELECT 'dp-' || lower(hex(randomblob(8))), environment, service, service_version,
        strftime('%Y-%m-%dT%H:%M:%fZ', MIN(minute) * 60, 'unixepoch')
    FROM counts
    WHERE service NOT IN ('', '(other)') AND service_version <> '' AND exposures > 0
    GROUP BY environment, service, service_version
    ORDER BY MIN(minute), environment, service, service_version
"""
# The columns beside a MIN are those of its row (SQLite, "Bare columns in an aggregate query").
_FILL_FIRST_SERVED = """
    INSERT INTO first_served (environment, service, flag, version, version_seen_at, served_at)
    SELECT environment, service, flag, version, first_seen_at, first_seen_at FROM (
        SELECT d.environment, d.service, c.flag, d.version, d.first_seen_at, MIN(d.number)
        FROM counts AS c JOIN deployments AS d ON d.environment = c.environment
            AND d.service = c.service AND d.version = c.service_version
        WHERE c.exposures > 0 GROUP BY d.environment, d.service, c.flag
    )
"""


def deployments(db: Database) -> None:
    for statement in (*_DEPLOYMENTS, _FILL_DEPLOYMENTS, _FILL_FIRST_SERVED):
        db.execute(statement)
