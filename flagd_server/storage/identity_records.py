"""The records of people and their sessions in a storage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flagd_server.domain.roles import Role


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with an account. Never deleted: the audit goes on to name them.

    Attributes:
        name: by which they log in; in lower case.
        password: as argon2 encodes it, with its salt and parameters.
        password_expires_at: set where the server made the password, which then only lets its
            holder choose one of their own.
        disabled_at: since when they can't log in.
        roles: environment → role; None stands for all of them.
    """

    name: str
    password: str = field(repr=False)
    password_expires_at: datetime | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None = None
    last_login_at: datetime | None = None
    roles: Mapping[str | None, Role] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """One login of a person; it ends when it is not used for a while, and at `expires_at`.

    Attributes:
        digest: SHA-256 of the cookie.
        seen_at: when it was last used, to the minute.
    """

    digest: bytes = field(repr=False)
    person: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
