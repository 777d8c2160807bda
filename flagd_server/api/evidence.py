"""…/evidence: what the guard knows now, and the reports on what it decided."""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import READ, requires
from flagd_server.api.documents import Json
from flagd_server.api.wiring import services

blueprint = Blueprint(
    "evidence", __name__, url_prefix="/api/v1/flags/<flag>/environments/<environment>/evidence"
)


@blueprint.get("")
@requires(*READ)
def list_evidence(flag: str, environment: str) -> Json:
    reports = services().evidence.list(environment, flag)
    return {
        "running": services().guarding.running_evidence(environment, flag),
        "reports": [documents.evidence_summary(report) for report in reports],
    }


@blueprint.get("/<evidence>")
@requires(*READ)
def get_evidence(flag: str, environment: str, evidence: str) -> Json:
    return services().evidence.get(environment, flag, evidence).document
