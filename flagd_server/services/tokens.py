"""Tokens: random, shown once, stored as a hash, revocable at once.

Every request presents one, so those alive are kept in memory, and a known one costs no read. What
this process changes is in memory before the change returns; what another process changes is looked
for every half second, and before a token is refused. A generation number in the storage tells.
"""

import hashlib
import hmac
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flagd_server.clock import Clock
from flagd_server.domain.faults import Fault
from flagd_server.domain.times import format_time
from flagd_server.domain.token_text import (
    ENVIRONMENT_SCOPES,
    KINDS,
    PERSON_PREFIX,
    SCOPES,
    SECRET_BYTES,
    SELECTOR_ALPHABET,
    SELECTOR_LENGTH,
    TokenText,
    is_name,
    parse_token,
    token_prefix,
)
from flagd_server.errors import InvalidError, NotFoundError
from flagd_server.services.notices import Topic
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import AuditEntry, Token

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token with its text, which can't be had again."""

    token: Token
    text: str


@dataclass(frozen=True, slots=True)
class _Known:
    """Tokens that are not revoked, as of a generation; `by_digest` are those without a selector."""

    generation: int
    by_id: Mapping[str, Token]
    by_selector: Mapping[str, Token]
    by_digest: Mapping[bytes, Token]


# In place of a token that is not known, so that it takes as long to refuse one.
_NO_DIGEST = bytes(32)


class Tokens:
    """Creates, checks and revokes tokens; any thread may."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        on_ended: Callable[[str], None] = lambda token_id: None,
        on_used: Callable[[str], None] = lambda token_id: None,
    ) -> None:
        """Args:
        on_ended: called with the id of a token that was known here and opens nothing any more.
        on_used: called with the id of a token each time that it opens something; quick.
        """
        self._storage = storage
        self._clock = clock
        self._on_ended = on_ended
        self._on_used = on_used
        # Guards replacing _known, lest an older view replaces a newer one, and _expired. Taken
        # after the storage's turn to write. Reading takes no lock: _known is replaced whole.
        self._lock = threading.Lock()
        self._known = _Known(-1, {}, {}, {})
        self._expired: set[str] = set()  # ids of tokens whose end was told
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    def watch(self) -> None:
        """Start a thread that refreshes, so that streams end even while no request comes."""
        self._thread = threading.Thread(target=self._run, name="flagd-tokens", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Take over what has changed since the last look, by whichever process."""
        with self._lock:
            before = self._known
            # Read before the tokens are, so that a change between the two is noticed next time.
            generation = self._storage.token_generation()
            if before.generation == generation:
                return
            with self._storage.read() as reader:
                tokens = [token for token in reader.tokens() if token.revoked_at is None]
            self._known = known = _Known(
                generation,
                {token.id: token for token in tokens},
                {token.selector: token for token in tokens if token.selector is not None},
                {token.digest: token for token in tokens if token.selector is None},
            )
        # A token that was never known here has opened nothing here.
        for token_id in before.by_id.keys() - known.by_id.keys():
            self._on_ended(token_id)

    def end_expired(self) -> None:
        """Tell of the tokens that have expired since the last look."""
        now = self._clock.now()
        with self._lock:
            expired = {id_ for id_, token in self._known.by_id.items() if token.has_expired(now)}
            new = expired - self._expired
            self._expired = expired
        for token_id in new:
            self._on_ended(token_id)

    def authenticate(self, text: str) -> Token | None:
        """Return the token that the text is, None where it is unknown, revoked or expired."""
        token = self._find(text)
        if token is None:
            self.refresh()  # it may be new
            token = self._find(text)
        return self._used(token)

    def expired_at(self, text: str) -> datetime | None:
        """Return when the token that the text is has expired; None where that is not so."""
        token = self._find(text)
        if token is None or not token.has_expired(self._clock.now()):
            return None
        return token.expires_at

    def alive(self, token_id: str) -> Token | None:
        """Return the token with the id, None where there is none or it has ended."""
        token = self._known.by_id.get(token_id)
        if token is None:
            self.refresh()
            token = self._known.by_id.get(token_id)
        return self._used(token)

    def get(self, token_id: str) -> Token | None:
        """Return the token with the id, also one that has ended."""
        with self._storage.read() as reader:
            return reader.token(token_id)

    def list(self) -> list[Token]:
        """Return all tokens without their secrets, revoked ones too, oldest first."""
        with self._storage.read() as reader:
            return reader.tokens()

    def create(
        self,
        scope: str,
        name: str,
        environment: str | None = None,
        kind: str = "server",
        *,
        actor: str,
        expires_at: datetime | None = None,
    ) -> CreatedToken:
        """Create a token and return its text, this once.

        Args:
            environment: the one it is for, with scopes of applications; None with the others.
            kind: "client" where the holder is a device that people own, whose word the guard does
                not take.
            expires_at: when it ends by itself; None for never.

        Raises:
            InvalidError: with every fault.
        """
        with self._storage.transaction() as tx:
            return self.create_in(
                tx, scope, name, environment, kind, actor=actor, expires_at=expires_at
            )

    def create_in(
        self,
        tx: Transaction,
        scope: str,
        name: str,
        environment: str | None = None,
        kind: str = "server",
        *,
        actor: str,
        expires_at: datetime | None = None,
        text: str | None = None,
    ) -> CreatedToken:
        """Do as `create` in an open transaction, with a text from elsewhere if one is given."""
        now = self._clock.now()
        faults = _faults(tx, scope, name, environment, kind)
        if expires_at is not None and expires_at <= now:
            faults.append(Fault("expires_at", f"expected a time after {format_time(now)}"))
        if faults:
            raise InvalidError(faults)
        prefix = token_prefix(scope, environment)
        parts = _new_text(prefix) if text is None else parse_token(text)
        text = text or str(parts)
        token = Token(
            id=f"tok-{secrets.token_hex(6)}",
            name=name,
            scope=scope,
            environment=environment,
            kind=kind,
            prefix=prefix,
            digest=_digest(text if parts is None else parts.secret),
            created_at=now,
            created_by=actor,
            selector=None if parts is None else parts.selector,
            expires_at=expires_at,
        )
        tx.insert_token(token)
        tx.announce(Topic.TOKENS, {})
        tx.append_audit(self._entry("token.create", token, actor))
        tx.after_commit(self.refresh)
        return CreatedToken(token, text)

    def revoke(self, token_id: str, *, actor: str) -> Token:
        """End the token, and what was opened with it. Again, it changes nothing.

        Raises:
            NotFoundError: there is no such token.
        """
        with self._storage.transaction() as tx:
            token = tx.token(token_id)
            if token is None:
                raise NotFoundError("token", token_id)
            if token.revoked_at is not None:
                return token
            tx.revoke_token(token_id, self._clock.now())
            tx.announce(Topic.TOKENS, {})
            tx.append_audit(self._entry("token.revoke", token, actor))
            tx.after_commit(self.refresh)
            revoked = tx.token(token_id)
            assert revoked is not None
            return revoked

    def _find(self, text: str) -> Token | None:
        """Return the token, which may have expired."""
        parts = parse_token(text)
        known = self._known
        if parts is None:
            digest = _digest(text)
            token = known.by_digest.get(digest)
        else:
            digest = _digest(parts.secret)
            token = known.by_selector.get(parts.selector)
            if token is not None and token.prefix != parts.prefix:
                token = None
        # What is looked up is no secret, be it a selector or a hash; what is compared is one.
        expected = _NO_DIGEST if token is None else token.digest
        return token if hmac.compare_digest(expected, digest) else None

    def _used(self, token: Token | None) -> Token | None:
        if token is None:
            return None
        # Most have no end, and need no look at the clock.
        if token.expires_at is not None and token.has_expired(self._clock.now()):
            return None
        self._on_used(token.id)
        return token

    def _run(self) -> None:
        is_failing = False
        while not self._is_closed.wait(_LOOK_EVERY_S):
            try:
                self.end_expired()
                self.refresh()
                is_failing = False
            except Exception:
                # The next look may succeed; until then the tokens known last are the best there is.
                if not is_failing:
                    _log.exception("changed tokens are not noticed: they can't be read")
                is_failing = True

    def _entry(self, action: str, token: Token, actor: str) -> AuditEntry:
        expiry = {} if token.expires_at is None else {"expires_at": format_time(token.expires_at)}
        return AuditEntry(
            at=self._clock.now(),
            actor=actor,
            action=action,
            target=f"tokens/{token.id}",
            environment=token.environment,
            detail={
                "name": token.name,
                "scope": token.scope,
                "kind": token.kind,
                **expiry,
            },
        )


