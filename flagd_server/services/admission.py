"""Holds each reporter to the limits of `domain.allowance`; what meets one is counted and told."""

import math
import random
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from cachetools import LRUCache

from flagd_sdk.core.summary import OTHER_KIND
from flagd_server.domain.allowance import (
    EXPOSURES_OF_INSTANCE,
    INSTANCES_OF_TOKEN_AN_HOUR,
    KINDS_OF_FLAG_AN_HOUR,
    RELEASES_OF_FLAG_AN_HOUR,
    SUMMARIES_OF_INSTANCE,
    SUMMARIES_OF_TOKEN,
    Allowance,
    NamesOfHour,
    Rate,
)
from flagd_server.domain.faults import Fault
from flagd_server.domain.telemetry import ERROR_KINDS, Summary
from flagd_server.errors import TooManyReportsError
from flagd_server.services.alarms import AlarmKind, Alarms
from flagd_server.services.served_versions import BelievableCell
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import Token

_K = TypeVar("_K", bound=Hashable)

OTHER = "(other)"
"""Service and version of what comes from releases beyond the limit."""

_REMEMBERED = 100_000  # of each sort; the one that was silent the longest starts anew
_HOUR_S = 3_600
# Who is turned away comes again at any moment of so many seconds, not all at once.
_JITTER_S = 10.0
# The most that an SDK waits.
_MAX_RETRY_AFTER_S = 300.0


