"""Looks again and again until something is so, or the time is up."""

import time
from collections.abc import Callable, Iterator

from flagd_sdk.ctl.api import Json
from flagd_sdk.ctl.exits import CommandError, Exit


def looks(
    look: Callable[[], Json],
    every_s: float,
    timeout_s: float | None,
    missed: Callable[[CommandError], object],
) -> Iterator[Json]:
    """Yield what each look finds, the first at once, until the time is up.

    A server that can't be reached for a while is looked at again; the last look counts.

    Args:
        missed: told of each look that reached nobody: what was seen before is old by then.

    Raises:
        CommandError: it refuses, or the time is up and it could not be reached.
    """
    until = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        failure: CommandError | None = None
        try:
            yield look()
        except CommandError as error:
            if error.exit is not Exit.UNREACHABLE:
                raise
            missed(failure := error)
        left = every_s if until is None else min(every_s, until - time.monotonic())
        if left <= 0:
            if failure is not None:
                raise failure
            return
        time.sleep(left)
