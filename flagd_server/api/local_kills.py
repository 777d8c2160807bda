"""…/local-kills: where processes took the flag off by themselves, and letting them go on."""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.admin import LiftBody
from flagd_server.api.wiring import services

blueprint = Blueprint(
    "local_kills",
    __name__,
    url_prefix="/api/v1/flags/<flag>/environments/<environment>/local-kills",
)


@blueprint.get("")
def list_local_kills(flag: str, environment: str) -> Json:
    told = services().local_kills.told(environment, flag)
    return {
        "processes": sum(each.is_standing for each in told),
        **documents.items(map(documents.local_kill, told)),
    }


@blueprint.post("/lift")
def lift_local_kills(flag: str, environment: str) -> Json:
    body = read_body(LiftBody)
    lifted = services().local_kills.lift(
        environment, flag, body.kills, reason=body.reason, actor=caller().name
    )
    return {"lifted": lifted}
