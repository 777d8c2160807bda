"""/api/v1/flags/{flag}/environments/{environment}/rollouts, and the templates of stages"""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.rollouts import RolloutCreate, SteerBody
from flagd_server.api.wiring import services
from flagd_server.domain.rollout import Move
from flagd_server.domain.stages import TEMPLATES

blueprint = Blueprint("rollouts", __name__, url_prefix="/api/v1")

_OF_FLAG = "/flags/<flag>/environments/<environment>/rollouts"


@blueprint.get("/rollout-templates")
def list_templates() -> Json:
    return documents.items(
        {"name": name, "stages": [stage.to_document() for stage in stages]}
        for name, stages in TEMPLATES.items()
    )


@blueprint.get(_OF_FLAG)
def list_rollouts(flag: str, environment: str) -> Json:
    found = services().rollouts.list(environment, flag)
    return documents.items(rollout.to_document() for rollout in found)


@blueprint.post(_OF_FLAG)
def start_rollout(flag: str, environment: str) -> tuple[Json, int]:
    plan = read_body(RolloutCreate).to_domain()
    started = services().rollouts.start(environment, flag, plan, actor=caller().name)
    return started.to_document(), 201


@blueprint.get(f"{_OF_FLAG}/<rollout>")
def get_rollout(flag: str, environment: str, rollout: str) -> Json:
    return services().rollouts.get(environment, flag, rollout).to_document()


@blueprint.post(f"{_OF_FLAG}/<rollout>/pause")
def pause_rollout(flag: str, environment: str, rollout: str) -> Json:
    return _steer(flag, environment, rollout, Move.PAUSE)


@blueprint.post(f"{_OF_FLAG}/<rollout>/resume")
def resume_rollout(flag: str, environment: str, rollout: str) -> Json:
    return _steer(flag, environment, rollout, Move.RESUME)


@blueprint.post(f"{_OF_FLAG}/<rollout>/advance")
def advance_rollout(flag: str, environment: str, rollout: str) -> Json:
    return _steer(flag, environment, rollout, Move.ADVANCE)


@blueprint.post(f"{_OF_FLAG}/<rollout>/abort")
def abort_rollout(flag: str, environment: str, rollout: str) -> Json:
    return _steer(flag, environment, rollout, Move.ABORT)


@blueprint.post(f"{_OF_FLAG}/<rollout>/approve")
def approve_rollout(flag: str, environment: str, rollout: str) -> Json:
    reason = read_body(SteerBody).reason
    return (
        services()
        .rollouts.approve(environment, flag, rollout, actor=caller().name, reason=reason)
        .to_document()
    )


def _steer(flag: str, environment: str, rollout: str, move: Move) -> Json:
    reason = read_body(SteerBody).reason
    return (
        services()
        .rollouts.steer(environment, flag, rollout, move, actor=caller().name, reason=reason)
        .to_document()
    )
