"""The kill that holds a flag off now, with how far it has got and who lags behind."""

from dataclasses import dataclass

from flagd_server.domain.configuration import Kill
from flagd_server.errors import NotFoundError
from flagd_server.services.followed_kills import NAMED, KillWay
from flagd_server.services.lookups import require_configuration, require_environment
from flagd_server.services.receipts import Receipt, Receipts
from flagd_server.storage.base import Storage
from flagd_server.storage.telemetry_records import Instance


@dataclass(frozen=True, slots=True)
class StandingKill:
    """Attributes:
    version: the newest of the configuration.
    sequence: a process that has applied it has the flag off. Of a kill whose own is not known,
        since the server was restarted or many kills followed, it is the environment's newest.
    way: None where the times are not known any more.
    unconfirmed: of the processes that have not confirmed, the first `NAMED` that ever reported,
        as they last did.
    """

    kill: Kill
    version: int
    sequence: int
    receipt: Receipt
    way: KillWay | None
    unconfirmed: tuple[Instance, ...]


class StandingKills:
    def __init__(self, storage: Storage, receipts: Receipts) -> None:
        self._storage = storage
        self._receipts = receipts

    def get(self, environment: str, flag: str) -> StandingKill:
        """Return the kill as it stands.

        Raises:
            NotFoundError: there is no such environment or flag, or it is not killed there.
        """
        with self._storage.read() as reader:
            newest = require_configuration(reader, environment, flag)
            kill = newest.configuration.kill
            if kill is None:
                raise NotFoundError("kill", f"{flag} in {environment}")
            way = self._receipts.way_of(kill.id)
            sequence = (
                require_environment(reader, environment).sequence if way is None else way.sequence
            )
            receipt = self._receipts.wait(environment, sequence, 0.0)
            missing = set(receipt.unconfirmed)
            # Read only where somebody is missing: an environment may have 20,000 instances.
            lagging = [
                instance
                for instance in (reader.instances(environment) if missing else ())
                if instance.instance in missing
            ]
        return StandingKill(kill, newest.version, sequence, receipt, way, tuple(lagging[:NAMED]))
