"""Flags that processes took off by their own evidence: what they tell, and lifting it.

A process names, with each summary, all that it holds off; so nothing is lost with a summary, and
what it names no longer is over. Whether a flag goes off everywhere is not decided here: the guard
has the events of all processes, these among them.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from flagd_sdk.core.local_kill import LocalKill
from flagd_server.domain.faults import Fault
from flagd_server.domain.telemetry import Summary
from flagd_server.errors import NotFoundError
from flagd_server.services.alarms import AlarmKind, Alarms
from flagd_server.services.lookups import require_configuration
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.telemetry_records import LocalKillRow

logger = logging.getLogger(__name__)

# Bounds what a token in wrong hands can make the server keep; honest processes have a handful.
MAX_ROWS = 5_000

_Process: TypeAlias = tuple[str, str]
"""(environment, instance)."""


@dataclass(frozen=True, slots=True)
class ToldKill:
    """A local kill of one process.

    Attributes:
        is_standing: the process holds the flag off now: it was heard of lately, and said so last.
    """

    row: LocalKillRow
    kill: LocalKill
    is_standing: bool


class LocalKills:
    """`take_in` and `forget` are for the thread that writes telemetry; the rest is thread-safe.

    Args:
        known: (environment) → the instances that are connected or were heard of lately.
        on_kill: told the environment of each kill that is new, once that is durable.
    """

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        alarms: Alarms,
        known: Callable[[str], frozenset[str]],
        on_kill: Callable[[str], None] = lambda environment: None,
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._alarms = alarms
        self._known = known
        self._on_kill = on_kill
        # What each process named last; most name nothing and are not in it. None: ask the storage.
        self._named: dict[_Process, frozenset[str]] | None = None

    def forget(self) -> None:
        """Drop what is in memory, which the storage knows better."""
        self._named = None

    def take_in(
        self, tx: Transaction, environment: str, summary: Summary
    ) -> tuple[tuple[Fault, ...], tuple[str, ...]]:
        """Note what a process holds off now.

        Returns:
            What is wrong with the kills that are refused; the ids of those that were lifted.
        """
        if self._named is None:
            self._named = _standing(tx.local_kills())
        process = environment, summary.instance
        before = self._named.get(process, frozenset())
        if not summary.local_kills and not before:
            return (), ()
        at = self._publisher.clock.now()
        faults: list[Fault] = []
        held: set[str] = set()
        for index, kill in enumerate(summary.local_kills):
            if kill is None:
                continue  # refused already
            fault = None if kill.id in before else self._begin(tx, environment, summary, kill, at)
            if fault is None:
                held.add(kill.id)
            else:
                faults.append(Fault(f"local_kills[{index}].flag", fault))
        if before - held:
            tx.end_local_kills(environment, summary.instance, before - held, at)
        if held:
            self._named[process] = frozenset(held)
        else:
            self._named.pop(process, None)
        return tuple(faults), tuple(sorted(tx.lifted_local_kills(environment, held)))

    def _begin(
        self, tx: Transaction, environment: str, summary: Summary, kill: LocalKill, at: datetime
    ) -> str | None:
        """Store a kill that a process names for the first time; return why not, if not."""
        present = tx.configuration(environment, kill.flag)
        if present is None or kill.config_version > present.version:
            return f"there is no version {kill.config_version} of a flag {kill.flag!r}"
        rows = tx.local_kills(environment)
        if len(rows) >= MAX_ROWS:
            return f"there are {MAX_ROWS:,} local kills already"
        is_shared = any(row.id == kill.id for row in rows)
        tx.put_local_kill(
            LocalKillRow(
                environment=environment,
                id=kill.id,
                instance=summary.instance,
                flag=kill.flag,
                service=summary.service,
                service_version=summary.service_version,
                document=json.dumps(kill.to_document()),
                told_at=at,
            )
        )
        if is_shared:
            return None  # another process took it over from the disk
        self._publisher.record(
            tx,
            actor="local breaker",
            action="local_kill",
            target=f"flags/{kill.flag}/local-kills/{kill.id}",
            environment=environment,
            flag=kill.flag,
            comment=kill.reason,
            detail={**kill.to_document(), "instance": summary.instance},
        )
        self._alarms.raise_in(
            tx,
            environment,
            kind=AlarmKind.LOCAL_KILL,
            subject=kill.flag,
            flag=kill.flag,
            detail=f"process {summary.instance} took it off by itself: {kill.reason}",
        )
        tx.after_commit(lambda: self._tell(environment, summary.instance, kill))
        return None

    def _tell(self, environment: str, instance: str, kill: LocalKill) -> None:
        logger.warning(
            "process %s took flag %s in %s off by itself: %s",
            instance,
            kill.flag,
            environment,
            kill.reason,
        )
        self._on_kill(environment)

    def told(self, environment: str, flag: str) -> list[ToldKill]:
        """Return what processes told of a flag, newest first.

        Raises:
            NotFoundError: there is no such environment or flag.
        """
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            rows = reader.local_kills(environment, flag)
        known = self._known(environment)
        return [
            ToldKill(
                row,
                LocalKill.from_document(json.loads(row.document)),
                row.ended_at is None and row.instance in known,
            )
            for row in rows
        ]

    def standing(self, environment: str, flag: str) -> int:
        """Return in how many processes a flag is off by their own evidence.

        Raises:
            NotFoundError: there is no such environment or flag.
        """
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            return self.standing_in(reader, environment, flag)

    def standing_in(self, reader: Reader, environment: str, flag: str) -> int:
        """Return the same within a view or a transaction."""
        known = self._known(environment)
        return sum(
            row.ended_at is None and row.instance in known
            for row in reader.local_kills(environment, flag)
        )

    def standing_by_environment(self) -> dict[str, int]:
        """Return how many flags are held off, each counted in each process."""
        with self._storage.read() as reader:
            rows = [row for row in reader.local_kills() if row.ended_at is None]
            counts = {environment.key: 0 for environment in reader.environments()}
        for row in rows:
            counts[row.environment] += row.instance in self._known(row.environment)
        return counts

    def lift(
        self, environment: str, flag: str, ids: Collection[str], *, reason: str, actor: str
    ) -> list[str]:
        """Let the processes serve the flag again, by their next summary; return the ids.

        May be asked for again. Each then takes fresh evidence to take the flag off again.

        Raises:
            NotFoundError: there is no such environment or flag, or no such kill of it.
        """
        wanted = sorted(set(ids))
        with self._storage.transaction() as tx:
            require_configuration(tx, environment, flag)
            rows = {row.id: row for row in tx.local_kills(environment, flag)}
            for kill in wanted:
                if kill not in rows:
                    raise NotFoundError("local kill", kill)
            new = [kill for kill in wanted if rows[kill].lifted_at is None]
            if new:
                tx.lift_local_kills(environment, new, self._publisher.clock.now(), actor)
                self._publisher.record(
                    tx,
                    actor=actor,
                    action="local_kill.lift",
                    target=f"flags/{flag}/local-kills",
                    environment=environment,
                    flag=flag,
                    comment=reason,
                    detail={"kills": new},
                )
        return wanted


def _standing(rows: Iterable[LocalKillRow]) -> dict[_Process, frozenset[str]]:
    named: dict[_Process, set[str]] = {}
    for row in rows:
        if row.ended_at is None:
            named.setdefault((row.environment, row.instance), set()).add(row.id)
    return {process: frozenset(ids) for process, ids in named.items()}
