"""Tickets: what stands in the URL of an event stream in place of a token.

A browser's EventSource sends no header, so the URL has to say who asks, and URLs end up in logs. A
ticket opens nothing but the stream, which tells no more than that something changed; it expires by
itself, and ends with the token it was issued for.
"""

import hashlib
import hmac
import re

from flagd_server.clock import Clock
from flagd_server.services.tokens import Tokens
from flagd_server.storage.records import Token

# A client connects again whenever it is given another URL, so all tickets of a token are the same
# for so long. They live on for as long again, or one issued at the end would be of no use.
PERIOD_S = 6 * 3_600

_TICKET = re.compile(r"(tok-[0-9a-f]{12})\.([0-9]{1,12})\.([0-9a-f]{32})", re.ASCII)
_MAC_CHARS = 32  # 128 bits


class Tickets:
    """Issues and checks them; nothing is stored."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def issue(self, token: Token) -> str:
        """Return the ticket of this period."""
        expires_s = (self._now_s() // PERIOD_S + 2) * PERIOD_S
        return f"{token.id}.{expires_s}.{_mac(token, expires_s)}"

    def redeem(self, text: str) -> Token | None:
        """Return the token for which the ticket was issued; None where it opens nothing."""
        match = _TICKET.fullmatch(text)
        if match is None or int(match[2]) <= self._now_s():
            return None
        token = self._tokens.alive(match[1])
        if token is None or not hmac.compare_digest(match[3], _mac(token, int(match[2]))):
            return None
        return token

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1_000


def _mac(token: Token, expires_s: int) -> str:
    # Who can make the key, the hash of the token, has the token. It is the same on every replica
    # and after a restart.
    message = b"stream ticket %b %d" % (token.id.encode(), expires_s)
    return hmac.new(token.digest, message, hashlib.sha256).hexdigest()[:_MAC_CHARS]
