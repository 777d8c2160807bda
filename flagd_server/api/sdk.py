"""/sdk/v1: what an application's SDK reads and reports. The stream is in stream.py."""

from flask import Blueprint, Response, request

from flagd_server.api.auth import caller_environment, caller_token
from flagd_server.api.polls import CACHE_CONTROL
from flagd_server.api.reporting import JSON, take_in
from flagd_server.api.requests import read_body_by
from flagd_server.api.schemas.telemetry import read_summary
from flagd_server.api.wiring import services

blueprint = Blueprint("sdk", __name__, url_prefix="/sdk/v1")


@blueprint.get("/flags")
def get_flags() -> Response:
    snapshot = services().snapshots.current(caller_environment())
    headers = {"ETag": snapshot.etag, "Cache-Control": CACHE_CONTROL}
    # The very tag, alone, and none are answered before Flask (polls.py): what is left is lists of
    # tags, weak ones and `*`.
    if request.if_none_match.contains_weak(snapshot.etag.strip('"')):
        return Response(status=304, headers=headers)
    return Response(snapshot.body, headers=headers, content_type=JSON)


@blueprint.post("/telemetry")
def report_telemetry() -> Response:
    # A report in order comes by a shorter way (reporting.py): what is left are the others.
    reply = take_in(services(), caller_token(), read_body_by(read_summary))
    return Response(reply, content_type=JSON)
