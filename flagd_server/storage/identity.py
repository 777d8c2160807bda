"""The part of a storage's contract that is about tokens, people and sessions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from flagd_server.storage.identity_records import Person, Session
from flagd_server.storage.records import Token


class IdentityReader(Protocol):
    """See `base.Reader`."""

    def tokens(self) -> list[Token]:
        """Return every token, revoked ones too, oldest first."""
        ...

    def token(self, token_id: str) -> Token | None: ...
    def people(self) -> list[Person]:
        """Return everybody, disabled ones too, by name."""
        ...

    def person(self, name: str) -> Person | None: ...
    def session(self, digest: bytes) -> Session | None: ...


class IdentityWriter(Protocol):
    """See `base.Transaction`."""

    def insert_token(self, token: Token) -> None: ...
    def revoke_token(self, token_id: str, revoked_at: datetime) -> None: ...
    def note_token_uses(self, uses: Mapping[str, datetime]) -> None:
        """Note when tokens were last used, by id. An earlier use than is known changes nothing,
        and the generation of tokens stays."""
        ...

    def put_person(self, person: Person) -> None:
        """Store the person, new or known, with these roles and no others.

        Raises:
            StorageError: a role is for an environment that is not there.
        """
        ...

    def insert_session(self, session: Session) -> None: ...
    def note_session_uses(self, uses: Mapping[bytes, datetime]) -> None:
        """Note when sessions were last used, by digest; one that has ended stays so."""
        ...

    def delete_session(self, digest: bytes) -> None: ...
    def delete_sessions_of(self, person: str) -> None: ...
    def delete_dead_sessions(self, now: datetime, unused_since: datetime) -> None:
        """Delete those that have expired by now, and those not used since then."""
        ...
