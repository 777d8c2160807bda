"""The kill switch. Off is easy, on has ceremony.

A kill needs no version, may be pressed any number of times, and stays through every other change
until someone restores the flag, naming the kill.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.configuration import Configuration, Kill, KillSource
from flagd_server.domain.restart import Restore, restarted
from flagd_server.domain.times import format_time
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services import rollbacks
from flagd_server.services.happenings import Happening, Happenings
from flagd_server.services.lookups import (
    require_configuration,
    require_environment,
    require_flag,
)
from flagd_server.services.notices import Topic
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


@dataclass(frozen=True, slots=True)
class FlagKilled:
    """What became of one flag of several; `killed` is None where the switch was not pressed."""

    flag: str
    killed: Killed | None


OnKill = Callable[[str, KillSource], None]
"""(environment, source)"""


class Kills:
    """Kills flags and restores them.

    Args:
        on_kill: told of each new kill that was made here, once it is durable.
    """

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        happenings: Happenings,
        on_kill: OnKill = lambda environment, source: None,
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._happenings = happenings
        self._on_kill = on_kill

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
        tx.after_commit(lambda: self._on_kill(environment, kill.source))
        tx.announce(
            Topic.KILL,
            {
                "environment": environment,
                "kill": kill.id,
                "sequence": published.sequence,
                "at": format_time(kill.at),
            },
        )
        self._happenings.tell(
            tx,
            Happening(
                kind="kill",
                environment=environment,
                flag=flag,
                at=kill.at,
                by=actor,
                text=f"{flag} was switched off in {environment}: {reason}",
                detail={**kill.to_document(), "config_version": published.version.version},
            ),
        )
        return Killed(
            kill, already=False, version=published.version.version, sequence=published.sequence
        )

    def kill_each_in(
        self,
        tx: Transaction,
        environment: str,
        flags: Iterable[str],
        *,
        source: KillSource,
        reason: str,
        actor: str,
        is_dry_run: bool = False,
    ) -> list[FlagKilled]:
        """Kill each of the flags that is delivered in the environment; leave out the others.

        Args:
            is_dry_run: change nothing; tell only of the kills that stand already.
        """
        found = []
        for key in flags:
            flag, present = tx.flag(key), tx.configuration(environment, key)
            if flag is None or flag.archived or present is None:
                continue
            killed = None
            if not is_dry_run or present.configuration.kill is not None:
                killed = self.kill_in(
                    tx, environment, key, source=source, reason=reason, actor=actor
                )
            found.append(FlagKilled(key, killed))
        return found

    def restore(
        self, environment: str, flag: str, restore: Restore, *, actor: str
    ) -> ConfigurationVersion:
        """Lift the kill that is named; the flag starts again as `domain.restart` says.

        Raises:
            NotFoundError: as with `kill`.
            ConflictError: another kill stands, or none.
            InvalidError: with every fault of what is asked.
        """
        with self._storage.transaction() as tx:
            return self.restore_in(tx, environment, flag, restore, actor=actor)

    def restore_in(
        self, tx: Transaction, environment: str, flag: str, restore: Restore, *, actor: str
    ) -> ConfigurationVersion:
        """Do as `restore` in a transaction that is open."""
        faults = restore.faults()
        if faults:
            raise InvalidError(faults)
        record, present = _delivered(tx, environment, flag)
        standing = present.configuration.kill
        if standing is None:
            raise ConflictError(f"flag {flag!r} is not killed in {environment!r}")
        if standing.id != restore.kill:
            raise ConflictError(
                f"flag {flag!r} is held off in {environment!r} by {standing.id!r},"
                f" not by {restore.kill!r}"
            )
        exposed_in = _served_when_killed(tx, present) if restore.leave_out_exposed else []
        detail = {
            "kill": restore.kill,
            "fixed_in": None if restore.fixed_in is None else asdict(restore.fixed_in),
            "keep": restore.keep,
            "percent": None if restore.keep else restore.weight * 100 / BUCKETS,
            "leave_out_exposed": restore.leave_out_exposed,
        }
        published = self._publisher.apply_config_change(
            tx,
            record,
            present,
            restarted(present.configuration, restore, flag, exposed_in),
            action="restore",
            actor=actor,
            comment=restore.comment,
            detail=detail,
        )
        self._happenings.tell(
            tx,
            Happening(
                kind="restore",
                environment=environment,
                flag=flag,
                at=published.version.at,
                by=actor,
                text=f"{flag} was restored in {environment}: {restore.comment}",
                detail={**detail, "config_version": published.version.version},
            ),
        )
        return published.version


def _served_when_killed(tx: Reader, killed: ConfigurationVersion) -> list[Configuration]:
    """Return what was served when the kill came, under which users met the fault.

    Where the guard had rolled the flag back to that, what it had taken back as well.
    """

    def before(version: ConfigurationVersion) -> ConfigurationVersion | None:
        return tx.configuration_version(version.environment, version.flag, version.version - 1)

    served: ConfigurationVersion | None = killed
    while served is not None and served.configuration.kill is not None:
        served = before(served)
    found = []
    while served is not None:
        found.append(served.configuration)
        is_rollback = served.action == rollbacks.ACTION and served.actor == rollbacks.ACTOR
        served = before(served) if is_rollback else None
    return found


def _delivered(reader: Reader, environment: str, key: str) -> tuple[Flag, ConfigurationVersion]:
    present = require_configuration(reader, environment, key)
    flag = require_flag(reader, key)
    # An archived flag is served nowhere: there is nothing to take off.
    if flag.archived:
        raise NotFoundError("flag", key)
    return flag, present
