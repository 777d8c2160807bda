"""Tokens, people and sessions in the Postgres database. See `storage.identity`."""

from collections.abc import Mapping
from datetime import datetime

from flagd_server.domain.roles import Role
from flagd_server.domain.times import format_time
from flagd_server.storage import rows as convert
from flagd_server.storage.identity_records import Person, Session
from flagd_server.storage.postgres_rows import PostgresRows, PostgresTable, select
from flagd_server.storage.records import Token
from flagd_server.storage.rows import first

_TOKENS = select(Token, "tokens")
_SESSIONS = select(Session, "sessions")
_PEOPLE = (
    "SELECT name, password, password_expires_at, created_at, created_by, disabled_at,"
    " last_login_at FROM people"
)


class IdentityReader(PostgresRows):
    """See `storage.identity`."""

    def tokens(self) -> list[Token]:
        return [convert.token(row) for row in self._rows(f"{_TOKENS} ORDER BY number")]

    def token(self, token_id: str) -> Token | None:
        return first(convert.token, self._rows(f"{_TOKENS} WHERE id = %s", [token_id]))

    def people(self) -> list[Person]:
        return [
            convert.person(row, self._roles(row["name"]))
            for row in self._rows(f"{_PEOPLE} ORDER BY name")
        ]

    def person(self, name: str) -> Person | None:
        rows = self._rows(f"{_PEOPLE} WHERE name = %s", [name])
        return convert.person(rows[0], self._roles(name)) if rows else None

    def session(self, digest: bytes) -> Session | None:
        return first(convert.session, self._rows(f"{_SESSIONS} WHERE digest = %s", [digest]))

    def _roles(self, person: str) -> dict[str | None, Role]:
        rows = self._rows("SELECT environment, role FROM roles WHERE person = %s", [person])
        return {row["environment"]: Role(row["role"]) for row in rows}


class IdentityWriter(PostgresTable):
    """See `storage.identity`."""

    def insert_token(self, token: Token) -> None:
        self._insert("tokens", convert.token_row(token))
        self._touch_tokens()

    def revoke_token(self, token_id: str, revoked_at: datetime) -> None:
        self._update("tokens", {"id": token_id}, {"revoked_at": format_time(revoked_at)})
        self._touch_tokens()

    def note_token_uses(self, uses: Mapping[str, datetime]) -> None:
        for token_id, at in uses.items():
            self._run(
                "UPDATE tokens SET last_used_at = greatest(last_used_at, %s) WHERE id = %s",
                [format_time(at), token_id],
            )

    def put_person(self, person: Person) -> None:
        self._upsert("people", convert.person_row(person), ("name",))
        self._delete("roles", person=person.name)
        for place, role in person.roles.items():
            self._insert("roles", {"person": person.name, "environment": place, "role": role.value})

    def insert_session(self, session: Session) -> None:
        self._insert("sessions", convert.session_row(session))

    def note_session_uses(self, uses: Mapping[bytes, datetime]) -> None:
        for digest, at in uses.items():
            self._run(
                "UPDATE sessions SET seen_at = greatest(seen_at, %s) WHERE digest = %s",
                [format_time(at), digest],
            )

    def delete_session(self, digest: bytes) -> None:
        self._delete("sessions", digest=digest)

    def delete_sessions_of(self, person: str) -> None:
        self._delete("sessions", person=person)

    def delete_dead_sessions(self, now: datetime, unused_since: datetime) -> None:
        self._run(
            "DELETE FROM sessions WHERE expires_at <= %s OR seen_at < %s",
            [format_time(now), format_time(unused_since)],
        )

    def _touch_tokens(self) -> None:
        self._run("UPDATE meta SET value = value + 1 WHERE name = 'token_generation'")
