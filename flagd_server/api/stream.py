"""Streams: a request like any other, until its connection goes over to the hub."""

import random
import re

from flask import Blueprint, Response, request

from flagd_server.api.auth import caller_environment, caller_token
from flagd_server.api.problems import Problem, ProblemError, bad_header
from flagd_server.api.wiring import services
from flagd_server.errors import TooManyRequestsError
from flagd_server.hub.base import Subscription
from flagd_server.wsgi import TAKE_SOCKET

blueprint = Blueprint("stream", __name__, url_prefix="/sdk/v1")

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY_S = (5, 15)
_INSTANCE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LAST_EVENT_ID = re.compile(r"[0-9]{1,19}")


@blueprint.get("/stream")
def stream() -> Response:
    return open_stream(
        Subscription(caller_environment(), caller_token().id, _instance(), last_event_id())
    )


def open_stream(subscription: Subscription) -> Response:
    """Hand the connection of the request over to the hub, where the server can part with it.

    Raises:
        ProblemError: there is no room for one more.
        TooManyRequestsError: the token has as many as it may.
    """
    hub = services().hub
    # Spread, so that those who are turned away together don't come together.
    retry_after_s = random.randint(*_RETRY_S)  # noqa: S311
    if not hub.has_room:
        headers = {"Retry-After": str(retry_after_s)}
        raise ProblemError(
            Problem("unavailable", "as many streams are open as can be", headers=headers)
        )
    if not hub.has_room_for(subscription.token_id):
        raise TooManyRequestsError("too many streams of a token", retry_after_s)
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


def last_event_id() -> int | None:
    """Return the sequence that the reader holds; None where it holds nothing of ours."""
    # An id that is none of ours asks for the whole set, as no id does; a reader could not get rid
    # of it if it were refused.
    held = request.headers.get("Last-Event-ID", "")
    return int(held) if _LAST_EVENT_ID.fullmatch(held) else None
