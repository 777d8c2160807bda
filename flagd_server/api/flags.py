"""/api/v1/flags: what is the same in every environment."""

from flask import Blueprint, Response, jsonify

from flagd_server.api import access, documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import optional_version, read_body, read_query, takes_query
from flagd_server.api.schemas.admin import FlagCreate, FlagUpdate
from flagd_server.api.schemas.queries import FlagsQuery
from flagd_server.api.wiring import services
from flagd_server.services.flags import FlagWithConfigurations, NewFlag

blueprint = Blueprint("flags", __name__, url_prefix="/api/v1/flags")


@blueprint.get("")
@takes_query
def list_flags() -> Json:
    query = read_query(FlagsQuery)
    found = services().flags.list(tag=query.tag, archived=query.archived)
    return documents.items(map(documents.flag, found))


@blueprint.post("")
def create_flag() -> tuple[Response, int]:
    body = read_body(FlagCreate)
    created = services().flags.create(NewFlag(**body.given()), actor=caller().name)
    return _with_configurations(created), 201


@blueprint.get("/<flag>")
def get_flag(flag: str) -> Response:
    return _with_configurations(services().flags.get(flag))


@blueprint.patch("/<flag>")
def update_flag(flag: str) -> Response:
    seen = optional_version()
    changes = read_body(FlagUpdate).given()
    comment = changes.pop("comment", "")
    services().flags.update(
        flag,
        changes,
        actor=caller().name,
        comment=comment,
        expected_version=seen,
        require_release=access.require_release,
    )
    return _with_configurations(services().flags.get(flag))


def _with_configurations(found: FlagWithConfigurations) -> Response:
    configurations = {
        environment: documents.configuration(version)
        for environment, version in found.configurations.items()
        if access.may(access.READ, environment)
    }
    response = jsonify(documents.flag(found.flag) | {"configurations": configurations})
    response.set_etag(str(found.flag.version))
    return response
