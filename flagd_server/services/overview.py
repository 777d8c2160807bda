"""What those who watch the server see of its flags and releases.

Asked at every scrape: what has not changed since the last one is not read again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flagd_server.domain.rollout import Rollout
from flagd_server.services.rollout_moves import rollout_of
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import Environment
from flagd_server.storage.release_records import PendingDeliveries


@dataclass(frozen=True, slots=True)
class FlagCounts:
    """How many flags an environment delivers, and how many of them are on.

    Attributes:
        killed: flag → source of the kill that stands.
    """

    environment: str
    flags: int
    enabled: int
    killed: Mapping[str, str]
    is_braked: bool


@dataclass(frozen=True, slots=True)
class Releasing:
    """The rollouts that have not ended, and what webhooks are yet to be told."""

    rollouts: Sequence[Rollout]
    pending: Sequence[PendingDeliveries]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Attributes:
    unit_key: tells an environment from one that was deleted and had the same key.
    """

    unit_key: bytes
    sequence: int
    flags: int
    enabled: int
    killed: Mapping[str, str]


class Overview:
    """Any thread may ask; two that ask at once may do the work twice."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._counted: dict[str, _Counted] = {}

    def flag_counts(self) -> list[FlagCounts]:
        """Return the counts of every environment; archived flags are in none of them."""
        with self._storage.read() as reader:
            environments = reader.environments()
            before = self._counted
            counted = {
                each.key: _count(reader, each, before.get(each.key)) for each in environments
            }
            braked = {each.key: reader.brake(each.key) is not None for each in environments}
        self._counted = counted
        return [
            FlagCounts(key, each.flags, each.enabled, each.killed, braked[key])
            for key, each in counted.items()
        ]

    def releasing(self) -> Releasing:
        with self._storage.read() as reader:
            records = reader.open_rollouts()
            return Releasing([rollout_of(each) for each in records], reader.pending_deliveries())


def _count(reader: Reader, environment: Environment, before: _Counted | None) -> _Counted:
    """Return the counts; whatever changes one of them gives the environment a new sequence."""
    if (
        before is not None
        and before.sequence == environment.sequence
        and before.unit_key == environment.unit_key
    ):
        return before
    live = {flag.key for flag in reader.flags(archived=False)}
    rows = [row for row in reader.configurations(environment.key) if row.flag in live]
    return _Counted(
        environment.unit_key,
        environment.sequence,
        flags=len(rows),
        enabled=sum(row.configuration.enabled for row in rows),
        killed={
            row.flag: row.configuration.kill.source.value
            for row in rows
            if row.configuration.kill is not None
        },
    )
