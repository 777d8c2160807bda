"""Errors → problem details (RFC 9457), in one table.

Nothing below `api/` knows of HTTP: storage, domain and services raise what went wrong, and only
this module says which status that is. A problem's `type` is stable and is what programs compare.
"""

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Response, request
from werkzeug.exceptions import HTTPException

from flagd_server import errors
from flagd_server.api.json_body import MAX_BODY_BYTES, UnreadableBodyError
from flagd_server.domain.faults import Fault

_log = logging.getLogger(__name__)

TYPE_PREFIX = "urn:problem-type:flagd:"
MEDIA_TYPE = "application/problem+json"

# Name (the end of the type) → status, title.
KINDS: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request can't be understood"),
    "unreadable-body": (400, "The body can't be read"),
    "unauthorized": (401, "A valid token is needed"),
    "forbidden": (403, "The token doesn't allow this"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method isn't allowed here"),
    "conflict": (409, "The present state doesn't allow this"),
    "version-conflict": (412, "Someone else was first"),
    "body-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body should be JSON"),
    "invalid": (422, "Some fields are wrong"),
    "version-required": (428, "The version you have seen is needed"),
    "too-many-requests": (429, "Nobody in order sends so much"),
    "internal": (500, "The server made a mistake"),
    "unavailable": (503, "The server can't do this now"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer that is no success.

    Attributes:
        kind: a key of `KINDS`.
        members: what a program needs besides the status, such as `errors`.
    """

    kind: str
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_response(self) -> Response:
        status, title = KINDS[self.kind]
        document = {
            "type": TYPE_PREFIX + self.kind,
            "title": title,
            "status": status,
            "detail": self.detail,
            **self.members,
        }
        return Response(json.dumps(document), status, self.headers, content_type=MEDIA_TYPE)


class ProblemError(Exception):
    """Raised by the HTTP layer itself for what is wrong with the request as a request."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail)


def invalid(faults: Iterable[Fault]) -> Problem:
    """Return the problem that names every fault."""
    named = [{"field": fault.field or "body", "message": fault.message} for fault in faults]
    fields = ", ".join(fault["field"] for fault in named[:3])
    detail = f"see errors: {fields}" + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    return Problem("invalid", detail, {"errors": named})


def bad_header(name: str, message: str) -> Problem:
    faults = [{"field": f"header.{name}", "message": message}]
    return Problem("bad-request", f"{name} {message}", {"errors": faults})


def body_too_large() -> Problem:
    return Problem("body-too-large", f"a body may have at most {MAX_BODY_BYTES} bytes")


def _unavailable(_: errors.StorageUnavailableError) -> Problem:
    return Problem(
        "unavailable",
        "the database can't be used now; nothing was changed",
        headers={"Retry-After": "1"},
    )


def _version_conflict(error: errors.VersionConflictError) -> Problem:
    return Problem(
        "version-conflict",
        f"the current version is {error.current_version}: read it, then try again",
        {"current_version": error.current_version},
    )


def _too_many(error: errors.TooManyReportsError) -> Problem:
    return Problem(
        "too-many-requests", str(error), headers={"Retry-After": str(error.retry_after_s)}
    )


# The first class in the error's ancestry that is here decides.
_BY_ERROR: Mapping[type[Exception], Callable[[Any], Problem]] = {
    ProblemError: lambda error: error.problem,
    UnreadableBodyError: lambda error: Problem("unreadable-body", str(error)),
    errors.NotFoundError: lambda error: Problem("not-found", str(error)),
    errors.ConflictError: lambda error: Problem("conflict", str(error)),
    errors.VersionConflictError: _version_conflict,
    errors.TooManyReportsError: _too_many,
    errors.InvalidError: lambda error: invalid(error.faults),
    errors.StorageUnavailableError: _unavailable,
}


def _of_http(error: HTTPException) -> Problem | None:
    """Return the problem for what Flask and Werkzeug raise by themselves."""
    if error.code == HTTPStatus.NOT_FOUND:
        return Problem("not-found", "there is nothing at this path")
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        detail = f"this path takes {allowed or 'other methods'}"
        return Problem("method-not-allowed", detail, headers={"Allow": allowed})
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return body_too_large()
    if error.code is not None and HTTPStatus.BAD_REQUEST <= error.code < 500:
        return Problem("bad-request", "the request is malformed or was cut off")
    return None


def _internal(error: Exception) -> Problem:
    request_id = secrets.token_hex(8)
    rule = request.url_rule.rule if request.url_rule else "unmatched"
    _log.error("request %s failed: %s %s", request_id, request.method, rule, exc_info=error)
    return Problem(
        "internal",
        f"it was logged as request {request_id}",
        {"request_id": request_id},
        {"X-Request-Id": request_id},
    )


def respond(error: Exception) -> Response:
    """Return the answer to any exception that leaves a view. What is unknown is logged, once."""
    for ancestor in type(error).__mro__:
        if ancestor in _BY_ERROR:
            return _BY_ERROR[ancestor](error).to_response()
    problem = _of_http(error) if isinstance(error, HTTPException) else None
    return (problem or _internal(error)).to_response()
