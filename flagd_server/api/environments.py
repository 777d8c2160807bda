"""/api/v1/environments"""

from flask import Blueprint

from flagd_server.api import access, documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.admin import EnvironmentCreate, EnvironmentRename
from flagd_server.api.wiring import services

blueprint = Blueprint("environments", __name__, url_prefix="/api/v1/environments")


@blueprint.get("")
def list_environments() -> Json:
    return documents.items(
        documents.environment(each)
        for each in services().environments.list()
        if access.may(access.READ, each.key)
    )


@blueprint.post("")
def create_environment() -> tuple[Json, int]:
    body = read_body(EnvironmentCreate)
    created = services().environments.create(body.key, body.name or body.key, actor=caller().name)
    return documents.environment(created), 201


@blueprint.get("/<environment>")
def get_environment(environment: str) -> Json:
    return documents.environment(services().environments.get(environment))


@blueprint.patch("/<environment>")
def rename_environment(environment: str) -> Json:
    body = read_body(EnvironmentRename)
    renamed = services().environments.rename(environment, body.name, actor=caller().name)
    return documents.environment(renamed)


@blueprint.delete("/<environment>")
def delete_environment(environment: str) -> tuple[str, int]:
    services().environments.delete(environment, actor=caller().name)
    return "", 204
