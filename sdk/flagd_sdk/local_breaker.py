"""Takes a flag off where this process's own failures say that it hurts, server or no server.

What decides is `core/guard/breaker.py`; here it is given what fails, and its word is carried out.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flagd_sdk.core.counts import Durations
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.instants import rfc3339
from flagd_sdk.core.local_kill import Evidence, LocalKill
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.summary import Tally
from flagd_sdk.flag_state import FlagState
from flagd_sdk.late_imports import importing, make_forks_wait

if TYPE_CHECKING:
    from flagd_sdk.core.guard.breaker import Breaker

_MAX_PROCESSES = 1_000_000
_breaker_type: "type[Breaker] | None" = None


def load() -> "type[Breaker]":
    """Import what judges: its dataclasses cost as much as all of `import flagd_sdk`."""
    global _breaker_type
    if _breaker_type is None:
        with importing():
            from flagd_sdk.core.guard.breaker import Breaker

        _breaker_type = Breaker
    return _breaker_type


class LocalBreaker:
    """One process's breaker. `hear` and `note` are called under one lock, the others by anyone."""

    def __init__(self, state: FlagState, now: Callable[[], datetime]) -> None:
        """Begin without evidence.

        Args:
            now: the wall clock, which only labels.
        """
        make_forks_wait()
        self._state = state
        self._now = now
        self._processes: int | None = None
        self._ended: deque[str]  # flags whose evidence is of the past, until the next look
        self.reset()
        state.on_killed = self._end

    def reset(self) -> None:
        """Forget all evidence, as in a forked child: that is another process."""
        self._breaker: Breaker | None = None
        self._ended = deque()

    def hear(self, flag_set: FlagSet, tally: Tally, now_s: float) -> Sequence[Evidence]:
        """Judge the unit of work that the tally recorded last; what comes back is for `act`."""
        if not tally.failed:
            return ()
        return self._current().hear(flag_set, tally.failed, tally.cells, now_s)

    def note(self, taken: Mapping[Resolution, Durations], now_s: float) -> None:
        """Remember, for ten minutes, the exposures that a summary takes."""
        self._current().recent.add(taken, now_s)

    def _current(self) -> "Breaker":
        breaker = self._breaker
        if breaker is None:
            breaker = self._breaker = load()()
        if self._processes is not None:
            breaker.processes = self._processes
        while self._ended:
            breaker.forget(self._ended.popleft())
        return breaker

    def act(self, decided: Iterable[Evidence]) -> None:
        """Take the flags off: for every scope that begins from now on."""
        for evidence in decided:
            name = f"local-{os.urandom(8).hex()}"
            self._state.kill_locally(LocalKill(name, rfc3339(self._now()), evidence))

    def report(self) -> list[dict[str, Any]]:
        """Return what stands, for a summary: with each one, so that no loss of one matters."""
        return [kill.to_document() for kill in self._state.local_kills.values()]

    def take_reply(self, reply: Mapping[str, Any]) -> bool:
        """Learn from the server's reply to a summary; return whether it lifted anything."""
        processes = reply.get("processes")
        if type(processes) is int:
            self._processes = min(max(processes, 1), _MAX_PROCESSES)
        lifted = reply.get("lifted")
        if not isinstance(lifted, list) or not lifted:
            return False
        return self._state.lift([each for each in lifted if isinstance(each, str)])

    def _end(self, flags: Iterable[str]) -> None:
        self._ended.extend(flags)
