"""/api/v1/flags/{flag}/environments/{environment}: how a flag behaves there, and its history."""

from flask import Blueprint, Response, jsonify

from flagd_server.api import access, documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import expected_version, read_body, read_query, takes_query
from flagd_server.api.schemas.admin import ConfigurationUpdate, RollbackBody
from flagd_server.api.schemas.queries import PageQuery
from flagd_server.api.wiring import services
from flagd_server.storage.records import ConfigurationVersion

blueprint = Blueprint(
    "configurations", __name__, url_prefix="/api/v1/flags/<flag>/environments/<environment>"
)


@blueprint.get("")
def get_configuration(flag: str, environment: str) -> Response:
    return with_version(services().configurations.get(environment, flag))


@blueprint.patch("")
def update_configuration(flag: str, environment: str) -> Response:
    seen = expected_version()
    changes = read_body(ConfigurationUpdate).given()
    comment = changes.pop("comment", "")
    return with_version(
        services().configurations.patch(
            environment,
            flag,
            changes,
            expected_version=seen,
            actor=caller().name,
            comment=comment,
            require_release=access.require_release,
        )
    )


@blueprint.post("/rollback")
def roll_back(flag: str, environment: str) -> Response:
    seen = expected_version()
    body = read_body(RollbackBody)
    return with_version(
        services().configurations.rollback(
            environment,
            flag,
            body.version,
            expected_version=seen,
            actor=caller().name,
            comment=body.comment,
        )
    )


@blueprint.get("/history")
@takes_query
def list_history(flag: str, environment: str) -> Json:
    query = read_query(PageQuery)
    found = services().configurations.history(
        environment, flag, limit=query.limit, before=query.before
    )
    return documents.page(map(documents.configuration, found.items), found.next)


@blueprint.get("/history/<positive:version>")
def get_history_version(flag: str, environment: str, version: int) -> Json:
    return documents.configuration(
        services().configurations.history_version(environment, flag, version)
    )


def with_version(record: ConfigurationVersion) -> Response:
    """Return the configuration with its version as ETag, ready for the next `If-Match`."""
    response = jsonify(documents.configuration(record))
    response.set_etag(str(record.version))
    return response
