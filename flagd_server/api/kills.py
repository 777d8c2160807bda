"""Off is easy, on has ceremony: kill needs one idempotent POST, restore has to name the kill."""

from flask import Blueprint, Response, url_for

from flagd_server.api import documents, receipts
from flagd_server.api.auth import caller
from flagd_server.api.configurations import with_version
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_query, takes_query
from flagd_server.api.schemas.admin import KillBody
from flagd_server.api.schemas.queries import KillQuery
from flagd_server.api.schemas.rollouts import RestoreBody
from flagd_server.api.wiring import services
from flagd_server.domain.configuration import KillSource

blueprint = Blueprint(
    "kills", __name__, url_prefix="/api/v1/flags/<flag>/environments/<environment>"
)


@blueprint.post("/kill")
@takes_query
def kill(flag: str, environment: str) -> Json:
    query = read_query(KillQuery)
    body = read_body(KillBody)
    killed = services().kills.kill(
        environment,
        flag,
        source=KillSource(body.source),
        reason=body.reason,
        actor=caller().name,
    )
    answer = {
        "killed": True,
        "already": killed.already,
        "kill": killed.kill.to_document(),
        "version": killed.version,
        "sequence": killed.sequence,
        "report": _report_path(flag, environment, killed.kill.evidence),
    }
    if query.wait_s is not None:
        answer["receipt"] = receipts.wait_for(
            environment, killed.sequence, killed.kill.id, query.wait_s
        )
    return answer


@blueprint.get("/kill")
def get_kill(flag: str, environment: str) -> Json:
    standing = services().standing_kills.get(environment, flag)
    return {
        "kill": standing.kill.to_document(),
        "version": standing.version,
        "sequence": standing.sequence,
        "report": _report_path(flag, environment, standing.kill.evidence),
        "receipt": receipts.document(standing.receipt, standing.way),
        "unconfirmed": [documents.process(each) for each in standing.unconfirmed],
    }


def _report_path(flag: str, environment: str, evidence: str | None) -> str | None:
    """Return where the guard's report on a kill is read; None where the guard did not kill."""
    if evidence is None:
        return None
    return url_for("evidence.get_evidence", flag=flag, environment=environment, evidence=evidence)


@blueprint.post("/restore")
def restore(flag: str, environment: str) -> Response:
    body = read_body(RestoreBody)
    restore, actor = body.to_domain(), caller().name
    if body.rollout is None:
        return with_version(services().kills.restore(environment, flag, restore, actor=actor))
    plan = body.rollout.to_domain()
    services().rollouts.start(environment, flag, plan, actor=actor, restore=restore)
    return with_version(services().configurations.get(environment, flag))
