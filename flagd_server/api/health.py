"""Whether the process lives, whether it can serve, and what it counted.

No token is needed; with one that may read, `/metrics` names environments, flags and services too.
"""

import gzip
import logging

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from flagd_server.api import access, auth
from flagd_server.api.documents import Json
from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.wiring import services
from flagd_server.domain.times import format_time
from flagd_server.errors import ServerError
from flagd_server.wsgi import WAITING_REQUESTS

blueprint = Blueprint("health", __name__)

_log = logging.getLogger(__name__)


@blueprint.get("/healthz")
def live() -> Json:
    build = services().build
    return {"status": "ok", "version": build.version, "git_sha": build.git_sha}


@blueprint.get("/version")
def version() -> Json:
    build = services().build
    built_at = None if build.built_at is None else format_time(build.built_at)
    return {"version": build.version, "git_sha": build.git_sha, "built_at": built_at}


@blueprint.get("/readyz")
def ready() -> Json:
    readiness = services().readiness
    checks = {name: "ok" if is_alive() else "failed" for name, is_alive in readiness.parts.items()}
    failed = ", ".join(name for name, state in checks.items() if state == "failed")
    try:
        readiness.check_database()
        checks["database"] = "ok"
    except ServerError as error:
        # Asked every few seconds; what is wrong is logged once, by the storage.
        _log.debug("the database can't be written: %s", error)
        checks["database"] = "failed"
    if failed:
        raise ProblemError(
            Problem("unavailable", f"not ready: {failed}", {"checks": checks}, {"Retry-After": "1"})
        )
    # Flags are served from memory. Were this server, and every other one, not ready while the
    # database is away for a moment, nobody would serve them.
    is_degraded = checks["database"] == "failed"
    return {
        "status": "degraded" if is_degraded else "ready",
        "leading": readiness.is_leading(),
        "checks": checks,
    }


@blueprint.get("/metrics")
def metrics() -> Response:
    services().limits.require_open_turn()
    waiting = request.environ.get(WAITING_REQUESTS, lambda: 0)
    names_flags = False
    if "Authorization" in request.headers:
        # One that is wrong is refused: a scrape shouldn't lose half of its series unseen.
        names_flags = auth.bearer_token().scope in access.READ.scopes
    exposition = services().metrics.exposition(waiting(), names_flags=names_flags)
    headers = {"Vary": "Accept-Encoding"}
    if request.accept_encodings.quality("gzip") > 0:
        # Thousands of flags are megabytes, most of it the same words; more effort gains little.
        exposition = gzip.compress(exposition, compresslevel=1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(exposition, headers=headers, content_type=CONTENT_TYPE_LATEST)
