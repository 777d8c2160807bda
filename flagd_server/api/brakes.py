"""…/brake: may the guard kill by itself?"""

from flask import Blueprint

from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.wiring import services
from flagd_server.domain.times import format_time

blueprint = Blueprint("brakes", __name__, url_prefix="/api/v1/environments/<environment>/brake")


@blueprint.get("")
def get_brake(environment: str) -> Json:
    brake, waiting = services().brakes.get(environment)
    return {
        "engaged": brake is not None,
        "engaged_at": None if brake is None else format_time(brake.engaged_at),
        "reason": None if brake is None else brake.reason,
        "waiting": waiting,
    }


@blueprint.delete("")
def release_brake(environment: str) -> Json:
    return {"acted_on": services().brakes.release(environment, actor=caller().name)}
