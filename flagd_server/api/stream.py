"""/sdk/v1/stream: a request like any other, until its connection goes over to the hub."""

import re

from flask import Blueprint, Response, request

from flagd_server.api.auth import SDK, caller, caller_environment, requires
from flagd_server.api.problems import Problem, ProblemError, bad_header
from flagd_server.api.wiring import services
from flagd_server.hub.base import TAKE_SOCKET, Subscription

blueprint = Blueprint("stream", __name__, url_prefix="/sdk/v1")

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_INSTANCE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LAST_EVENT_ID = re.compile(r"[0-9]{1,19}")


@blueprint.get("/stream")
@requires(*SDK)
def stream() -> Response:
    subscription = Subscription(caller_environment(), caller().id, _instance(), _last_event_id())
    hub = services().hub
    if not hub.has_room:
        headers = {"Retry-After": "5"}
        raise ProblemError(
            Problem("unavailable", "as many streams are open as can be", headers=headers)
        )
    if request.method == "HEAD":
        return Response(headers=_HEADERS, content_type="text/event-stream")
    take_socket = request.environ.get(TAKE_SOCKET)
    if take_socket is None:
        events = hub.stream(subscription)
        return Response(events, headers=_HEADERS, content_type="text/event-stream")
    hub.attach(take_socket(), subscription)
    return Response()  # goes nowhere: the connection is the hub's


def _instance() -> str | None:
    instance = request.headers.get("X-Flagd-Instance")
    if instance is not None and not _INSTANCE.fullmatch(instance):
        raise ProblemError(
            bad_header("X-Flagd-Instance", "should be 1 to 64 of the characters A-Z a-z 0-9 _.:-")
        )
    return instance


def _last_event_id() -> int | None:
    # An id that is none of ours asks for the whole set, as no id does; a reader could not get rid
    # of it if it were refused.
    held = request.headers.get("Last-Event-ID", "")
    return int(held) if _LAST_EVENT_ID.fullmatch(held) else None
