"""How much one reporter may claim before the server stops listening to it.

Every limit is far above honest use, so that what meets one is a fault or a forgery; below them all
reports are believed alike. Whether something is over a limit never depends on which variant it
speaks of, or the guard's comparison would be biased.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So much a second in the long run, and `burst` at once after a pause."""

    per_s: float
    burst: float


# Of one flag by one process: opening and closing an empty scope takes the SDK some 5 µs, so a
# process that does nothing else gets to 200,000 a second for a moment and to half of that with any
# work. Ten minutes' worth at once, for a process whose server was away reports all of that time in
# one summary: at 2,000 requests a second these are eight hours.
EXPOSURES_OF_INSTANCE = Rate(100_000.0, 60_000_000.0)

# An SDK sends at most 3 a second, and after an outage at its end the 61 that it holds at once.
SUMMARIES_OF_INSTANCE = Rate(100.0, 2_000.0)

# How far the number of a summary may be ahead of the last one: those that an SDK made meanwhile, at
# most 3 a second, may have been dropped. Whoever sends one from far ahead, under the name of an
# instance, has all that it sends taken for duplicates until it gets there.
NUMBERS_OF_INSTANCE = Rate(10.0, 1_000.0)

# Twice what one server is made for, and ten seconds of that for a fleet that comes back at once.
SUMMARIES_OF_TOKEN = Rate(4_000.0, 40_000.0)

INSTANCES_OF_TOKEN_AN_HOUR = 20_000
"""As many as a server keeps receipts of; fifty processes in a crash loop make 18,000 an hour when
each lives ten seconds, and those are to be heard."""

RELEASES_OF_FLAG_AN_HOUR = 500
"""(service, service version) pairs: a flag that a hundred services share, each deployed four times
within the hour, has them."""

KINDS_OF_FLAG_AN_HOUR = 200
"""Kinds of unit events; one process makes at most 50 of a flag, and the guard hears 40 an epoch."""

# By OFREP, where a fleet may share a token and each request be an evaluation. It takes a good part
# of what one server can answer, and leaves telemetry its own.
EVALUATIONS_OF_TOKEN = Rate(1_000.0, 20_000.0)

# Versions of services that nobody registered and that report for the first time. A hundred an hour,
# day and night, is far above what people deploy; a fleet that is new to the server comes at once.
DEPLOYMENTS_OF_ENVIRONMENT = Rate(100 / 3_600, 2_000.0)

SERVICES_OF_ENVIRONMENT = 500
"""Services whose latency is measured."""


class Allowance:
    """What is left of a rate: a token bucket, full at the start.

    Seconds are of any clock; one that runs backwards adds nothing.
    """

    __slots__ = ("_at_s", "_left", "_rate")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._rate = rate
        self._left = rate.burst
        self._at_s = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take the amount if it is there whole; return whether it was."""
        if amount > self.left(now_s):
            return False
        self._left -= amount
        return True

    def left(self, now_s: float) -> float:
        """Return how much could be taken now."""
        elapsed_s = now_s - self._at_s
        self._at_s = now_s
        if elapsed_s > 0:
            filled = self._left + elapsed_s * self._rate.per_s
            self._left = filled if filled < self._rate.burst else self._rate.burst
        return self._left


class NamesOfHour:
    """The first so many names that were heard within an hour of the clock."""

    __slots__ = ("_hour", "_limit", "_names")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hour = -1
        self._names: set[str | tuple[str, str]] = set()

    def admit(self, name: str | tuple[str, str], hour: int) -> bool:
        """Return whether the name is one of them; it becomes one while there is room."""
        if hour != self._hour:
            self._hour = hour
            self._names = set()
        if name in self._names:
            return True
        if len(self._names) >= self._limit:
            return False
        self._names.add(name)
        return True
