"""…/evidence: what the guard knows now, and the reports on what it decided.

Each is JSON, or a page of plain text for people: by `?format=text`, or by `Accept: text/plain`.
"""

from flask import Blueprint, Response, request

from flagd_server.api import documents
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_query, takes_query
from flagd_server.api.schemas.queries import EvidenceQuery
from flagd_server.api.wiring import services
from flagd_server.domain.guard.prose.page import (
    earlier_reports,
    held_off_in,
    page,
    page_without_guard,
)

blueprint = Blueprint(
    "evidence", __name__, url_prefix="/api/v1/flags/<flag>/environments/<environment>/evidence"
)
JSON, TEXT = "application/json", "text/plain"


@blueprint.get("")
@takes_query
def list_evidence(flag: str, environment: str) -> Json | Response:
    is_text = _wants_text()
    reports = [documents.evidence_summary(r) for r in services().evidence.list(environment, flag)]
    watch, running = services().evidence.running(environment, flag)
    held_off = services().local_kills.standing(environment, flag)
    if not is_text:
        watched = {**watch, "held_off_in": held_off}
        return {"watch": watched, "running": running, "reports": reports}
    if running is None:
        now = page_without_guard(environment, flag)
    else:
        now = page({**running, "environment": environment, "flag": flag})
    return _text(now + held_off_in(held_off) + earlier_reports(reports))


@blueprint.get("/<evidence>")
@takes_query
def get_evidence(flag: str, environment: str, evidence: str) -> Json | Response:
    is_text = _wants_text()
    report = documents.evidence_report(services().evidence.get(environment, flag, evidence))
    return _text(page(report)) if is_text else report


def _wants_text() -> bool:
    wanted = read_query(EvidenceQuery).format
    if wanted is not None:
        return wanted == "text"
    return request.accept_mimetypes.best_match((JSON, TEXT), default=JSON) == TEXT


def _text(text: str) -> Response:
    return Response(text, mimetype=TEXT)
