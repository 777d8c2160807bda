"""Every kind of caller that there can be: what it sends, and what it is."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flagd_server.domain.roles import Role
from flagd_server.domain.token_text import ENVIRONMENT_SCOPES, KINDS, SCOPES
from flagd_server.services.sessions import IDLE, LASTS, csrf_token, digest_of
from flagd_server.services.tokens import CreatedToken, Tokens
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.identity_records import Person, Session
from tests.server.services.guarded_world import FakeClock

RIGHT, WRONG = "production", "staging"
"""The environment that the requests are about, and another one."""
PLACES = {"right": RIGHT, "wrong": WRONG, "everywhere": None}


@dataclass(frozen=True)
class Caller:
    """Attributes:
    headers: what it sends to be known by.
    scope: of its token; None where it has none that opens anything.
    environment: of its token.
    roles: of the person; None where it is not one.
    is_safe: whether its changes carry what no other site's page could send.
    is_new: whether the person has yet to choose a password.
    """

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    scope: str | None = None
    environment: str | None = None
    roles: Mapping[str | None, Role] | None = None
    is_safe: bool = True
    is_new: bool = False


def every_caller(storage: Storage, clock: FakeClock) -> list[Caller]:
    """Make them all in one transaction; afterwards the clock is an hour ahead."""
    with storage.transaction() as tx:
        maker = _Maker(tx, Tokens(storage, clock), clock)
        return [*_strangers(maker), *_tokens(maker), *_people(maker)]


@dataclass(frozen=True)
class _Maker:
    tx: Transaction
    tokens: Tokens
    clock: FakeClock

    def token(
        self,
        scope: str,
        name: str,
        place: str | None = None,
        kind: str = "server",
        expires_at: datetime | None = None,
    ) -> CreatedToken:
        return self.tokens.create_in(
            self.tx, scope, name, place, kind, actor="test", expires_at=expires_at
        )

    def session(
        self,
        name: str,
        roles: Mapping[str | None, Role],
        *,
        has_chosen: bool = True,
        is_disabled: bool = False,
    ) -> dict[str, str]:
        """Return what a page sends in a new session of a new person."""
        now = self.clock.now()
        person = Person(
            name=name,
            password="of no use here",
            password_expires_at=None if has_chosen else now + timedelta(days=1),
            created_at=now,
            created_by="test",
            disabled_at=now if is_disabled else None,
            roles=roles,
        )
        cookie = secrets.token_urlsafe(32)
        self.tx.put_person(person)
        self.tx.insert_session(Session(digest_of(cookie), name, now, now, now + LASTS))
        return {"Cookie": f"__Host-flagd_session={cookie}", "X-Flagd-CSRF": csrf_token(cookie)}


def _bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def _strangers(make: _Maker) -> list[Caller]:
    revoked = make.token("admin", "revoked")
    make.tx.revoke_token(revoked.token.id, make.clock.now())
    selector = make.token("admin", "guessed").text.partition(".")[0]
    ends_soon = make.clock.now() + timedelta(seconds=1)
    expired = make.token("admin", "expired", expires_at=ends_soon)
    idle = make.session("idle", {None: Role.ADMIN})
    make.clock.forward(IDLE.total_seconds())
    return [
        Caller("nobody"),
        Caller("garbage", _bearer("garbage")),
        Caller("another scheme", {"Authorization": "Basic YTpi"}),
        Caller("known selector, another secret", _bearer(f"{selector}.{'x' * 43}")),
        Caller("revoked token", _bearer(revoked.text)),
        Caller("expired token", _bearer(expired.text)),
        Caller("made-up session", {"Cookie": f"__Host-flagd_session={'x' * 43}"}),
        Caller("session of plain HTTP", {"Cookie": f"flagd_session={'x' * 43}"}),
        Caller("session that was idle too long", idle),
        Caller(
            "session of a closed account",
            make.session("closed", {None: Role.ADMIN}, is_disabled=True),
        ),
    ]


def _tokens(make: _Maker) -> list[Caller]:
    callers = []
    for scope in SCOPES:
        for place in (RIGHT, WRONG) if scope in ENVIRONMENT_SCOPES else (None,):
            for kind in KINDS if place is not None else ("server",):
                name = f"{scope} {kind} token of {place}"
                headers = _bearer(make.token(scope, name, place, kind).text)
                callers.append(Caller(name, headers, scope, place))
    return callers


def _people(make: _Maker) -> list[Caller]:
    callers = [
        Caller(f"{role} {name}", make.session(f"{role}-{name}", {place: role}), roles={place: role})
        for role in Role
        for name, place in PLACES.items()
    ]
    mixed = {WRONG: Role.ADMIN, RIGHT: Role.VIEWER}
    callers.append(Caller("mixed", make.session("mixed", mixed), roles=mixed))
    callers.append(Caller("without a role", make.session("none", {}), roles={}))
    admin = {None: Role.ADMIN}
    new = make.session("new", admin, has_chosen=False)
    callers.append(Caller("admin yet to choose a password", new, roles=admin, is_new=True))
    safe = make.session("root", admin)
    for name, headers in {
        "without the CSRF token": {"Cookie": safe["Cookie"]},
        "with another CSRF token": {**safe, "X-Flagd-CSRF": "x" * 43},
        "from another site": {**safe, "Sec-Fetch-Site": "cross-site"},
        "from a sister site": {**safe, "Sec-Fetch-Site": "same-site"},
        "from another origin": {**safe, "Origin": "https://evil.example"},
        "from a sandboxed page": {**safe, "Origin": "null"},
    }.items():
        callers.append(Caller(f"admin {name}", headers, roles=admin, is_safe=False))
    for name, headers in {
        "from its own page": {**safe, "Sec-Fetch-Site": "same-origin"},
        "from its own origin": {**safe, "Origin": "https://flags.example"},
    }.items():
        callers.append(Caller(f"admin {name}", headers, roles=admin))
    both = {**safe, **_bearer(make.token("read", "beside a cookie").text)}
    callers.append(Caller("read token beside an admin's session", both, scope="read"))
    wrong = {**safe, **_bearer("garbage")}
    callers.append(Caller("garbage beside an admin's session", wrong))
    return callers
