"""Tokens, people and sessions in the SQLite database. See `storage.identity`."""

from collections.abc import Mapping
from datetime import datetime

from flagd_server.domain.roles import Role
from flagd_server.domain.times import format_time
from flagd_server.storage import rows as convert
from flagd_server.storage.identity_records import Person, Session
from flagd_server.storage.records import Token
from flagd_server.storage.rows import first
from flagd_server.storage.sqlite_rows import SqliteRows


class IdentityReader(SqliteRows):
    """See `storage.identity`."""

    def tokens(self) -> list[Token]:
        return [convert.token(row) for row in self._rows("SELECT * FROM tokens ORDER BY rowid")]

    def token(self, token_id: str) -> Token | None:
        return first(convert.token, self._rows("SELECT * FROM tokens WHERE id = ?", [token_id]))

    def people(self) -> list[Person]:
        return [
            convert.person(row, self._roles(row["name"]))
            for row in self._rows("SELECT * FROM people ORDER BY name")
        ]

    def person(self, name: str) -> Person | None:
        rows = self._rows("SELECT * FROM people WHERE name = ?", [name])
        return convert.person(rows[0], self._roles(name)) if rows else None

    def session(self, digest: bytes) -> Session | None:
        rows = self._rows("SELECT * FROM sessions WHERE digest = ?", [digest])
        return first(convert.session, rows)

    def _roles(self, person: str) -> dict[str | None, Role]:
        rows = self._rows("SELECT environment, role FROM roles WHERE person = ?", [person])
        return {row["environment"]: Role(row["role"]) for row in rows}


class IdentityWriter(SqliteRows):
    """See `storage.identity`."""

    def insert_token(self, token: Token) -> None:
        self._table("tokens").insert(convert.token_row(token))
        self._touch_tokens()

    def revoke_token(self, token_id: str, revoked_at: datetime) -> None:
        self._table("tokens").update(token_id, {"revoked_at": format_time(revoked_at)})
        self._touch_tokens()

    def note_token_uses(self, uses: Mapping[str, datetime]) -> None:
        self._db.conn.executemany(
            "UPDATE tokens SET last_used_at = max(ifnull(last_used_at, ''), ?) WHERE id = ?",
            [(format_time(at), token_id) for token_id, at in uses.items()],
        )

    def put_person(self, person: Person) -> None:
        self._table("people").upsert(convert.person_row(person), pk="name")
        self._db.execute("DELETE FROM roles WHERE person = ?", (person.name,))
        self._db.conn.executemany(
            "INSERT INTO roles (person, environment, role) VALUES (?, ?, ?)",
            [(person.name, place, role.value) for place, role in person.roles.items()],
        )

    def insert_session(self, session: Session) -> None:
        self._table("sessions").insert(convert.session_row(session))

    def note_session_uses(self, uses: Mapping[bytes, datetime]) -> None:
        self._db.conn.executemany(
            "UPDATE sessions SET seen_at = max(seen_at, ?) WHERE digest = ?",
            [(format_time(at), digest) for digest, at in uses.items()],
        )

    def delete_session(self, digest: bytes) -> None:
        self._db.execute("DELETE FROM sessions WHERE digest = ?", (digest,))

    def delete_sessions_of(self, person: str) -> None:
        self._db.execute("DELETE FROM sessions WHERE person = ?", (person,))

    def delete_dead_sessions(self, now: datetime, unused_since: datetime) -> None:
        self._db.execute(
            "DELETE FROM sessions WHERE expires_at <= ? OR seen_at < ?",
            (format_time(now), format_time(unused_since)),
        )

    def _touch_tokens(self) -> None:
        self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'token_generation'")
