"""Recorded events through the production guard: what would it have decided, and when?

The format is JSON lines: the policy first, then an event a line, each answered with one line.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Event, Policy, RecordError, parse_event, parse_policy


def decide_all(policy: Policy, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
    """Yield the decision after each event; a life that is over is followed by a new one.

    A life that ended in a kill goes on saying so: nobody restores the flag in a recording.
    """
    guard: FlagGuard | None = None
    for event in events:
        if guard is None:
            guard = FlagGuard(policy, event.t)
        elif guard.is_over(event.t) and not guard.has_killed:
            guard = guard.renewed(event.t)
        guard.observe(event)
        yield {**guard.decision.to_document(), "t": event.t}


def backtest(lines: Iterable[str]) -> Iterator[str]:
    """Answer each recorded event with a line of JSON, as it is read.

    Raises:
        RecordError: a line cannot be read; the message has its number, field and expectation.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise RecordError('line 1: expected {"config": {…}}, got nothing')
    policy = _read(first, parse_policy)
    latest = 0

    def events() -> Iterator[Event]:
        nonlocal latest
        for latest, line in numbered:
            yield _read((latest, line), parse_event)

    decisions = decide_all(policy, events())
    while True:
        try:
            decision = next(decisions, None)
        except RecordError as error:
            message = str(error)
            prefix = "" if message.startswith("line ") else f"line {latest}: "
            raise RecordError(prefix + message) from None
        if decision is None:
            return
        yield json.dumps(decision, ensure_ascii=False, allow_nan=False)


def _read(numbered: tuple[int, str], parse: Any) -> Any:
    number, line = numbered
    try:
        return parse(json.loads(line))
    except RecordError as error:
        raise RecordError(f"line {number}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"line {number}: expected one JSON object, {error}") from None
