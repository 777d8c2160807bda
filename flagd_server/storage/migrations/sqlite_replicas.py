"""The step of the SQLite schema by which several servers work as one."""

from sqlite_utils import Database

_REPLICAS = (
    # No reference to the environment: what was acknowledged is judged by whoever works it off.
    """CREATE TABLE inbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        document TEXT NOT NULL,
        at TEXT NOT NULL,
        is_set_aside INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE INDEX inbox_waiting ON inbox (number) WHERE NOT is_set_aside""",
    """CREATE TABLE blind_told (
        environment TEXT NOT NULL REFERENCES environments (key) ON DELETE CASCADE,
        flag TEXT NOT NULL,
        PRIMARY KEY (environment, flag)
    ) WITHOUT ROWID""",
)


def replicas(db: Database) -> None:
    for statement in _REPLICAS:
        db.execute(statement)
