"""How much one caller may ask: each token of the admin API, and each address without a token.

What applications send (flag set, telemetry, OFREP, streams) is not counted here: their limits are
`services.turns`, `services.evaluation` and the hub's, and their answers are as cheap as a refusal.
Neither is a kill: off is easy. A moving window, in memory, so each replica counts for itself.

Of the library beneath Flask-Limiter, which itself looks at every request of the application: that
alone costs as much as all else that Flask does for one, on the paths of applications too.
"""

import math
import random
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from flask import Response, request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from flagd_server.api.problems import Problem
from flagd_server.errors import TooManyRequestsError

# Who is turned away comes again at any moment of so many seconds, not all at once.
_JITTER_S = 5.0
# Whoever has one address of IPv6 has all of its network.
_NETWORK_BITS = 64


class RateLimits:
    """Thread-safe. A limit of 0 is none.

    Args:
        of_token: requests a minute of one token.
        of_address: requests a minute of one address to what needs no token.
        of_refused: refusals (401) a minute of one address, after which it hears 429 instead; a
            good token is let in from there all the same.
        random: from 0 to below 1.
    """

    def __init__(
        self,
        *,
        of_token: int,
        of_address: int,
        of_refused: int,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._of_token = _limit("token", of_token)
        self._of_address = _limit("address", of_address)
        self._of_refused = _limit("refused", of_refused)
        self._random = random

    def require_turn(self, token_id: str) -> None:
        """Count a request of a token.

        Raises:
            TooManyRequestsError: it has sent as many as it may.
        """
        self._require(self._of_token, token_id, "requests of a token")

    def require_open_turn(self) -> None:
        """Count a request to what needs no token, by the address it comes from; else as above."""
        self._require(self._of_address, _network(), "requests of an address without a token")

    def count_refused(self, response: Response) -> Response:
        """Return the answer; the one to a flood of tokens that are none says so instead."""
        if response.status_code != 401:
            return response
        try:
            self._require(self._of_refused, _network(), "requests of an address without a token")
        except TooManyRequestsError as error:
            headers = {"Retry-After": str(error.retry_after_s)}
            return Problem("too-many-requests", str(error), headers=headers).to_response()
        return response

    def _require(self, limit: RateLimitItemPerMinute | None, who: str, what: str) -> None:
        if limit is None or self._window.hit(limit, who):
            return
        # From when on one more is let in, and then spread.
        free_at_s = self._window.get_window_stats(limit, who).reset_time
        wait_s = max(free_at_s - time.time(), 0.0) + self._random() * _JITTER_S
        raise TooManyRequestsError(f"too many {what}", max(1, math.ceil(wait_s)))


def _limit(name: str, per_minute: int) -> RateLimitItemPerMinute | None:
    return RateLimitItemPerMinute(per_minute, namespace=name) if per_minute else None


def _network() -> str:
    """Return whom the request comes from, as far as one can tell apart."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:
        return "unknown"  # a server that knows no addresses: a socket of Unix, a test
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))
    return str(address)
