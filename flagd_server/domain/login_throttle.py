"""How long whoever fails to log in has to wait, ever longer.

Three counts, so that neither one account nor one address can be tried out, and no stranger locks a
person out: who shows that they have logged in before (with the cookie of a device) is held only to
what that device has tried, whatever others do to the account.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Growth:
    """After `free` failures a wait of `first_s`, doubled by each further one up to `max_s`.

    All is forgotten `forget_s` after the last one.
    """

    free: int
    first_s: float
    max_s: float
    forget_s: float


# A person mistypes a few times. Two hundred guesses a day and device come to nothing.
OF_DEVICE = Growth(free=5, first_s=1.0, max_s=300.0, forget_s=86_400.0)
# From everywhere but known devices together. The cap leaves a person on a new device a chance.
OF_ACCOUNT = Growth(free=10, first_s=1.0, max_s=60.0, forget_s=86_400.0)
# An office, or the proxy in front, may be one address.
OF_ADDRESS = Growth(free=30, first_s=1.0, max_s=60.0, forget_s=3_600.0)


class Failures:
    """Of one account, device or address. Seconds are of any one monotonic clock."""

    __slots__ = ("_count", "_growth", "_last_s")

    def __init__(self, growth: Growth) -> None:
        self._growth = growth
        self._count = 0
        self._last_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Return for how long nothing may be tried; 0 where it may."""
        growth = self._growth
        if now_s - self._last_s >= growth.forget_s:
            self._count = 0
        over = self._count - growth.free
        if over < 0:
            return 0.0
        # The exponent is held down, or the float overflows.
        delay_s = min(growth.max_s, growth.first_s * 2.0 ** min(over, 30))
        return max(0.0, self._last_s + delay_s - now_s)

    def add(self, now_s: float) -> None:
        self._count += 1
        self._last_s = now_s

    def take_back(self) -> None:
        """Undo one `add`: the attempt was none of a stranger's."""
        self._count = max(0, self._count - 1)

    def clear(self) -> None:
        self._count = 0
