"""Environments: where flags are configured, each with its own SDK tokens and stream."""

import secrets

from flagd_server.domain.changes import first_configuration
from flagd_server.domain.configuration import default_off_variant
from flagd_server.errors import ConflictError
from flagd_server.services.lookups import require_environment
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import Environment

_UNIT_KEY_BYTES = 16


class Environments:
    """Lists and changes environments."""

    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage = storage
        self._publisher = publisher

    def list(self) -> list[Environment]:
        """Return all, by key."""
        with self._storage.read() as reader:
            return reader.environments()

    def get(self, key: str) -> Environment:
        """Return one, or raise NotFoundError."""
        with self._storage.read() as reader:
            return require_environment(reader, key)

    def create(self, key: str, name: str = "", *, actor: str) -> Environment:
        """Create an environment in which every flag there is starts disabled.

        Raises:
            ConflictError: there is one of that key.
        """
        with self._storage.transaction() as tx:
            if tx.environment(key) is not None:
                raise ConflictError(f"there is an environment {key!r} already")
            return self.create_in(tx, key, name, actor=actor)

    def create_in(self, tx: Transaction, key: str, name: str = "", *, actor: str) -> Environment:
        """Create an environment, known to be new, in an open transaction."""
        clock = self._publisher.clock
        environment = Environment(
            key=key,
            name=name or key,
            unit_key=secrets.token_bytes(_UNIT_KEY_BYTES),
            sequence=clock.now_ms(),
            created_at=clock.now(),
        )
        tx.insert_environment(environment)
        for flag in tx.flags():
            off_variant = default_off_variant(flag.type, flag.variants)
            self._publisher.start_configuration(
                tx, flag, key, first_configuration(off_variant), actor=actor
            )
        # Whole, for those who held the flags of a deleted one of this key: another key for units,
        # no segments.
        self._publisher.announce_segments(tx, key)
        self._publisher.record(
            tx,
            actor=actor,
            action="environment.create",
            target=f"environments/{key}",
            environment=key,
        )
        return require_environment(tx, key)

    def rename(self, key: str, name: str, *, actor: str) -> Environment:
        """Change what people call it; SDKs see no change."""
        with self._storage.transaction() as tx:
            before = require_environment(tx, key)
            if before.name == name:
                return before
            tx.rename_environment(key, name)
            self._publisher.record(
                tx,
                actor=actor,
                action="environment.rename",
                target=f"environments/{key}",
                environment=key,
                detail={"before": before.name, "after": name},
            )
            return require_environment(tx, key)

    def delete(self, key: str, *, actor: str) -> None:
        """Delete it with everything that is kept by environment, except the audit.

        Raises:
            NotFoundError: there is no such environment.
            ConflictError: an application could still be using it: a token of its is alive.
        """
        with self._storage.transaction() as tx:
            require_environment(tx, key)
            alive = [
                token.id
                for token in tx.tokens()
                if token.environment == key and token.is_alive(self._publisher.clock.now())
            ]
            if alive:
                raise ConflictError(
                    f"environment {key!r} has tokens that are not revoked: {', '.join(alive)}"
                )
            tx.delete_environment(key)
            self._publisher.forget_environment(tx, key)
            self._publisher.record(
                tx,
                actor=actor,
                action="environment.delete",
                target=f"environments/{key}",
                environment=key,
            )