def _faults(
    tx: Transaction, scope: str, name: str, environment: str | None, kind: str
) -> list[Fault]:
    faults = []
    if not is_name(name):
        faults.append(
            Fault(
                "name",
                "expected 1 to 128 characters, none of them a control character,"
                f" and not {PERSON_PREFIX} at the beginning",
            )
        )
    if scope not in SCOPES:
        faults.append(Fault("scope", f"expected one of {', '.join(SCOPES)}"))
    if kind not in KINDS:
        faults.append(Fault("kind", f"expected one of {', '.join(KINDS)}"))
    if scope in ENVIRONMENT_SCOPES and environment is None:
        faults.append(Fault("environment", f"a token of scope {scope} is for one environment"))
    if environment is not None:
        if scope in SCOPES and scope not in ENVIRONMENT_SCOPES:
            faults.append(Fault("environment", f"a token of scope {scope} has none"))
        elif tx.environment(environment) is None:
            faults.append(Fault("environment", f"there is no environment {environment!r}"))
    return faults


def _new_text(prefix: str) -> TokenText:
    selector = "".join(secrets.choice(SELECTOR_ALPHABET) for _ in range(SELECTOR_LENGTH))
    return TokenText(prefix, selector, secrets.token_urlsafe(SECRET_BYTES))


def _digest(text: str) -> bytes:
    # A header may hold what is no valid text; no token does, so that any bytes will do for it.
    return hashlib.sha256(text.encode(errors="replace")).digest()
