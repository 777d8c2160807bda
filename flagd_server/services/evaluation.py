"""Flags evaluated here, for clients that have no SDK (OFREP).

Nothing of it is an exposure: the server never hears what came of the unit of work, so the guard
learns nothing from it.
"""

import json
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.openfeature import openfeature_details
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.types import ResolutionDetails
from flagd_server.domain.allowance import EVALUATIONS_OF_TOKEN, Allowance
from flagd_server.errors import TooManyRequestsError
from flagd_server.services.snapshots import Parts, Snapshots
from flagd_server.storage.records import Token

# So many flags that changed at once are compiled one by one; with more, the whole set is.
_FEW = 16
# Who is turned away comes again at any moment of so many seconds, not all at once.
_JITTER_S = 4.0


@dataclass(frozen=True, slots=True)
class _Compiled:
    parts: Parts
    flag_set: FlagSet


class Evaluation:
    """Thread-safe. A flag set is compiled when it is first asked for, then flag by flag."""

    def __init__(
        self,
        snapshots: Snapshots,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Args:
        clock: monotonic seconds.
        random: from 0 to below 1.
        """
        self._snapshots = snapshots
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()  # guards compiling, and replacing an entry of _compiled
        self._compiled: dict[str, _Compiled] = {}
        self._turns_lock = threading.Lock()  # guards _turns
        self._turns: dict[str, Allowance] = {}

    def evaluate(
        self, environment: str, key: str, context: Mapping[str, object]
    ) -> ResolutionDetails[Any]:
        """Evaluate one flag; what goes wrong with it is in the details.

        Raises:
            NotFoundError: there is no such environment.
        """
        flag_set = self._flag_set(environment)
        return openfeature_details(key, flag_set.resolve(key, context), None)

    def evaluate_all(
        self, environment: str, context: Mapping[str, object]
    ) -> list[ResolutionDetails[Any]]:
        """Evaluate every flag, of one moment.

        Raises:
            NotFoundError: there is no such environment.
        """
        flag_set = self._flag_set(environment)
        return [
            openfeature_details(key, flag_set.resolve(key, context), None) for key in flag_set.flags
        ]

    def require_turn(self, token: Token) -> None:
        """Let a request in.

        Raises:
            TooManyRequestsError: the token has asked too often.
        """
        now_s = self._clock()
        with self._turns_lock:
            allowance = self._turns.get(token.id)
            if allowance is None:
                allowance = self._turns[token.id] = Allowance(EVALUATIONS_OF_TOKEN, now_s)
            is_admitted = allowance.take(1, now_s)
        if not is_admitted:
            wait_s = math.ceil(1.0 + self._random() * _JITTER_S)
            raise TooManyRequestsError("too many evaluations with one token", wait_s)

    def _flag_set(self, environment: str) -> FlagSet:
        parts = self._snapshots.parts(environment)
        held = self._compiled.get(environment)
        if held is None or held.parts is not parts:
            with self._lock:
                # While this one waited, another thread may have got there, or further.
                parts = self._snapshots.parts(environment)
                held = self._compiled.get(environment)
                if held is None or held.parts is not parts:
                    held = _Compiled(parts, _flag_set_of(parts, held))
                    self._compiled[environment] = held
        return held.flag_set


def _flag_set_of(parts: Parts, held: _Compiled | None) -> FlagSet:
    if held is None or held.parts.segments != parts.segments:
        return _compiled_whole(parts)
    before = held.parts.flags
    changed = [key for key, flag in parts.flags.items() if before.get(key) is not flag]
    changed += before.keys() - parts.flags.keys()
    if len(changed) > _FEW:
        return _compiled_whole(parts)
    flag_set = held.flag_set
    for key in changed:
        flag = parts.flags.get(key)
        document = None if flag is None else json.loads(flag)
        flag_set = flag_set.with_flag(parts.sequence, key, document)
    return flag_set


def _compiled_whole(parts: Parts) -> FlagSet:
    return parse_flag_set(json.loads(parts.joined().body))
