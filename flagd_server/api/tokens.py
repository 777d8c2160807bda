"""/api/v1/tokens: a token's text is in the answer that creates it, and nowhere else."""

from datetime import timedelta

from flask import Blueprint

from flagd_server.api import access, documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.admin import TokenCreate
from flagd_server.api.wiring import services

blueprint = Blueprint("tokens", __name__, url_prefix="/api/v1/tokens")


@blueprint.get("")
def list_tokens() -> Json:
    return documents.items(
        documents.token(each)
        for each in services().tokens.list()
        if access.may(access.INSPECT, each.environment)
    )


@blueprint.post("")
def create_token() -> tuple[Json, int, dict[str, str]]:
    body = read_body(TokenCreate)
    given = body.given()
    lasts_s = given.pop("expires_in_s", None)
    expires_at = body.expires_at
    if lasts_s is not None:
        expires_at = services().clock.now() + timedelta(seconds=lasts_s)
    created = services().tokens.create(**given | {"expires_at": expires_at}, actor=caller().name)
    document = documents.token(created.token) | {"text": created.text}
    return document, 201, {"Cache-Control": "no-store"}


@blueprint.delete("/<token>")
def revoke_token(token: str) -> tuple[str, int]:
    services().tokens.revoke(token, actor=caller().name)
    return "", 204
