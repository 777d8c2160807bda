"""/api/v1/tokens: a token's text is in the answer that creates it, and nowhere else."""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import READ, WRITE, caller, requires
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.admin import TokenCreate
from flagd_server.api.wiring import services

blueprint = Blueprint("tokens", __name__, url_prefix="/api/v1/tokens")


@blueprint.get("")
@requires(*READ)
def list_tokens() -> Json:
    return documents.items(map(documents.token, services().tokens.list()))


@blueprint.post("")
@requires(*WRITE)
def create_token() -> tuple[Json, int, dict[str, str]]:
    body = read_body(TokenCreate)
    created = services().tokens.create(**body.given(), actor=caller().name)
    document = documents.token(created.token) | {"text": created.text}
    return document, 201, {"Cache-Control": "no-store"}


@blueprint.delete("/<token>")
@requires(*WRITE)
def revoke_token(token: str) -> tuple[str, int]:
    services().tokens.revoke(token, actor=caller().name)
    return "", 204
