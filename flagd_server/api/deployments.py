"""/api/v1/deployments: which version of a service runs where, and the switch for all it brought."""

from collections.abc import Sequence

from flask import Blueprint

from flagd_server.api import deployment_documents, documents, receipts
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_query, takes_query
from flagd_server.api.schemas.deployments import (
    DeploymentCreate,
    DeploymentKill,
    DeploymentsQuery,
    EnvironmentKill,
)
from flagd_server.api.schemas.queries import KillQuery
from flagd_server.api.wiring import services
from flagd_server.services.deployments import NewDeployment
from flagd_server.services.kills import FlagKilled

blueprint = Blueprint("deployments", __name__, url_prefix="/api/v1")


@blueprint.post("/deployments")
def register_deployment() -> tuple[Json, int]:
    body = read_body(DeploymentCreate)
    registered = services().deployments.register(NewDeployment(**body.given()), actor=caller().name)
    return documents.deployment(registered.deployment), 201 if registered.is_new else 200


@blueprint.get("/deployments")
@takes_query
def list_deployments() -> Json:
    query = read_query(DeploymentsQuery)
    found = services().deployments.list(
        environment=query.environment,
        service=query.service,
        limit=query.limit,
        before=query.before,
    )
    return documents.page(map(documents.deployment, found.items), found.next)


@blueprint.get("/deployments/<deployment>")
def get_deployment(deployment: str) -> Json:
    return deployment_documents.deployment_state(services().deployment_states.get(deployment))


@blueprint.post("/deployments/<deployment>/kill")
@takes_query
def kill_deployment(deployment: str) -> Json:
    query = read_query(KillQuery)
    body = read_body(DeploymentKill)
    environment, killed = services().deployments.kill(
        deployment, reason=body.reason, actor=caller().name
    )
    return _killed(environment, killed, query.wait_s, is_dry_run=False)


@blueprint.post("/environments/<environment>/kill")
@takes_query
def kill_in_environment(environment: str) -> Json:
    query = read_query(KillQuery)
    body = read_body(EnvironmentKill)
    if body.tag is not None:
        killed = services().deployments.kill_tag(
            environment,
            body.tag,
            source=body.kill_source,
            reason=body.reason,
            actor=caller().name,
            is_dry_run=body.dry_run,
        )
    else:
        killed = services().deployments.kill_version(
            environment,
            body.service,
            body.version,
            source=body.kill_source,
            reason=body.reason,
            actor=caller().name,
            is_dry_run=body.dry_run,
        )
    return _killed(environment, killed, query.wait_s, is_dry_run=body.dry_run)


def _killed(
    environment: str, killed: Sequence[FlagKilled], wait_s: float | None, *, is_dry_run: bool
) -> Json:
    answer: Json = {
        "environment": environment,
        "dry_run": is_dry_run,
        "flags": [_flag_killed(each) for each in killed],
    }
    pressed = [each.killed for each in killed if each.killed is not None]
    if wait_s is not None and pressed and not is_dry_run:
        # Whoever has applied the last of them has applied them all.
        last = max(pressed, key=lambda each: each.sequence)
        answer["receipt"] = receipts.wait_for(environment, last.sequence, last.kill.id, wait_s)
    return answer


def _flag_killed(each: FlagKilled) -> Json:
    killed = each.killed
    return {
        "flag": each.flag,
        "killed": killed is not None,
        "already": killed is not None and killed.already,
        "kill": None if killed is None else killed.kill.to_document(),
        "version": None if killed is None else killed.version,
        "sequence": None if killed is None else killed.sequence,
    }
