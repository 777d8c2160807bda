"""What is said of a request that never reaches the application, or breaks outside of it."""

import random

from gunicorn.http import errors as malformed

from flagd_server.api.problems import Problem
from flagd_server.serving.heads import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_REQUEST_LINE_BYTES,
    PEEK_BYTES,
)

_BODY_RETRY_S = (1, 5)


class TooManyBodiesError(Exception):
    """As many threads wait for a long body as may."""


def problem_of(error: Exception) -> Problem:
    """Return what to say of an exception that gunicorn would answer to by itself."""
    if isinstance(error, malformed.LimitRequestLine):
        return Problem("uri-too-long", f"at most {MAX_REQUEST_LINE_BYTES} bytes are read")
    if isinstance(error, malformed.LimitRequestHeaders):
        return Problem(
            "headers-too-large",
            f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes are read,"
            f" {PEEK_BYTES} bytes in all",
        )
    is_ours = isinstance(
        error, malformed.InvalidResponseHeader | malformed.InvalidResponseHeaderName
    )
    if isinstance(error, malformed.ParseException) and not is_ours:
        return Problem("bad-request", "the request is malformed")
    if isinstance(error, TooManyBodiesError):
        retry_after_s = random.randint(*_BODY_RETRY_S)  # noqa: S311 - spreads those who come again
        return Problem(
            "unavailable",
            "as many long bodies are being read as can be",
            headers={"Retry-After": str(retry_after_s)},
        )
    return Problem("internal", "it was logged")
