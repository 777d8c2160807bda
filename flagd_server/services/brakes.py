"""The brake: too many automatic kills in a minute, and the guard kills nothing more by itself.

A person looks, and releases it.
"""

from flagd_server.errors import NotFoundError
from flagd_server.services.guarding import Guarding
from flagd_server.services.lookups import require_environment
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage
from flagd_server.storage.records import Brake


class Brakes:
    """One for each environment; engaged by the guard."""

    def __init__(self, storage: Storage, guarding: Guarding, publisher: Publisher) -> None:
        self._storage = storage
        self._guarding = guarding
        self._publisher = publisher

    def get(self, environment: str) -> tuple[Brake | None, list[str]]:
        """Return the brake, None where it is not engaged, and the flags that it keeps on.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.read() as reader:
            require_environment(reader, environment)
            brake = reader.brake(environment)
            return brake, self._guarding.waiting(reader, environment) if brake else []

    def release(self, environment: str, *, actor: str) -> list[str]:
        """Let the guard act again, first on the flags it has decided against meanwhile.

        Returns:
            Those flags.

        Raises:
            NotFoundError: there is no such environment, or its brake is not engaged.
        """
        try:
            with self._storage.transaction() as tx:
                require_environment(tx, environment)
                if tx.brake(environment) is None:
                    raise NotFoundError("engaged brake", environment)
                tx.release_brake(environment)
                acted = self._guarding.act_on_waiting(
                    tx, environment, self._publisher.clock.now().timestamp()
                )
                self._publisher.record(
                    tx,
                    actor=actor,
                    action="brake.release",
                    target=f"environments/{environment}/brake",
                    environment=environment,
                    detail={"flags": acted},
                )
        except Exception:
            # The guard's memory may be ahead of a transaction that came to nothing.
            self._guarding.forget()
            raise
        return acted
