"""/api/v1/environments/{environment}/segments"""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_key
from flagd_server.api.schemas.admin import SegmentBody
from flagd_server.api.wiring import services

blueprint = Blueprint(
    "segments", __name__, url_prefix="/api/v1/environments/<environment>/segments"
)


@blueprint.get("")
def list_segments(environment: str) -> Json:
    return documents.items(map(documents.segment, services().segments.list(environment)))


@blueprint.get("/<segment>")
def get_segment(environment: str, segment: str) -> Json:
    return documents.segment(services().segments.get(environment, segment))


@blueprint.put("/<segment>")
def put_segment(environment: str, segment: str) -> tuple[Json, int]:
    key = read_key("segment", segment)
    body = read_body(SegmentBody).given()
    stored = services().segments.put(
        environment,
        key,
        body["condition"],
        description=body.get("description", ""),
        actor=caller().name,
    )
    return documents.segment(stored), 201 if stored.version == 1 else 200


@blueprint.delete("/<segment>")
def delete_segment(environment: str, segment: str) -> tuple[str, int]:
    services().segments.delete(environment, segment, actor=caller().name)
    return "", 204
