"""Errors → problem details (RFC 9457), in one table.

Nothing below `api/` knows of HTTP: storage, domain and services raise what went wrong, and only
this module says which status that is. A problem's `type` is stable and is what programs compare.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Response, has_request_context, request
from werkzeug.exceptions import HTTPException

from flagd_server import errors, request_id
from flagd_server.api.json_body import MAX_BODY_BYTES, UnreadableBodyError
from flagd_server.domain.faults import Fault

_log = logging.getLogger(__name__)

TYPE_PREFIX = "urn:problem-type:flagd:"
MEDIA_TYPE = "application/problem+json"

# Name (the end of the type) → status, title.
KINDS: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request can't be understood"),
    "unreadable-body": (400, "The body can't be read"),
    "unauthorized": (401, "A valid token or session is needed"),
    "login-failed": (401, "Nobody is known by this name and password"),
    "forbidden": (403, "The caller isn't allowed to do this"),
    "cross-site": (403, "This may be another site's doing"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method isn't allowed here"),
    "conflict": (409, "The present state doesn't allow this"),
    "version-conflict": (412, "Someone else was first"),
    "body-too-large": (413, "The body is too large"),
    "uri-too-long": (414, "The request line is too long"),
    "unsupported-media-type": (415, "The body should be JSON"),
    "invalid": (422, "Some fields are wrong"),
    "version-required": (428, "The version you have seen is needed"),
    "too-many-requests": (429, "Nobody in order sends so much"),
    "headers-too-large": (431, "The headers are too large"),
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

    @property
    def status(self) -> int:
        return KINDS[self.kind][0]

    @property
    def body(self) -> str:
        status, title = KINDS[self.kind]
        document = {
            "type": TYPE_PREFIX + self.kind,
            "title": title,
            "status": status,
            "detail": self.detail,
            **self.members,
        }
        if (current := request_id.CURRENT.get()) is not None:
            document["request_id"] = current
        return json.dumps(document)

    def to_response(self) -> Response:
        return Response(self.body, self.status, self.headers, content_type=MEDIA_TYPE)


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


def body_too_large(max_bytes: int = MAX_BODY_BYTES) -> Problem:
    return Problem("body-too-large", f"a body may have at most {max_bytes} bytes")


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


def _too_many(error: errors.TooManyRequestsError) -> Problem:
    return Problem(
        "too-many-requests", str(error), headers={"Retry-After": str(error.retry_after_s)}
    )


def _not_allowed(error: errors.NotAllowedError) -> Problem:
    return Problem(
        "forbidden",
        str(error),
        {
            "required_scopes": [],
            "required_role": error.role,
            "environment": error.environment,
        },
    )


def _login_failed(error: errors.LoginError) -> Problem:
    headers = {"WWW-Authenticate": 'Session realm="flagd-server"'}
    return Problem("login-failed", str(error), headers=headers)


# The first class in the error's ancestry that is here decides.
_BY_ERROR: Mapping[type[Exception], Callable[[Any], Problem]] = {
    ProblemError: lambda error: error.problem,
    UnreadableBodyError: lambda error: Problem("unreadable-body", str(error)),
    errors.NotFoundError: lambda error: Problem("not-found", str(error)),
    errors.ConflictError: lambda error: Problem("conflict", str(error)),
    errors.VersionConflictError: _version_conflict,
    errors.TooManyRequestsError: _too_many,
    errors.NotAllowedError: _not_allowed,
    errors.LoginError: _login_failed,
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
    what = "before Flask"
    if has_request_context():
        what = f"{request.method} {request.url_rule.rule if request.url_rule else 'unmatched'}"
    current = request_id.CURRENT.get()
    _log.error("request %s failed: %s", current, what, exc_info=error)
    return Problem("internal", f"it was logged as request {current}")


def problem_of(error: Exception) -> Problem:
    """Return what to say of any exception that leaves a view. What is unknown is logged, once."""
    for ancestor in type(error).__mro__:
        if ancestor in _BY_ERROR:
            return _BY_ERROR[ancestor](error)
    problem = _of_http(error) if isinstance(error, HTTPException) else None
    return problem or _internal(error)


def respond(error: Exception) -> Response:
    """Return the answer to any exception that leaves a view."""
    return problem_of(error).to_response()
