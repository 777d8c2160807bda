"""The step of the Postgres schema for identity: tokens with selectors, people and sessions."""

_TEXT = 'text COLLATE "C"'

STATEMENTS = (
    f"""ALTER TABLE tokens
        ADD COLUMN selector {_TEXT} UNIQUE,
        ADD COLUMN expires_at {_TEXT},
        ADD COLUMN last_used_at {_TEXT}
    """,
    f"""CREATE TABLE people (
        name {_TEXT} PRIMARY KEY,
        password {_TEXT} NOT NULL,
        password_expires_at {_TEXT},
        created_at {_TEXT} NOT NULL,
        created_by {_TEXT} NOT NULL,
        disabled_at {_TEXT},
        last_login_at {_TEXT}
    )""",
    # No environment stands for all. With an environment its roles go, lest they hold for another
    # one that is given the same key later.
    f"""CREATE TABLE roles (
        person {_TEXT} NOT NULL REFERENCES people (name) ON DELETE CASCADE,
        environment {_TEXT} REFERENCES environments (key) ON DELETE CASCADE,
        role {_TEXT} NOT NULL
    )""",
    """CREATE UNIQUE INDEX roles_by_person ON roles (person, coalesce(environment, ''))""",
    """CREATE INDEX roles_by_environment ON roles (environment)""",
    f"""CREATE TABLE sessions (
        digest bytea PRIMARY KEY,
        person {_TEXT} NOT NULL REFERENCES people (name) ON DELETE CASCADE,
        created_at {_TEXT} NOT NULL,
        seen_at {_TEXT} NOT NULL,
        expires_at {_TEXT} NOT NULL
    )""",
    """CREATE INDEX sessions_by_person ON sessions (person)""",
)
