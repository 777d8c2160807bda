"""Off is easy, on has ceremony: kill needs one idempotent POST, restore has to name the kill."""

from flask import Blueprint, Response, url_for

from flagd_server.api.auth import KILL, WRITE, caller, requires
from flagd_server.api.configurations import with_version
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_query
from flagd_server.api.schemas.admin import KillBody, RestoreBody
from flagd_server.api.schemas.queries import KillQuery
from flagd_server.api.wiring import services
from flagd_server.domain.configuration import KillSource

blueprint = Blueprint(
    "kills", __name__, url_prefix="/api/v1/flags/<flag>/environments/<environment>"
)


@blueprint.post("/kill")
@requires(*KILL, takes_query=True)
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
        answer["receipt"] = _receipt(environment, killed.sequence, query.wait_s)
    return answer


def _report_path(flag: str, environment: str, evidence: str | None) -> str | None:
    """Return where the guard's report on a kill is read; None where the guard did not kill."""
    if evidence is None:
        return None
    return url_for("evidence.get_evidence", flag=flag, environment=environment, evidence=evidence)


def _receipt(environment: str, sequence: int, wait_s: float) -> Json:
    turns = services().receipt_turns
    # Who waits holds a thread, and the confirmations come by requests that need one as well; so
    # where too many wait already, the receipt says what is known now.
    has_turn = turns.acquire(blocking=False)
    try:
        receipt = services().receipts.wait(environment, sequence, wait_s if has_turn else 0.0)
    finally:
        if has_turn:
            turns.release()
    return {
        "processes": receipt.processes,
        "confirmed": receipt.confirmed,
        "unconfirmed": list(receipt.unconfirmed),
        "last_confirmed_after_ms": receipt.last_confirmed_after_ms,
    }


@blueprint.post("/restore")
@requires(*WRITE)
def restore(flag: str, environment: str) -> Response:
    body = read_body(RestoreBody)
    return with_version(
        services().kills.restore(
            environment, flag, kill_id=body.kill, reason=body.reason, actor=caller().name
        )
    )
