"""/ofrep/v1: OpenFeature's Remote Evaluation Protocol, version 0.3.0.

Its words are camelCase, and its errors are its own: a `400`, `404` or `500` has an `errorCode`, not
a problem's `type`. What it leaves open (`401`, `403`, `429`, `503`) is as everywhere else.
"""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request

from flagd_sdk.core.types import Reason, ResolutionDetails
from flagd_sdk.errors import ErrorCode, EvaluationError
from flagd_server.api import problems
from flagd_server.api.auth import caller_environment, caller_token
from flagd_server.api.cross_origin import ALLOWED_ORIGIN
from flagd_server.api.polls import CACHE_CONTROL
from flagd_server.api.reporting import JSON
from flagd_server.api.requests import read_body_by, takes_query
from flagd_server.api.schemas.ofrep import MAX_CONTEXT_BYTES, read_context
from flagd_server.api.stream import last_event_id, open_stream
from flagd_server.api.wiring import services
from flagd_server.hub.base import Subscription
from flagd_server.services.refetching import refetch_channel
from flagd_server.services.snapshots import encode

blueprint = Blueprint("ofrep", __name__, url_prefix="/ofrep/v1")

# A page that nobody looks at should not keep a stream open for longer; the protocol's default.
INACTIVITY_DELAY_S = 120

_STATUSES = {ErrorCode.FLAG_NOT_FOUND: HTTPStatus.NOT_FOUND, ErrorCode.GENERAL: 500}
_AS_EVERYWHERE = frozenset({401, 403, 429, 503})
_UNREADABLE = frozenset(
    {"bad-request", "body-too-large", "unreadable-body", "unsupported-media-type"}
)


@blueprint.post("/evaluate/flags/<text:key>")
@takes_query
def evaluate_flag(key: str) -> Response:
    services().evaluation.require_turn(caller_token())
    details = services().evaluation.evaluate(caller_environment(), key, _context())
    code = details.error_code
    status = HTTPStatus.OK if code is None else _STATUSES.get(code, HTTPStatus.BAD_REQUEST)
    return _answer(_evaluation(details), status)


@blueprint.post("/evaluate/flags")
@takes_query
def evaluate_flags() -> Response:
    services().evaluation.require_turn(caller_token())
    environment = caller_environment()
    stream_url = f"{blueprint.url_prefix}/stream?ticket={services().tickets.issue(caller_token())}"
    body = encode(
        {
            "flags": [
                _evaluation(details)
                for details in services().evaluation.evaluate_all(environment, _context())
            ],
            "metadata": {"flagSetId": environment},
            # Without an origin: clients take that by which they reach this server.
            "eventStreams": [
                {
                    "type": "sse",
                    "endpoint": {"requestUri": stream_url},
                    "inactivityDelaySec": INACTIVITY_DELAY_S,
                }
            ],
        }
    )
    # Of all that is answered: right for any context, and another one where a ticket is replaced,
    # which a client that only ever hears "not modified" would not get.
    etag = hashlib.sha256(body).hexdigest()[:32]
    headers = {"ETag": f'"{etag}"', "Cache-Control": CACHE_CONTROL}
    if request.if_none_match.contains_weak(etag):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, content_type=JSON)


@blueprint.get("/stream")
@takes_query
def stream_changes() -> Response:
    return open_stream(
        Subscription(
            refetch_channel(caller_environment()),
            caller_token().id,
            last_event_id=last_event_id(),
            origin=request.environ.get(ALLOWED_ORIGIN),
        )
    )


@blueprint.errorhandler(Exception)
def _respond(error: Exception) -> Response:
    """Answer any exception that leaves a view above."""
    if isinstance(error, EvaluationError):
        return _answer(_failure(error.code, str(error)), HTTPStatus.BAD_REQUEST)
    problem = problems.problem_of(error)
    status, _ = problems.KINDS[problem.kind]
    if status in _AS_EVERYWHERE or request.endpoint == f"{blueprint.name}.stream_changes":
        return problem.to_response()
    if problem.kind == "body-too-large":
        problem = problems.body_too_large(MAX_CONTEXT_BYTES)  # whoever refused it: ours is less
    code = ErrorCode.PARSE_ERROR if problem.kind in _UNREADABLE else ErrorCode.GENERAL
    status = min(status, 500) if status >= 500 else HTTPStatus.BAD_REQUEST
    return _answer(_failure(code, problem.detail), status, problem.headers)


def _context() -> dict[str, Any]:
    return read_body_by(read_context, MAX_CONTEXT_BYTES)


# Why a flag was killed is for those who run it, and not for every browser.
_PUBLIC = ("version", "split")


def _evaluation(details: ResolutionDetails[Any]) -> dict[str, Any]:
    if details.reason is Reason.ERROR:
        code = details.error_code or ErrorCode.GENERAL
        return {
            "key": details.flag_key,
            "errorCode": code,
            "errorDetails": details.error_message or "",
        }
    return {
        "key": details.flag_key,
        "reason": details.reason,
        "variant": details.variant,
        "value": details.value,
        "metadata": {
            name: details.flag_metadata[name] for name in _PUBLIC if name in details.flag_metadata
        },
    }


def _failure(code: ErrorCode, message: str) -> dict[str, Any]:
    """Return what is wrong with the request as a whole; it names the flag where one was asked."""
    key = (request.view_args or {}).get("key")
    named = {} if key is None else {"key": key}
    return {**named, "errorCode": code, "errorDetails": message}


def _answer(
    document: dict[str, Any], status: int, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(encode(document), status, headers, content_type=JSON)