class Admission:
    """Says what may come in.

    `require_turn` may be called by any thread, the others by the one that writes.

    Args:
        on_capped: told (environment, limit) of each time that a limit is met.
        clock: monotonic seconds.
        random: from 0 to below 1.
    """

    def __init__(
        self,
        alarms: Alarms,
        on_capped: Callable[[str, str], None] = lambda environment, limit: None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._alarms = alarms
        self._on_capped = on_capped
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()  # guards the three of `require_turn`
        self._of_token: LRUCache[str, Allowance] = LRUCache(_REMEMBERED)
        self._of_instance: LRUCache[tuple[str, str], Allowance] = LRUCache(_REMEMBERED)
        self._instances: LRUCache[str, NamesOfHour] = LRUCache(_REMEMBERED)
        self._exposures: LRUCache[tuple[str, str], Allowance] = LRUCache(_REMEMBERED)
        self._releases: LRUCache[tuple[str, str], NamesOfHour] = LRUCache(_REMEMBERED)
        self._kinds: LRUCache[tuple[str, str], NamesOfHour] = LRUCache(_REMEMBERED)

    def require_turn(self, environment: str, token: Token, instance: str) -> None:
        """Let a summary in.

        Raises:
            TooManyReportsError: the token or the instance sent too many, or the token speaks for
                too many instances.
        """
        now_s = self._clock()
        hour = int(now_s // _HOUR_S)
        with self._lock:
            of_token = _allowance(self._of_token, token.id, SUMMARIES_OF_TOKEN, now_s)
            of_instance = _allowance(
                self._of_instance, (environment, instance), SUMMARIES_OF_INSTANCE, now_s
            )
            instances = _names(self._instances, token.id, INSTANCES_OF_TOKEN_AN_HOUR)
            # The token last: what is turned away takes nothing from the others that it speaks for.
            if not instances.admit(instance, hour):
                limit, wait_s = "instances of a token", (hour + 1) * _HOUR_S - now_s
            elif not of_instance.take(1, now_s):
                limit, wait_s = "summaries of an instance", 1.0
            elif not of_token.take(1, now_s):
                limit, wait_s = "summaries of a token", 1.0
            else:
                return
        self._on_capped(environment, limit)
        self._alarms.raise_now(
            environment,
            kind=AlarmKind.TELEMETRY_CAPPED,
            subject=f"{token.id}: {limit}",
            detail=f"token {token.name!r} sends more than is taken; last, instance {instance!r}",
        )
        spread_s = min(wait_s, _MAX_RETRY_AFTER_S - _JITTER_S) + self._random() * _JITTER_S
        raise TooManyReportsError(f"too many {limit}", math.ceil(spread_s))

    def within_exposures(
        self,
        tx: Transaction,
        environment: str,
        token: Token,
        summary: Summary,
        good: list[BelievableCell],
    ) -> tuple[list[BelievableCell], list[Fault]]:
        """Return the cells whose exposures one process can have had, and faults of the others.

        A flag is believed or refused with all its cells, whatever their variants.
        """
        now_s = self._clock()
        by_flag: dict[str, int] = {}
        for each in good:
            flag = each.cell.flag
            by_flag[flag] = by_flag.get(flag, 0) + each.cell.exposures
        key = (environment, summary.instance)
        allowance = _allowance(self._exposures, key, EXPOSURES_OF_INSTANCE, now_s)
        left = allowance.left(now_s)
        # A unit of work is an exposure of each flag that it meets: the busiest flag tells how many
        # there were.
        allowance.take(max((n for n in by_flag.values() if n <= left), default=0), now_s)
        if max(by_flag.values(), default=0) <= left:
            return good, []
        self._cap(
            tx,
            environment,
            "exposures",
            f"{token.id}: exposures",
            f"instance {summary.instance!r} of token {token.name!r} claims "
            f"{max(by_flag.values())} exposures of one flag where {left:.0f} are possible",
        )
        refused = [
            Fault(
                f"cells[{each.index}].exposures",
                f"expected at most {left:.0f} of flag {each.cell.flag!r} since the last summary, "
                f"got {by_flag[each.cell.flag]}",
            )
            for each in good
            if by_flag[each.cell.flag] > left
        ]
        return [each for each in good if by_flag[each.cell.flag] <= left], refused

    def release(
        self, tx: Transaction, environment: str, flag: str, summary: Summary
    ) -> tuple[str, str]:
        """Return service and version under which a cell is counted: its own, or `OTHER`."""
        release = (summary.service, summary.service_version)
        names = _names(self._releases, (environment, flag), RELEASES_OF_FLAG_AN_HOUR)
        if names.admit(release, self._hour()):
            return release
        self._cap(
            tx,
            environment,
            "releases of a flag",
            f"{flag}: releases",
            f"more than {RELEASES_OF_FLAG_AN_HOUR} versions of services within an hour; "
            f"last, {summary.service_version!r} of {summary.service!r}",
            flag,
        )
        return OTHER, OTHER

    def units(
        self,
        tx: Transaction,
        environment: str,
        flag: str,
        units: Mapping[str, tuple[str, ...]],
    ) -> Mapping[str, tuple[str, ...]]:
        """Return a cell's unit events, kinds of errors beyond the limit counted as one kind.

        Other kinds beyond it, which no SDK makes, are left out.
        """
        names = _names(self._kinds, (environment, flag), KINDS_OF_FLAG_AN_HOUR)
        hour = self._hour()
        beyond = [kind for kind in units if not names.admit(kind, hour)]
        if not beyond:
            return units
        self._cap(
            tx,
            environment,
            "kinds of a flag",
            f"{flag}: kinds",
            f"more than {KINDS_OF_FLAG_AN_HOUR} kinds of events within an hour; last, {beyond[-1]}",
            flag,
        )
        kept = {kind: hashes for kind, hashes in units.items() if kind not in beyond}
        pooled = set(kept.get(OTHER_KIND, ()))
        for kind in beyond:
            if kind.startswith(ERROR_KINDS):
                pooled.update(units[kind])
        return {**kept, OTHER_KIND: tuple(sorted(pooled))} if pooled else kept

    def cap_services(self, tx: Transaction, environment: str, service: str) -> None:
        """Tell that a service is one too many for its latency to be measured."""
        self._cap(
            tx,
            environment,
            "services",
            "services",
            f"too many services for their latency to be measured; last, {service!r}",
        )

    def _hour(self) -> int:
        return int(self._clock() // _HOUR_S)

    def _cap(
        self,
        tx: Transaction,
        environment: str,
        limit: str,
        subject: str,
        detail: str,
        flag: str | None = None,
    ) -> None:
        tx.after_commit(lambda: self._on_capped(environment, limit))
        self._alarms.raise_in(
            tx,
            environment,
            kind=AlarmKind.TELEMETRY_CAPPED,
            subject=subject,
            detail=detail,
            flag=flag,
        )


def _allowance(known: LRUCache[_K, Allowance], key: _K, rate: Rate, now_s: float) -> Allowance:
    allowance = known.get(key)
    if allowance is None:
        allowance = known[key] = Allowance(rate, now_s)
    return allowance


def _names(known: LRUCache[_K, NamesOfHour], key: _K, limit: int) -> NamesOfHour:
    names = known.get(key)
    if names is None:
        names = known[key] = NamesOfHour(limit)
    return names
