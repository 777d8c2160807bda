"""Webhooks: who is told what happens in an environment."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from flagd_server.domain.notifications import SECRET_BYTES, check_webhook, new_secret
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.happenings import Happening
from flagd_server.services.lookups import require_environment
from flagd_server.services.outbox import Outbox
from flagd_server.services.publishing import Publisher
from flagd_server.services.url_checks import UrlChecks
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.release_records import Delivery, Webhook

MAX_WEBHOOKS = 50
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Put:
    """Attributes:
    secret: where it is new; it is not shown again.
    """

    webhook: Webhook
    secret: str | None


class Webhooks:
    """Lists, changes and tries them."""

    def __init__(
        self, storage: Storage, publisher: Publisher, outbox: Outbox, check_urls: UrlChecks
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._outbox = outbox
        self._check_urls = check_urls

    def get(self, environment: str, key: str) -> Webhook:
        """Return one, or raise NotFoundError."""
        with self._storage.read() as reader:
            return _require(reader, environment, key)

    def put(
        self,
        environment: str,
        key: str,
        *,
        url: str,
        form: str,
        events: Sequence[str],
        enabled: bool,
        new_secret_wanted: bool,
        actor: str,
    ) -> Put:
        """Create a webhook (its version is 1) or replace it.

        Args:
            new_secret_wanted: whether one that exists gets another secret.

        Raises:
            NotFoundError: there is no such environment.
            ConflictError: it has as many webhooks as it may have.
            InvalidError: with every fault.
        """
        faults = check_webhook(url, events) or self._check_urls({"url": url})
        if faults:
            raise InvalidError(faults)
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            before = tx.webhook(environment, key)
            if before is None and len(tx.webhooks(environment)) >= MAX_WEBHOOKS:
                raise ConflictError(f"an environment has at most {MAX_WEBHOOKS} webhooks")
            secret = None
            if before is None or new_secret_wanted:
                secret = new_secret(secrets.token_bytes(SECRET_BYTES))
            webhook = Webhook(
                environment=environment,
                key=key,
                url=url,
                format=form,
                events=tuple(events),
                enabled=enabled,
                secret=secret or before.secret,  # type: ignore[union-attr] # new where there is none
                version=1 if before is None else before.version + 1,
                updated_at=self._publisher.clock.now(),
            )
            tx.put_webhook(webhook)
            self._publisher.record(
                tx,
                actor=actor,
                action="webhook.create" if before is None else "webhook.update",
                target=_target(environment, key),
                environment=environment,
                before_version=None if before is None else before.version,
                after_version=webhook.version,
                # Neither the secret nor what a URL may hide in its path.
                detail={"format": form, "events": list(events), "enabled": enabled},
            )
            return Put(webhook, secret)

    def delete(self, environment: str, key: str, *, actor: str) -> None:
        """Tell it nothing more, not even what is on its way; or raise NotFoundError."""
        with self._storage.transaction() as tx:
            webhook = _require(tx, environment, key)
            tx.delete_webhook(environment, key)
            self._publisher.record(
                tx,
                actor=actor,
                action="webhook.delete",
                target=_target(environment, key),
                environment=environment,
                before_version=webhook.version,
            )

    def deliveries(self, environment: str, key: str) -> list[Delivery]:
        """Return its last messages, newest first, or raise NotFoundError."""
        with self._storage.read() as reader:
            _require(reader, environment, key)
            return reader.deliveries(environment, key, _SHOWN)

    def try_out(self, environment: str, key: str, *, actor: str) -> Delivery:
        """Send it a message that says so, whatever events it wants; or raise NotFoundError."""
        with self._storage.transaction() as tx:
            webhook = _require(tx, environment, key)
            happening = Happening(
                kind="test",
                environment=environment,
                flag="",
                at=self._publisher.clock.now(),
                by=actor,
                text=f"{actor} tries out the webhook {key}",
            )
            self._outbox.put(tx, webhook, happening)
            return tx.deliveries(environment, key, 1)[0]

    def list(self, environment: str) -> list[Webhook]:
        """Return all of the environment by key, or raise NotFoundError."""
        with self._storage.read() as reader:
            require_environment(reader, environment)
            return reader.webhooks(environment)


def _require(reader: Reader, environment: str, key: str) -> Webhook:
    webhook = reader.webhook(environment, key)
    if webhook is None:
        require_environment(reader, environment)
        raise NotFoundError("webhook", key)
    return webhook


def _target(environment: str, key: str) -> str:
    return f"environments/{environment}/webhooks/{key}"
