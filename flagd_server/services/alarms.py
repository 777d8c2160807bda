"""What people should look at and nothing waits for: kept in short, and once an hour in the audit.

An alarm is one (kind, flag, subject) of an environment, however often it is raised. The list in
memory is for the present; what must not be lost is in the audit, from which it is filled after a
restart, and with what other servers have raised.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from cachetools import LRUCache

from flagd_server.clock import Clock
from flagd_server.errors import StorageError
from flagd_server.services.lookups import require_environment
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import AuditEntry

logger = logging.getLogger(__name__)

ACTION = "alarm"
ACTOR = "server"
# After a day without a word an alarm is history, and that is in the audit.
_LISTED_FOR = timedelta(days=1)
# Bounds what reporters can make the server keep; the one that was silent the longest goes.
_MAX_ALARMS = 1_000


class AlarmKind(StrEnum):
    """What can be wrong.

    - `telemetry_capped`: a reporter claims more than it may.
    - `poisoned_telemetry`: a reporter's unit events are out of proportion and set aside.
    - `sample_ratio`: the shares of a split don't match its weights.
    - `brake`: too many kills in a minute.
    - `local_kill`: a process took a flag off by its own evidence.
    """

    TELEMETRY_CAPPED = "telemetry_capped"
    POISONED_TELEMETRY = "poisoned_telemetry"
    SAMPLE_RATIO = "sample_ratio"
    BRAKE = "brake"
    LOCAL_KILL = "local_kill"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One (kind, flag, subject) of an environment.

    Attributes:
        subject: what it is about, such as the id of a token or the key of a flag.
        detail: one sentence, of the last time.
        count: how often it was raised by this server since its start; for the rest, in how many
            hours.
    """

    kind: AlarmKind
    environment: str
    flag: str | None
    subject: str
    detail: str
    first_at: datetime
    last_at: datetime
    count: int = 1


_Key: TypeAlias = tuple[str, AlarmKind, str | None, str]


class Alarms:
    """Thread-safe.

    Args:
        on_alarm: told (environment, kind) each time one is raised, once that is durable.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        on_alarm: Callable[[str, str], None] = lambda environment, kind: None,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._on_alarm = on_alarm
        # Guards all below; no writer's turn is waited for under it.
        self._lock = threading.Lock()
        self._alarms: LRUCache[_Key, Alarm] | None = None
        self._audited: LRUCache[_Key, datetime] = LRUCache(_MAX_ALARMS)
        self._read_up_to = 0  # id of the newest audit entry that was looked at
        # What was audited in the transaction that is open; writers take turns, so there is one.
        self._open: tuple[Transaction, set[_Key]] | None = None

    def raise_in(
        self,
        tx: Transaction,
        environment: str,
        *,
        kind: AlarmKind,
        subject: str,
        detail: str,
        flag: str | None = None,
    ) -> None:
        """Raise an alarm that stands if the open transaction is committed."""
        now = self._clock.now()
        key = (environment, kind, flag, subject)
        with self._lock:
            if self._open is None or self._open[0] is not tx:
                # Once in a transaction: what it has written itself is not durable yet.
                self._loaded(tx)
                self._open = (tx, set())
            written = self._open[1]
            is_due = key not in written and self._audited.get(key) != _hour(now)
            if is_due:
                written.add(key)
        if is_due:
            tx.append_audit(
                AuditEntry(
                    at=now,
                    actor=ACTOR,
                    action=ACTION,
                    target=f"alarms/{kind}",
                    environment=environment,
                    flag=flag,
                    detail={"kind": kind.value, "subject": subject, "detail": detail},
                )
            )
        alarm = Alarm(kind, environment, flag, subject, detail, now, now)
        tx.after_commit(lambda: self._note(alarm))

    def raise_by_name(
        self,
        tx: Transaction,
        environment: str,
        kind: str,
        subject: str,
        detail: str,
        flag: str | None,
    ) -> None:
        """`raise_in` for the guard, which knows kinds by their names."""
        self.raise_in(
            tx, environment, kind=AlarmKind(kind), subject=subject, detail=detail, flag=flag
        )

    def raise_now(
        self,
        environment: str,
        *,
        kind: AlarmKind,
        subject: str,
        detail: str,
        flag: str | None = None,
    ) -> None:
        """Raise an alarm outside any transaction; it costs one in an hour. Never raises."""
        now = self._clock.now()
        with self._lock:
            is_due = self._audited.get((environment, kind, flag, subject)) != _hour(now)
        if not is_due:
            self._note(Alarm(kind, environment, flag, subject, detail, now, now))
            return
        try:
            with self._storage.transaction() as tx:
                self.raise_in(tx, environment, kind=kind, subject=subject, detail=detail, flag=flag)
        except StorageError:
            logger.exception("an alarm could not be stored: %s of %s: %s", kind, subject, detail)

    def list(self, environment: str) -> list[Alarm]:
        """Return the alarms of the last day, the latest first.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.read() as reader:
            # One that was deleted and had the same key left its alarms behind.
            created_at = require_environment(reader, environment).created_at
            with self._lock:
                alarms = list(self._loaded(reader).values())
        since = max(created_at, self._clock.now() - _LISTED_FOR)
        mine = [row for row in alarms if row.environment == environment and row.last_at >= since]
        return sorted(mine, key=lambda alarm: alarm.last_at, reverse=True)

    def _loaded(self, reader: Reader) -> LRUCache[_Key, Alarm]:
        """Return the alarms with those that other servers have raised by now."""
        if self._alarms is None:
            self._alarms = LRUCache(_MAX_ALARMS)
        since = self._clock.now() - _LISTED_FOR
        newest = reader.audit(1, action=ACTION)
        if newest and newest[0].id > self._read_up_to:
            for entry in reversed(reader.audit(_MAX_ALARMS, action=ACTION)):
                if entry.id > self._read_up_to and entry.at >= since and entry.environment:
                    self._take_over(_alarm(entry.environment, entry))
            self._read_up_to = newest[0].id
        return self._alarms

    def _take_over(self, alarm: Alarm) -> None:
        """Put an alarm from the audit on the list, unless it is one of this server's."""
        assert self._alarms is not None
        held = self._alarms.get(_key(alarm))
        if held is None or held.last_at < alarm.last_at:
            self._put(alarm)

    def _note(self, alarm: Alarm) -> None:
        with self._lock:
            self._put(alarm)
        self._on_alarm(alarm.environment, alarm.kind.value)

    def _put(self, alarm: Alarm) -> None:
        assert self._alarms is not None, "they are loaded before one is raised"
        key = _key(alarm)
        before = self._alarms.get(key)
        if before is not None:
            alarm = replace(alarm, first_at=before.first_at, count=before.count + 1)
        self._alarms[key] = alarm
        self._audited[key] = _hour(alarm.last_at)


def _key(alarm: Alarm) -> _Key:
    return alarm.environment, alarm.kind, alarm.flag, alarm.subject


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _alarm(environment: str, entry: AuditEntry) -> Alarm:
    return Alarm(
        kind=AlarmKind(entry.detail["kind"]),
        environment=environment,
        flag=entry.flag,
        subject=entry.detail["subject"],
        detail=entry.detail["detail"],
        first_at=entry.at,
        last_at=entry.at,
    )
