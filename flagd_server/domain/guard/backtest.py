"""Recorded events through the production guard: what would it have decided, and when?

The format is JSON lines: the policy first, then an event a line, each answered with one line.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import (
    Decision,
    Event,
    Policy,
    RecordError,
    parse_event,
    parse_policy,
)

_Parsed = TypeVar("_Parsed", Policy, Event)


@dataclass(slots=True)
class Replay:
    """A guard that is fed recorded events, one life after the other.

    A life that is over is followed by a new one; but one that ended in a kill goes on saying so,
    for nobody restores the flag in a recording.

    Attributes:
        guard: of the running life; None where it is to start with the first event.
    """

    policy: Policy
    guard: FlagGuard | None = None

    @property
    def started_at(self) -> float | None:
        return None if self.guard is None else self.guard.started_at

    def under(self, policy: Policy) -> "Replay":
        """Return a replay that begins as this one does, under another policy."""
        guard = self.guard
        return Replay(policy, guard and guard.renewed(guard.started_at, policy))

    def observe(self, event: Event) -> Decision:
        """Take in the next event and return what is decided after it."""
        if self.guard is None:
            self.guard = FlagGuard(self.policy, event.t)
        elif self.guard.is_over(event.t) and not self.guard.has_killed:
            self.guard = self.guard.renewed(event.t)
        self.guard.observe(event)
        return self.guard.decision


def backtest(lines: Iterable[str]) -> Iterator[str]:
    """Answer each recorded event with a line of JSON, as it is read.

    Raises:
        RecordError: a line cannot be read; the message has its number, field and expectation.
    """
    policy, events = read_recording(lines)
    replay = Replay(policy)
    for event in events:
        answer = {**replay.observe(event).to_document(), "t": event.t}
        yield json.dumps(answer, ensure_ascii=False, allow_nan=False)


def read_recording(lines: Iterable[str]) -> tuple[Policy, Iterator[Event]]:
    """Return the policy of a recording and its events, which are read when they are asked for.

    Raises:
        RecordError: as `backtest` does; of a later line when it is read.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise RecordError('line 1: expected {"config": {…}}, got nothing')
    return _parse(*first, parse_policy), _events(numbered)


def _events(numbered: Iterable[tuple[int, str]]) -> Iterator[Event]:
    last_t = None
    for number, line in numbered:
        event = _parse(number, line, parse_event)
        # The guard would refuse it too, but does not know the line.
        if last_t is not None and event.t < last_t:
            raise RecordError(f"line {number}: t: expected at least {last_t}, got {event.t}")
        last_t = event.t
        yield event


def _parse(number: int, line: str, parse: Callable[[object], _Parsed]) -> _Parsed:
    try:
        return parse(json.loads(line))
    except RecordError as error:
        raise RecordError(f"line {number}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"line {number}: expected one JSON object, {error}") from None
