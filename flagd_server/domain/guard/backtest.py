"""Recorded events through the production guard: what would it have decided, and when?

The format is JSON lines: the policy first, then an event a line, each answered with one line.
"""

import json
from collections.abc import Iterable, Iterator

from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Policy, RecordError, parse_event, parse_policy


def backtest(lines: Iterable[str]) -> Iterator[str]:
    """Answer each recorded event with a line of JSON, as it is read.

    A life that is over is followed by a new one; but one that ended in a kill goes on saying so,
    for nobody restores the flag in a recording.

    Raises:
        RecordError: a line cannot be read; the message has its number, field and expectation.
    """
    policy: Policy | None = None
    guard: FlagGuard | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            if policy is None:
                policy = parse_policy(document)
                continue
            event = parse_event(document)
            if guard is None:
                guard = FlagGuard(policy, event.t)
            elif guard.is_over(event.t) and not guard.has_killed:
                guard = guard.renewed(event.t)
            guard.observe(event)
        except RecordError as error:
            raise RecordError(f"line {number}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise RecordError(f"line {number}: expected one JSON object, {error}") from None
        answer = {**guard.decision.to_document(), "t": event.t}
        yield json.dumps(answer, ensure_ascii=False, allow_nan=False)
    if policy is None:
        raise RecordError('line 1: expected {"config": {…}}, got nothing')
