"""Sessions: a person's logins, kept by the server; the cookie names one and holds nothing else.

Each has a new random id, of which only the hash is stored. It is read from the storage with every
request, so that what ends it, wherever, ends it at once.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, replace
from datetime import timedelta

from flagd_server.domain.times import format_time
from flagd_server.errors import LoginError
from flagd_server.services.last_uses import LastUses
from flagd_server.services.login_throttle import LoginThrottle
from flagd_server.services.password_hashes import PasswordHashes
from flagd_server.services.people import actor_of
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage
from flagd_server.storage.identity_records import Person, Session

IDLE = timedelta(hours=1)
"""Without a request a session ends; a page that is open asks more often."""
LASTS = timedelta(hours=12)
"""A working day, then one logs in again."""

COOKIE_CHARS = 43
_COOKIE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Login:
    """A session that has just begun.

    Attributes:
        cookie: names the session; it is a secret.
        device: shows at later logins that this device has known the password; a secret too.
    """

    session: Session
    person: Person
    cookie: str = field(repr=False)
    device: str = field(repr=False)


class Sessions:
    """Begins, finds and ends them; any thread may."""

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        hashes: PasswordHashes,
        throttle: LoginThrottle,
        uses: LastUses,
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._hashes = hashes
        self._throttle = throttle
        self._uses = uses

    def log_in(
        self,
        name: str,
        password: str,
        *,
        address: str,
        device: str | None = None,
        replaces: str | None = None,
    ) -> Login:
        """Begin a session, under an id that nobody has had.

        Args:
            address: from where; for the throttle and the audit.
            device: what an earlier login left on the device.
            replaces: the cookie of a session that ends with this.

        Raises:
            LoginError: the name or the password is wrong, the account disabled, or the password
                one that the server made and that has expired.
            TooManyRequestsError: too many attempts failed.
        """
        name = name.strip().lower()
        with self._storage.read() as reader:
            person = reader.person(name)
        is_known_device = (
            person is not None
            and device is not None
            and hmac.compare_digest(device.encode(errors="replace"), _device(person).encode())
        )
        attempt = self._throttle.begin(name, address, is_known_device=is_known_device)
        is_right = self._hashes.is_right(None if person is None else person.password, password)
        if person is None or not is_right or not self._may_log_in(person):
            self._record_failure(person, address)
            raise LoginError("the name or the password is wrong, or the account is closed")
        attempt.succeed()
        is_outdated = self._hashes.is_outdated(person.password)
        encoded = self._hashes.make(password) if is_outdated else person.password
        return self._begin(person, address, encoded=encoded, replaces=replaces)

    def renew(self, person: Person, address: str) -> Login:
        """Begin a session for someone who has just chosen a password."""
        return self._begin(person, address, encoded=person.password)

    def find(self, cookie: str) -> tuple[Session, Person] | None:
        """Return the session that the cookie names, and whose it is; None where it has ended."""
        digest = digest_of(cookie)
        with self._storage.read() as reader:
            session = reader.session(digest)
            person = None if session is None else reader.person(session.person)
        if session is None or person is None or person.disabled_at is not None:
            return None
        now = self._publisher.clock.now()
        seen_at = max(session.seen_at, self._uses.session_seen_at(digest) or session.seen_at)
        if now >= session.expires_at or now - seen_at >= IDLE:
            return None
        self._uses.note_session(digest)
        return session, person

    def log_out(self, session: Session, person: Person) -> None:
        """End it."""
        with self._storage.transaction() as tx:
            tx.delete_session(session.digest)
            self._publisher.record(
                tx, actor=actor_of(person), action="session.end", target=actor_of(person)
            )

    def _may_log_in(self, person: Person) -> bool:
        expires_at = person.password_expires_at
        return person.disabled_at is None and (
            expires_at is None or self._publisher.clock.now() < expires_at
        )

    def _begin(
        self, verified: Person, address: str, *, encoded: str, replaces: str | None = None
    ) -> Login:
        now = self._publisher.clock.now()
        cookie = secrets.token_urlsafe(_COOKIE_BYTES)
        session = Session(
            digest=digest_of(cookie),
            person=verified.name,
            created_at=now,
            seen_at=now,
            expires_at=now + LASTS,
        )
        with self._storage.transaction() as tx:
            latest = tx.person(verified.name)
            # Whatever was changed since the password was looked at goes first.
            if (
                latest is None
                or latest.password != verified.password
                or not self._may_log_in(latest)
            ):
                raise LoginError("the account was changed meanwhile")
            person = replace(latest, password=encoded, last_login_at=now)
            tx.put_person(person)
            tx.delete_dead_sessions(now, now - IDLE)
            if replaces is not None:
                tx.delete_session(digest_of(replaces))
            tx.insert_session(session)
            self._publisher.record(
                tx,
                actor=actor_of(person),
                action="session.begin",
                target=actor_of(person),
                detail={"address": address, "expires_at": format_time(session.expires_at)},
            )
        return Login(session, person, cookie, _device(person))

    def _record_failure(self, person: Person | None, address: str) -> None:
        """Write that it failed. A name that nobody has is left out: it may be a password."""
        with self._storage.transaction() as tx:
            self._publisher.record(
                tx,
                actor="login",
                action="session.refuse",
                target="people" if person is None else actor_of(person),
                detail={"address": address},
            )


def digest_of(cookie: str) -> bytes:
    """Return what is stored of a cookie."""
    return hashlib.sha256(cookie.encode(errors="replace")).digest()


def csrf_token(cookie: str) -> str:
    """Return what a page has to send in a header with every change made in the session.

    Made from the cookie, which neither a page of another origin nor a script of ours can read.
    """
    return _mac(cookie.encode(errors="replace"), b"csrf token of a session")


def _device(person: Person) -> str:
    # Who can make the key, the stored hash of the password, could log in already. With another
    # password it is another; nothing is stored, and every replica knows it.
    key = hashlib.sha256(person.password.encode()).digest()
    return _mac(key, b"device of " + person.name.encode())


def _mac(key: bytes, message: bytes) -> str:
    return urlsafe_b64encode(hmac.new(key, message, hashlib.sha256).digest()).rstrip(b"=").decode()
