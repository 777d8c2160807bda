"""/sdk/v1: what an application's SDK reads and reports. The stream is in stream.py."""

from flask import Blueprint, Response, request

from flagd_server.api.auth import SDK, caller, caller_environment, requires
from flagd_server.api.documents import Json
from flagd_server.api.not_modified import CACHE_CONTROL
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.telemetry import SummaryBody
from flagd_server.api.wiring import services

blueprint = Blueprint("sdk", __name__, url_prefix="/sdk/v1")


@blueprint.get("/flags")
@requires(*SDK)
def get_flags() -> Response:
    snapshot = services().snapshots.current(caller_environment())
    headers = {"ETag": snapshot.etag, "Cache-Control": CACHE_CONTROL}
    # The very tag, alone, is answered before Flask (not_modified.py): what is left is lists of
    # tags, weak ones and `*`.
    if request.if_none_match.contains_weak(snapshot.etag.strip('"')):
        return Response(status=304, headers=headers)
    return Response(snapshot.body, headers=headers, content_type="application/json")


@blueprint.post("/telemetry")
@requires(*SDK)
def report_telemetry() -> Json:
    summary = read_body(SummaryBody).to_domain()
    environment = caller_environment()
    receipt = services().ingestion.submit(environment, caller(), summary)
    services().metrics.count_summary(
        environment,
        duplicate=receipt.duplicate,
        accepted=receipt.accepted,
        refused=len(receipt.refused),
    )
    return {
        "accepted": receipt.accepted,
        "duplicate": receipt.duplicate,
        "refused": [{"field": fault.field, "message": fault.message} for fault in receipt.refused],
        "processes": receipt.processes,
        "slow_over_s": dict(receipt.slow_over_s),
    }
