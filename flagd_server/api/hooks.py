"""/hooks: for tools of delivery and alerting, each spoken to in its own way.

What an answer does in each tool is in docs/tools.md.
"""

from datetime import UTC, datetime

from flask import Blueprint, g, request

from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.json_body import parse_json
from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.requests import (
    hold,
    read_body_by,
    read_raw_body,
)
from flagd_server.api.schemas.hooks import Alert, AlertmanagerBody, FlaggerBody, SignedBody
from flagd_server.api.wiring import services
from flagd_server.domain.hooks import Question, question_of
from flagd_server.domain.times import format_time
from flagd_server.services.called_kills import Call, Outcome
from flagd_server.services.gate_answers import GateAnswer

blueprint = Blueprint("hooks", __name__, url_prefix="/hooks")

_ANNOTATIONS = ("summary", "description", "message")


@blueprint.post("/flagger/<environment>/<gate>")
def answer_flagger(environment: str, gate: str) -> tuple[Json, int]:
    body = hold(FlaggerBody.model_validate, g.flagger_body)
    question = question_of(body.hook, body.phase)
    if question is Question.NOTHING:
        return {"answer": "yes", "verdict": None, "reasons": ""}, 200
    answer = services().gate_answers.answer(
        environment,
        gate,
        question,
        asked_for=f"{body.namespace}/{body.name}",
        actor=f"Flagger ({caller().name})",
    )
    document = {
        "answer": "yes" if answer.is_yes else "no",
        "verdict": answer.word.value,
        "reasons": answer.reasons,
    }
    return document, 200 if answer.is_yes else 403


@blueprint.get("/argo/<environment>/<gate>")
def answer_argo(environment: str, gate: str) -> Json:
    answer = services().gate_answers.look(environment, gate)
    return {"data": _flat(environment, gate, answer)}


def _flat(environment: str, gate: str, answer: GateAnswer) -> Json:
    return {
        "ok": answer.is_yes,
        "verdict": answer.word.value,
        "reasons": answer.reasons,
        "environment": environment,
        "gate": gate,
        "at": format_time(answer.at),
    }


@blueprint.post("/alertmanager/<environment>")
def take_alerts(environment: str) -> Json:
    body = read_body_by(AlertmanagerBody.model_validate)
    calls = [_call(alert) for alert in body.alerts if alert.status == "firing"]
    outcomes = iter(
        services().called_kills.answer(environment, calls, actor=f"Alertmanager ({caller().name})")
    )
    rows = [
        _row(alert, next(outcomes) if alert.status == "firing" else _RESOLVED)
        for alert in body.alerts
    ]
    return {
        "environment": environment,
        "alerts": rows,
        # Alertmanager cuts groups where its receiver has max_alerts.
        "not_sent": max(0, body.truncatedAlerts),
    }


_RESOLVED = Outcome(note="resolved: what is off stays off until a person restores it")


def _call(alert: Alert) -> Call:
    told = next((alert.annotations[name] for name in _ANNOTATIONS if name in alert.annotations), "")
    reason = f"alert {alert.name or 'without a name'} fires{': ' if told else ''}{told}"
    return Call(alert.target, reason, alert.startsAt, alert.labels.get("environment"))


def _row(alert: Alert, outcome: Outcome) -> Json:
    return {
        "alert": alert.name,
        "fingerprint": alert.fingerprint,
        "status": alert.status,
        **_outcome(outcome),
    }


def _outcome(outcome: Outcome) -> Json:
    return {
        "flags": [
            {"flag": each.flag, "did": each.did, "kill": each.kill} for each in outcome.flags
        ],
        "note": outcome.note,
    }


@blueprint.post("/generic/<environment>")
def take_signed(environment: str) -> Json:
    """Needs no token: the environment's secret, with which the body is signed, is what opens it."""
    raw = read_raw_body()
    try:
        signed_at_s = services().hook_secrets.signed_at(
            environment,
            request.headers.get("webhook-id", ""),
            request.headers.get("webhook-timestamp", ""),
            request.headers.get("webhook-signature", ""),
            raw,
        )
    except ValueError as error:
        challenge = {"WWW-Authenticate": 'Signature realm="flagd-server"'}
        raise ProblemError(Problem("unauthorized", str(error), headers=challenge)) from None
    body = hold(SignedBody.model_validate, parse_json(raw))
    call = Call(body.target, body.reason, datetime.fromtimestamp(signed_at_s, UTC))
    (outcome,) = services().called_kills.answer(environment, [call], actor="signed hook")
    return {"environment": environment, **_outcome(outcome)}
