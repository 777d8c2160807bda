"""The wall clock, given to whoever records a time, so that tests can give another one."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Labels records. Durations are measured with a monotonic clock elsewhere."""

    def now(self) -> datetime:
        """Return the present as an aware time in UTC, to the millisecond: as records keep it."""
        ...

    def now_ms(self) -> int:
        """Return whole milliseconds since the Unix epoch."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
