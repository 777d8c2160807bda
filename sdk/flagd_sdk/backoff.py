"""How long to wait before trying again. Pure: the random number is an argument."""

from typing import NamedTuple

from flagd_sdk.errors import StatusError


class Backoff(NamedTuple):
    """Exponential delays with jitter.

    Attributes:
        first_s: upper end of the delay before the first retry.
        cap_s: no delay is longer, but for half as much again where a server named a time.
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
            asked_s: the server's own wish (the stream's `retry:`); bounded by `cap_s`. No later
                wait is for less, lest those whom a restarting server refused crowd together.
        """
        asked_s = min(asked_s, self.cap_s)
        if failures <= 1:
            window_s = max(self.first_s, asked_s)
            return self.floor_s + (window_s - self.floor_s) * random
        # The exponent is bounded lest the power overflow after days of failures.
        grown_s = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return max(self.floor_s, max(grown_s, asked_s) * (0.5 + random / 2))

    def delay_after_s(
        self, error: Exception, failures: int, random: float, asked_s: float = 0.0
    ) -> float:
        """Return the seconds to wait after an attempt that failed with this error."""
        if not isinstance(error, StatusError):
            return self.delay_s(failures, random, asked_s)
        if error.is_token_refused:
            # Only a human can help: near the cap at once.
            delay_s = self.long_delay_s(random)
        else:
            delay_s = self.delay_s(failures, random, asked_s)
        # Whoever was told the same `Retry-After` in the same moment must not come back in one
        # too. And however long it is, the flags must not be old for long once all is well.
        retry_after_s = min(error.retry_after_s or 0.0, self.cap_s)
        return max(delay_s, retry_after_s * (1.0 + random / 2))

    def long_delay_s(self, random: float) -> float:
        """Return a wait near the cap at once, for what time alone does not mend."""
        return self.cap_s * (0.5 + random / 2)
