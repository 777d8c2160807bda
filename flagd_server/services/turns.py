"""Gives reporters their turns: who sends far more than anyone in order is told to wait."""

import math
import random
import threading
import time
from collections.abc import Callable

from cachetools import LRUCache

from flagd_server.domain.allowance import (
    INSTANCES_OF_TOKEN_AN_HOUR,
    SUMMARIES_OF_INSTANCE,
    SUMMARIES_OF_TOKEN,
    Allowance,
    NamesOfHour,
)
from flagd_server.errors import TooManyReportsError
from flagd_server.services.alarms import AlarmKind, Alarms
from flagd_server.storage.records import Token

_INSTANCES_REMEMBERED = 100_000  # the one that was silent the longest starts anew
_HOUR_S = 3_600
# Who is turned away comes again at any moment of so many seconds, not all at once.
_JITTER_S = 10.0
# The most that an SDK waits.
_MAX_RETRY_AFTER_S = 300.0


class _TokenTurns:
    __slots__ = ("instances", "summaries")

    def __init__(self, now_s: float) -> None:
        self.summaries = Allowance(SUMMARIES_OF_TOKEN, now_s)
        self.instances = NamesOfHour(INSTANCES_OF_TOKEN_AN_HOUR)


class Turns:
    """Thread-safe.

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
        self._lock = threading.Lock()  # guards both
        self._tokens: dict[str, _TokenTurns] = {}
        self._instances: LRUCache[tuple[str, str], Allowance] = LRUCache(_INSTANCES_REMEMBERED)

    def require(self, environment: str, token: Token, instance: str) -> None:
        """Let a summary in.

        Raises:
            TooManyReportsError: the token or the instance sent too many, or the token speaks for
                too many instances.
        """
        now_s = self._clock()
        with self._lock:
            refusal = self._refusal(environment, token.id, instance, now_s)
        if refusal is None:
            return
        limit, wait_s = refusal
        self._on_capped(environment, limit)
        self._alarms.raise_now(
            environment,
            kind=AlarmKind.TELEMETRY_CAPPED,
            subject=f"{token.id}: {limit}",
            detail=f"token {token.name!r} sends more than is taken; last, instance {instance!r}",
        )
        spread_s = min(wait_s, _MAX_RETRY_AFTER_S - _JITTER_S) + self._random() * _JITTER_S
        raise TooManyReportsError(f"too many {limit}", math.ceil(spread_s))

    def _refusal(
        self, environment: str, token_id: str, instance: str, now_s: float
    ) -> tuple[str, float] | None:
        """Return the limit that stands against a summary, and for how many seconds."""
        token = self._tokens.get(token_id)
        if token is None:
            token = self._tokens[token_id] = _TokenTurns(now_s)
        hour = int(now_s // _HOUR_S)
        if not token.instances.admit(instance, hour):
            return "instances of a token", (hour + 1) * _HOUR_S - now_s
        try:
            of_instance = self._instances[environment, instance]
        except KeyError:
            of_instance = Allowance(SUMMARIES_OF_INSTANCE, now_s)
            self._instances[environment, instance] = of_instance
        if not of_instance.take(1, now_s):
            return "summaries of an instance", 1.0
        # The token last: what is turned away takes nothing from the others that it speaks for.
        if not token.summaries.take(1, now_s):
            return "summaries of a token", 1.0
        return None
