"""The brake: too many automatic kills in a minute, and the guard kills nothing more by itself.

A person looks, and releases it.
"""

from flagd_server.domain.configuration import JsonObject
from flagd_server.errors import NotFoundError
from flagd_server.services.guarding import Guarding
from flagd_server.services.leader_requests import LeaderRequests
from flagd_server.services.lookups import require_environment
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import Brake

RELEASE = "brake.release"


class Brakes:
    """One for each environment; engaged by the guard."""

    def __init__(
        self,
        storage: Storage,
        guarding: Guarding,
        publisher: Publisher,
        requests: LeaderRequests,
    ) -> None:
        self._storage = storage
        self._guarding = guarding
        self._publisher = publisher
        self._requests = requests

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

        The leader does it, since it alone acts on decisions.

        Returns:
            Those flags.

        Raises:
            NotFoundError: there is no such environment, or its brake is not engaged.
            StorageUnavailableError: no server leads now; nothing was changed.
        """
        with self._storage.read() as reader:
            require_environment(reader, environment)
            if reader.brake(environment) is None:
                raise NotFoundError("engaged brake", environment)
        outcome = self._requests.ask(RELEASE, {"environment": environment, "actor": actor})
        if not outcome["is_released"]:
            raise NotFoundError("engaged brake", environment)
        with self._storage.read() as reader:
            (entry,) = reader.audit(1, environment=environment, action=RELEASE)
        acted: list[str] = entry.detail["flags"]
        return acted

    def do_release(self, tx: Transaction, asked: JsonObject) -> JsonObject:
        """Do what `release` asks for, in the leader's transaction, unless another was faster."""
        environment = asked["environment"]
        if tx.brake(environment) is None:
            return {"is_released": False}
        tx.release_brake(environment)
        acted = self._guarding.act_on_waiting(
            tx, environment, self._publisher.clock.now().timestamp()
        )
        self._publisher.record(
            tx,
            actor=asked["actor"],
            action=RELEASE,
            target=f"environments/{environment}/brake",
            environment=environment,
            detail={"flags": acted},
        )
        return {"is_released": True}
