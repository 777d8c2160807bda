"""What is answered to a request that never became one: no Flask saw it, so these are plain bytes.

Says what was wrong in words of its own: what gunicorn says repeats the header or the line that it
could not read, and there a token may stand.
"""

from http import HTTPStatus

from flagd_server.api.problems import MEDIA_TYPE, Problem
from flagd_server.http_headers import NO_STORE, Headers, as_lines


def answer(problem: Problem, headers: Headers) -> bytes:
    """Return the whole response, after which the connection is closed.

    Args:
        headers: what every answer says.
    """
    body = problem.body.encode()
    own = [
        ("Connection", "close"),
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", str(len(body))),
        *problem.headers.items(),
        NO_STORE,
    ]
    status = HTTPStatus(problem.status)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{as_lines([*own, *headers])}\r\n"
    return head.encode("latin-1") + body
