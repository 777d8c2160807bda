"""/api/v1/environments/{environment}/gates: what has to hold before a release goes on."""

from datetime import timedelta

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_key
from flagd_server.api.schemas.gates import ApprovalBody, GateBody, WithdrawalBody
from flagd_server.api.wiring import services
from flagd_server.domain.times import format_time

blueprint = Blueprint("gates", __name__, url_prefix="/api/v1/environments/<environment>/gates")


@blueprint.get("")
def list_gates(environment: str) -> Json:
    return documents.items(map(documents.gate, services().gates.list(environment)))


@blueprint.get("/<gate>")
def get_gate(environment: str, gate: str) -> Json:
    return documents.gate(services().gates.get(environment, gate))


@blueprint.put("/<gate>")
def put_gate(environment: str, gate: str) -> tuple[Json, int]:
    key = read_key("gate", gate)
    body = read_body(GateBody)
    stored = services().gates.put(environment, key, body.definition(), actor=caller().name)
    return documents.gate(stored), 201 if stored.version == 1 else 200


@blueprint.delete("/<gate>")
def delete_gate(environment: str, gate: str) -> tuple[str, int]:
    services().gates.delete(environment, gate, actor=caller().name)
    return "", 204


@blueprint.get("/<gate>/verdict")
def get_gate_verdict(environment: str, gate: str) -> Json:
    verdict, at = services().gate_verdicts.get(environment, gate)
    return {
        "gate": gate,
        "environment": environment,
        "verdict": verdict.word.value,
        "reasons": [
            {"check": reason.check, "verdict": reason.word.value, "detail": reason.detail}
            for reason in verdict.reasons
        ],
        "at": format_time(at),
    }


@blueprint.post("/<gate>/approve")
def approve_gate(environment: str, gate: str) -> Json:
    body = read_body(ApprovalBody)
    return documents.gate(
        services().gates.approve(
            environment,
            gate,
            reason=body.reason,
            valid_for=timedelta(seconds=body.valid_for_s),
            actor=caller().name,
        )
    )


@blueprint.post("/<gate>/withdraw")
def withdraw_gate_approval(environment: str, gate: str) -> Json:
    body = read_body(WithdrawalBody)
    return documents.gate(
        services().gates.withdraw(environment, gate, reason=body.reason, actor=caller().name)
    )
