"""Steps of the SQLite schema for identity: tokens with selectors, people and their sessions."""

from sqlite_utils import Database

_IDENTITY = (
    """ALTER TABLE tokens ADD COLUMN selector TEXT""",
    """ALTER TABLE tokens ADD COLUMN expires_at TEXT""",
    """ALTER TABLE tokens ADD COLUMN last_used_at TEXT""",
    # Tokens made before this step have none.
    """CREATE UNIQUE INDEX tokens_by_selector ON tokens (selector) WHERE selector IS NOT NULL""",
    """CREATE TABLE people (
        name TEXT PRIMARY KEY,
        password TEXT NOT NULL,
        password_expires_at TEXT,
        created_at TEXT NOT NULL,
        created_by TEXT NOT NULL,
        disabled_at TEXT,
        last_login_at TEXT
    ) WITHOUT ROWID""",
    # No environment stands for all. With an environment its roles go, lest they hold for another
    # one that is given the same key later.
    """CREATE TABLE roles (
        person TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
        environment TEXT REFERENCES environments (key) ON DELETE CASCADE,
        role TEXT NOT NULL
    )""",
    """CREATE UNIQUE INDEX roles_by_person ON roles (person, ifnull(environment, ''))""",
    """CREATE INDEX roles_by_environment ON roles (environment)""",
    """CREATE TABLE sessions (
        digest BLOB PRIMARY KEY,
        person TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
        created_at TEXT NOT NULL,
        seen_at TEXT NOT NULL,
        expires_at TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE INDEX sessions_by_person ON sessions (person)""",
)


def identity(db: Database) -> None:
    for statement in _IDENTITY:
        db.execute(statement)
