"""The secret of each environment with which tools sign what they call for."""

import secrets

from flagd_server.domain.notifications import SECRET_BYTES, new_secret, signed_at
from flagd_server.errors import NotFoundError
from flagd_server.services.lookups import require_environment
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.release_records import HookSecret


class HookSecrets:
    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage = storage
        self._publisher = publisher

    def get(self, environment: str) -> HookSecret:
        """Return it, or raise NotFoundError."""
        with self._storage.read() as reader:
            return _require(reader, environment)

    def renew(self, environment: str, *, actor: str) -> tuple[HookSecret, bool]:
        """Make a new one, which ends the one before; return it, and whether it is the first.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            is_first = tx.hook_secret(environment) is None
            made = HookSecret(
                environment=environment,
                secret=new_secret(secrets.token_bytes(SECRET_BYTES)),
                created_at=self._publisher.clock.now(),
                created_by=actor,
            )
            tx.put_hook_secret(made)
            self._publisher.record(
                tx,
                actor=actor,
                action="hook_secret.create" if is_first else "hook_secret.renew",
                target=_target(environment),
                environment=environment,
            )
            return made, is_first

    def delete(self, environment: str, *, actor: str) -> None:
        """Let nobody sign any more, or raise NotFoundError."""
        with self._storage.transaction() as tx:
            _require(tx, environment)
            tx.delete_hook_secret(environment)
            self._publisher.record(
                tx,
                actor=actor,
                action="hook_secret.delete",
                target=_target(environment),
                environment=environment,
            )

    def signed_at(
        self, environment: str, message_id: str, timestamp: str, signatures: str, body: bytes
    ) -> float:
        """Return when a message for the environment was signed, in Unix seconds.

        Raises:
            ValueError: it was not, or not lately. An environment without a secret, or one that is
                not there, knows no signature.
        """
        with self._storage.read() as reader:
            known = reader.hook_secret(environment)
        # The same work where there is none, so that the time does not tell.
        secret = known.secret if known is not None else new_secret(bytes(SECRET_BYTES))
        now_s = self._publisher.clock.now().timestamp()
        at_s = signed_at(secret, message_id, timestamp, signatures, body, now_s)
        if known is None:
            raise ValueError("webhook-signature does not belong to this message and secret")
        return at_s


def _require(reader: Reader, environment: str) -> HookSecret:
    found = reader.hook_secret(environment)
    if found is None:
        require_environment(reader, environment)
        raise NotFoundError("hook secret", environment)
    return found


def _target(environment: str) -> str:
    return f"environments/{environment}/hook-secret"
