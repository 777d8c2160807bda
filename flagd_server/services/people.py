"""People with local accounts: who they are, what they may do, and their passwords.

A password that the server makes is shown once to whoever asked for it, lasts three days and lets
its holder do no more than choose one that nobody else knows.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flagd_server.domain.faults import Fault
from flagd_server.domain.passwords import ONE_TIME_BYTES, password_faults
from flagd_server.domain.roles import Role
from flagd_server.domain.times import format_time
from flagd_server.domain.token_text import PERSON_PREFIX
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.login_throttle import LoginThrottle
from flagd_server.services.password_hashes import PasswordHashes
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.identity_records import Person

ONE_TIME_PASSWORD_LASTS = timedelta(days=3)

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A person with the password that was made for them, which can't be had again."""

    person: Person
    password: str


class People:
    """Adds and changes people. Sessions end with what they rest on."""

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        hashes: PasswordHashes,
        throttle: LoginThrottle,
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._hashes = hashes
        self._throttle = throttle

    def list(self) -> list[Person]:
        """Return everybody, disabled ones too, by name."""
        with self._storage.read() as reader:
            return reader.people()

    def get(self, name: str) -> Person:
        """Return one, or raise NotFoundError."""
        with self._storage.read() as reader:
            return require_person(reader, name)

    def add(self, name: str, roles: Mapping[str | None, Role], *, actor: str) -> NewPassword:
        """Add a person with a one-time password.

        Raises:
            ConflictError: there is someone of that name.
            InvalidError: with every fault.
        """
        password = secrets.token_urlsafe(ONE_TIME_BYTES)
        encoded = self._hashes.make(password)
        with self._storage.transaction() as tx:
            faults = _role_faults(tx, roles)
            if _NAME.fullmatch(name) is None:
                faults.append(
                    Fault("name", "expected 1 to 128 of a-z 0-9 . _ @ + -, a letter or digit first")
                )
            if faults:
                raise InvalidError(faults)
            if tx.person(name) is not None:
                raise ConflictError(f"there is a person {name!r} already")
            now = self._now()
            person = Person(
                name=name,
                password=encoded,
                password_expires_at=now + ONE_TIME_PASSWORD_LASTS,
                created_at=now,
                created_by=actor,
                roles=roles,
            )
            tx.put_person(person)
            self._record(tx, "person.add", person, actor, {"roles": roles_document(roles)})
        return NewPassword(person, password)

    def change(
        self,
        name: str,
        *,
        roles: Mapping[str | None, Role] | None = None,
        disabled: bool | None = None,
        actor: str,
    ) -> Person:
        """Give other roles, from the next request on, or disable, which ends all sessions.

        Raises:
            NotFoundError: there is no such person.
            InvalidError: a role is for an environment that is not there.
        """
        with self._storage.transaction() as tx:
            before = require_person(tx, name)
            after = before
            if roles is not None:
                faults = _role_faults(tx, roles)
                if faults:
                    raise InvalidError(faults)
                after = replace(after, roles=roles)
            if disabled is not None and disabled is not (before.disabled_at is not None):
                after = replace(after, disabled_at=self._now() if disabled else None)
            if after == before:
                return before
            tx.put_person(after)
            if after.disabled_at is not None:
                tx.delete_sessions_of(name)
            detail = {
                "before": roles_document(before.roles),
                "after": roles_document(after.roles),
                "disabled": after.disabled_at is not None,
            }
            self._record(tx, "person.change", after, actor, detail)
            return after

    def reset_password(self, name: str, *, actor: str) -> NewPassword:
        """Make a one-time password, which ends the one before and all sessions.

        Raises:
            NotFoundError: there is no such person.
        """
        password = secrets.token_urlsafe(ONE_TIME_BYTES)
        encoded = self._hashes.make(password)
        with self._storage.transaction() as tx:
            present = require_person(tx, name)
            expires_at = self._now() + ONE_TIME_PASSWORD_LASTS
            person = replace(present, password=encoded, password_expires_at=expires_at)
            tx.put_person(person)
            tx.delete_sessions_of(name)
            self._record(tx, "person.reset_password", person, actor)
        return NewPassword(person, password)

    def choose_password(self, name: str, current: str, new: str, *, address: str) -> Person:
        """Take the password that a person has chosen; all of their sessions end.

        Raises:
            NotFoundError: there is no such person.
            InvalidError: the current one is wrong, or the new one won't do.
            TooManyRequestsError: too many attempts failed.
        """
        present = self.get(name)
        # Whoever has found an open session could try the password here.
        attempt = self._throttle.begin(name, address, is_known_device=True)
        if not self._hashes.is_right(present.password, current):
            raise InvalidError([Fault("current_password", "is not your password")])
        attempt.succeed()
        faults = password_faults("new_password", new, name)
        if new == current:
            faults.append(Fault("new_password", "expected another one than before"))
        if faults:
            raise InvalidError(faults)
        encoded = self._hashes.make(new)
        with self._storage.transaction() as tx:
            latest = require_person(tx, name)
            if latest.password != present.password:
                raise ConflictError("the password was changed meanwhile")
            person = replace(latest, password=encoded, password_expires_at=None)
            tx.put_person(person)
            tx.delete_sessions_of(name)
            self._record(tx, "person.choose_password", person, actor_of(person))
        return person

    def _now(self) -> datetime:
        return self._publisher.clock.now()

    def _record(
        self,
        tx: Transaction,
        action: str,
        person: Person,
        actor: str,
        detail: dict[str, Any] | None = None,
    ) -> None:
        self._publisher.record(
            tx, actor=actor, action=action, target=actor_of(person), detail=detail
        )


def actor_of(person: Person) -> str:
    """Return how the person is called in the audit and in kills; no token is called so."""
    return PERSON_PREFIX + person.name


def require_person(reader: Reader, name: str) -> Person:
    """Return the person, or raise NotFoundError."""
    found = reader.person(name)
    if found is None:
        raise NotFoundError("person", name)
    return found


def roles_document(roles: Mapping[str | None, Role]) -> list[dict[str, str | None]]:
    """Return roles as JSON, those for everywhere first."""
    return [
        {"environment": environment, "role": roles[environment].value}
        for environment in sorted(roles, key=lambda key: key or "")
    ]


def describe(person: Person) -> str:
    """Return the person's state in a word."""
    if person.disabled_at is not None:
        return f"disabled {format_time(person.disabled_at)}"
    return "active" if person.password_expires_at is None else "one-time password"


def _role_faults(reader: Reader, roles: Mapping[str | None, Role]) -> list[Fault]:
    return [
        Fault("roles", f"there is no environment {environment!r}")
        for environment in roles
        if environment is not None and reader.environment(environment) is None
    ]
