"""How a deployment does → the JSON document that `openapi.yaml` describes."""

import json
from collections.abc import Iterable

from flagd_server.api import documents
from flagd_server.api.documents import Json
from flagd_server.domain.deployment_health import SloState
from flagd_server.domain.health import Health, Reason
from flagd_server.domain.times import format_time
from flagd_server.services.deployment_blame import Blame
from flagd_server.services.deployment_states import (
    SLO_S,
    TRAFFIC_S,
    BroughtFlag,
    DeploymentState,
    Share,
)
from flagd_server.storage.records import Evidence


def deployment_state(state: DeploymentState) -> Json:
    traffic = state.traffic
    return {
        **documents.deployment(state.deployment),
        "processes": _share(state.processes),
        "traffic": {
            "window_s": TRAFFIC_S,
            **_share(state.requests),
            "flag": traffic.flag,
            "errors": traffic.errors,
            "error_rate": traffic.error_rate,
            "latency_ms": {"p50": traffic.latency_ms(0.50), "p99": traffic.latency_ms(0.99)},
        },
        "slo": None if state.slo is None else _slo(state.slo),
        "flags": [_flag(each) for each in state.flags],
        "verdict": _verdict(state.blame),
        "health": health(state.health, state.checks),
    }


def health(verdict: Health, checks: Iterable[Reason]) -> Json:
    return {
        "verdict": verdict.value,
        "reasons": [
            {"check": each.check, "verdict": each.word.value, "detail": each.detail}
            for each in checks
        ],
    }


def _share(share: Share) -> Json:
    return {"count": share.own, "of_service": share.of_service, "share": share.share}


def _slo(slo: SloState) -> Json:
    return {
        "availability": slo.availability,
        "state": slo.word.value,
        "window_s": SLO_S,
        "exposures": slo.exposures,
        "errors": slo.errors,
        "burn_rate": slo.burn_rate,
        "e_value": slo.e_value,
        "detail": slo.detail,
    }


def _flag(brought: BroughtFlag) -> Json:
    configuration, state = brought.configuration.configuration, brought.state
    return {
        "flag": state.flag,
        "enabled": configuration.enabled,
        "kill": None if configuration.kill is None else configuration.kill.to_document(),
        "guarded": brought.is_guarded,
        "decided": state.decided,
        "held": state.held,
        "blind": list(state.blind),
        "decisions": [_decision(each) for each in brought.decisions],
    }


def _decision(evidence: Evidence) -> Json:
    report = json.loads(evidence.document)
    return {
        "id": evidence.id,
        "at": format_time(evidence.at),
        "action": report["action"],
        "reason": report["decision"]["reason"],
    }


def _verdict(blame: Blame) -> Json:
    return {
        "verdict": blame.verdict.word.value,
        "flags": list(blame.verdict.flags),
        "reasons": list(blame.verdict.reasons),
        "service": None if blame.service is None else blame.service.to_document(),
        "by_flag": [each.to_document() for each in blame.findings],
    }
