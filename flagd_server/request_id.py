"""The id of the request that this thread is at work on: in its log lines, its answer, the audit."""

import random
import re
from contextvars import ContextVar

CURRENT: ContextVar[str | None] = ContextVar("flagd_request_id", default=None)
"""None outside a request."""

# What a proxy or a caller may choose. It goes into logs and headers as it is.
_GIVEN = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
# W3C Trace Context, 3.2.2: version, trace id, parent id, flags; a later version may have more.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


def choose(given: str | None, traceparent: str | None) -> str:
    """Return the id that the caller gave, else its trace's id, else a new one."""
    if given is not None and _GIVEN.fullmatch(given):
        return given
    if traceparent is not None and (trace := _TRACEPARENT.fullmatch(traceparent)):
        return trace[1]
    # No secret, so that the kernel need not be asked for each; a process that forks is seeded anew.
    return f"{random.getrandbits(128):032x}"
