"""/api/v1/environments/{environment}/hook-secret: shown once, in the answer that makes it."""

from flask import Blueprint

from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.wiring import services
from flagd_server.domain.times import format_time
from flagd_server.storage.release_records import HookSecret

blueprint = Blueprint(
    "hook_secrets", __name__, url_prefix="/api/v1/environments/<environment>/hook-secret"
)


@blueprint.get("")
def get_hook_secret(environment: str) -> Json:
    return _document(services().hook_secrets.get(environment))


@blueprint.put("")
def renew_hook_secret(environment: str) -> tuple[Json, int, dict[str, str]]:
    made, is_first = services().hook_secrets.renew(environment, actor=caller().name)
    document = {**_document(made), "secret": made.secret}
    return document, 201 if is_first else 200, {"Cache-Control": "no-store"}


@blueprint.delete("")
def delete_hook_secret(environment: str) -> tuple[str, int]:
    services().hook_secrets.delete(environment, actor=caller().name)
    return "", 204


def _document(record: HookSecret) -> Json:
    return {
        "environment": record.environment,
        "created_at": format_time(record.created_at),
        "created_by": record.created_by,
    }
