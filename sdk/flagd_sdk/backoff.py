"""How long to wait before trying again. Pure: the random number is an argument."""

from typing import NamedTuple


class Backoff(NamedTuple):
    """Exponential delays with jitter.

    Attributes:
        first_s: upper end of the delay before the first retry.
        cap_s: no delay is longer.
        floor_s: no delay is shorter, so that not even an answer that fails at once makes a busy
            loop.
    """

    first_s: float = 1.0
    cap_s: float = 20.0
    floor_s: float = 0.25

    def delay_s(self, failures: int, random: float, asked_s: float = 0.0) -> float:
        """Return the seconds to wait.

        The first retry is spread evenly over the whole of `first_s` or of what the server asked
        for, since all its clients lost it in the same instant. Later ones keep at least half of
        their exponential delay.

        Args:
            failures: attempts that failed in a row before this wait; 0 after a success.
            random: from 0 to below 1.
            asked_s: the server's own wish (the stream's `retry:`); bounded by `cap_s`.
        """
        if failures <= 1:
            window = max(self.first_s, min(asked_s, self.cap_s))
            return max(self.floor_s, window * random)
        # The exponent is bounded lest the power overflow after days of failures.
        grown = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return max(self.floor_s, grown * (0.5 + random / 2))

    def long_delay_s(self, random: float) -> float:
        """Return the wait where only a human can help (a refused token): near the cap at once."""
        return self.cap_s * (0.5 + random / 2)
