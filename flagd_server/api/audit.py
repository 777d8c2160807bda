"""/api/v1/audit: who did what, to what."""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_query, takes_query
from flagd_server.api.schemas.queries import AuditQuery
from flagd_server.api.wiring import services

blueprint = Blueprint("audit", __name__, url_prefix="/api/v1/audit")


@blueprint.get("/head")
def get_audit_head() -> Json:
    head = services().audit.head()
    return {"id": head.id, "hash": head.hash.hex()}


@blueprint.get("")
@takes_query
def list_audit() -> Json:
    query = read_query(AuditQuery)
    found = services().audit.list(
        query.limit, query.before, flag=query.flag, environment=query.environment
    )
    return documents.page(map(documents.audit_entry, found.items), found.next)
