"""The kill switch. Off is easy, on has ceremony.

A kill needs no version, may be pressed any number of times, and stays through every other change
until someone restores the flag, naming the kill.
"""

import secrets
from dataclasses import dataclass, replace

from flagd_server.domain.configuration import Kill, KillSource
from flagd_server.errors import ConflictError, NotFoundError
from flagd_server.services.lookups import (
    require_configuration,
    require_environment,
    require_flag,
)
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import ConfigurationVersion, Flag


@dataclass(frozen=True, slots=True)
class Killed:
    """What pressing the switch did.

    Attributes:
        already: the flag was off by the kill that is given here; nothing was changed.
        version: the configuration's newest version, in which the flag is off.
        sequence: a process that has applied this one has the flag off.
    """

    kill: Kill
    already: bool
    version: int
    sequence: int


class Kills:
    """Kills flags and restores them."""

    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage = storage
        self._publisher = publisher

    def kill(
        self, environment: str, flag: str, *, source: KillSource, reason: str, actor: str
    ) -> Killed:
        """Take the flag off in the environment; the first kill stands.

        Raises:
            NotFoundError: there is no such environment, or no such flag that is delivered.
        """
        with self._storage.transaction() as tx:
            return self.kill_in(tx, environment, flag, source=source, reason=reason, actor=actor)

    def kill_in(
        self,
        tx: Transaction,
        environment: str,
        flag: str,
        *,
        source: KillSource,
        reason: str,
        actor: str,
        evidence: str | None = None,
    ) -> Killed:
        """Do as `kill` in a transaction that is open, for whoever decides within one.

        Args:
            evidence: id of the report behind it.
        """
        record, present = _delivered(tx, environment, flag)
        standing = present.configuration.kill
        if standing is not None:
            sequence = require_environment(tx, environment).sequence
            return Killed(standing, already=True, version=present.version, sequence=sequence)
        kill = Kill(
            id=f"kill-{secrets.token_hex(8)}",
            at=self._publisher.clock.now(),
            by=actor,
            source=source,
            reason=reason,
            evidence=evidence,
        )
        published = self._publisher.apply_config_change(
            tx,
            record,
            present,
            replace(present.configuration, kill=kill),
            action="kill",
            actor=actor,
            comment=reason,
            detail=kill.to_document(),
        )
        return Killed(
            kill, already=False, version=published.version.version, sequence=published.sequence
        )

    def restore(
        self, environment: str, flag: str, *, kill_id: str, reason: str = "", actor: str
    ) -> ConfigurationVersion:
        """Lift the kill that the caller names; the configuration counts again.

        Raises:
            NotFoundError: as with `kill`.
            ConflictError: another kill stands, or none.
        """
        with self._storage.transaction() as tx:
            record, present = _delivered(tx, environment, flag)
            standing = present.configuration.kill
            if standing is None:
                raise ConflictError(f"flag {flag!r} is not killed in {environment!r}")
            if standing.id != kill_id:
                raise ConflictError(
                    f"flag {flag!r} is held off in {environment!r} by {standing.id!r},"
                    f" not by {kill_id!r}"
                )
            published = self._publisher.apply_config_change(
                tx,
                record,
                present,
                replace(present.configuration, kill=None),
                action="restore",
                actor=actor,
                comment=reason,
                detail={"kill": kill_id},
            )
            return published.version


def _delivered(reader: Reader, environment: str, key: str) -> tuple[Flag, ConfigurationVersion]:
    present = require_configuration(reader, environment, key)
    flag = require_flag(reader, key)
    # An archived flag is served nowhere: there is nothing to take off.
    if flag.archived:
        raise NotFoundError("flag", key)
    return flag, present
