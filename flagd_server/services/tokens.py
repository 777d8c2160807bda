"""Tokens: random, shown once, stored as a hash, revocable at once.

Every request presents one, so those alive are kept in memory, and a known one costs no read. What
this process changes is in memory before the change returns; what the command line changes in
another process is looked for every half second, and before a token is refused. A generation number
in the storage tells.
"""

import hashlib
import hmac
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flagd_server.clock import Clock
from flagd_server.domain.faults import Fault
from flagd_server.domain.token_text import (
    ALPHABET,
    ENVIRONMENT_SCOPES,
    KINDS,
    LENGTH,
    SCOPES,
    is_name,
    token_prefix,
)
from flagd_server.errors import InvalidError, NotFoundError
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
class _Alive:
    """Tokens that are not revoked, by digest, as of a generation."""

    generation: int
    by_digest: Mapping[bytes, Token]


class Tokens:
    """Creates, checks and revokes tokens; any thread may."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        on_revoked: Callable[[str], None] = lambda token_id: None,
    ) -> None:
        """Args:
        on_revoked: called with the id of a token that was known here and opens nothing any more.
        """
        self._storage = storage
        self._clock = clock
        self._on_revoked = on_revoked
        # Guards replacing _alive, lest an older view replaces a newer one. Taken after the
        # storage's turn to write. Reading takes no lock: it is replaced whole, by one assignment.
        self._lock = threading.Lock()
        self._alive = _Alive(-1, {})
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
            before = self._alive
            # Read before the tokens are, so that a change between the two is noticed next time.
            generation = self._storage.token_generation()
            if before.generation == generation:
                return
            with self._storage.read() as reader:
                tokens = [token for token in reader.tokens() if token.revoked_at is None]
            alive = _Alive(generation, {token.digest: token for token in tokens})
            self._alive = alive
        # A token that was never known here has opened nothing here.
        for digest, token in before.by_digest.items():
            if digest not in alive.by_digest:
                self._on_revoked(token.id)

    def authenticate(self, text: str) -> Token | None:
        """Return the token that the text is, None where it is unknown or revoked."""
        token = self._find(text)
        if token is None:
            self.refresh()  # it may be new
            token = self._find(text)
        return token

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
    ) -> CreatedToken:
        """Create a token and return its text, this once.

        Args:
            environment: the one it is for, with scopes of applications; None with the others.
            kind: "client" where the holder is a device that people own, whose word the guard does
                not take.

        Raises:
            InvalidError: with every fault.
        """
        with self._storage.transaction() as tx:
            return self.create_in(tx, scope, name, environment, kind, actor=actor)

    def create_in(
        self,
        tx: Transaction,
        scope: str,
        name: str,
        environment: str | None = None,
        kind: str = "server",
        *,
        actor: str,
        text: str | None = None,
    ) -> CreatedToken:
        """Do as `create` in an open transaction, with a text from elsewhere if one is given."""
        faults = _faults(tx, scope, name, environment, kind)
        if faults:
            raise InvalidError(faults)
        prefix = token_prefix(scope, environment)
        if text is None:
            secret = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
            text = f"{prefix}_{secret}"
        token = Token(
            id=f"tok-{secrets.token_hex(6)}",
            name=name,
            scope=scope,
            environment=environment,
            kind=kind,
            prefix=prefix,
            digest=_digest(text),
            created_at=self._clock.now(),
            created_by=actor,
        )
        tx.insert_token(token)
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
            tx.append_audit(self._entry("token.revoke", token, actor))
            tx.after_commit(self.refresh)
            revoked = tx.token(token_id)
            assert revoked is not None
            return revoked

    def _find(self, text: str) -> Token | None:
        digest = _digest(text)
        token = self._alive.by_digest.get(digest)
        # The look-up takes no time that tells of the secret, since it is by hash; the comparison
        # holds even if the hash table is ever replaced by a search.
        if token is None or not hmac.compare_digest(token.digest, digest):
            return None
        return token

    def _run(self) -> None:
        is_failing = False
        while not self._is_closed.wait(_LOOK_EVERY_S):
            try:
                self.refresh()
                is_failing = False
            except Exception:
                # The next look may succeed; until then the tokens known last are the best there is.
                if not is_failing:
                    _log.exception("changed tokens are not noticed: they can't be read")
                is_failing = True

    def _entry(self, action: str, token: Token, actor: str) -> AuditEntry:
        return AuditEntry(
            at=self._clock.now(),
            actor=actor,
            action=action,
            target=f"tokens/{token.id}",
            environment=token.environment,
            detail={"name": token.name, "scope": token.scope, "kind": token.kind},
        )


def _faults(
    tx: Transaction, scope: str, name: str, environment: str | None, kind: str
) -> list[Fault]:
    faults = []
    if not is_name(name):
        faults.append(
            Fault("name", "expected 1 to 128 characters, none of them a control character")
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


def _digest(text: str) -> bytes:
    # A header may hold what is no valid text; no token does, so that any bytes will do for it.
    return hashlib.sha256(text.encode(errors="replace")).digest()
