"""Whether the process lives, whether it can serve, and what it counted. No token is needed."""

import logging

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST

from flagd_server.api.documents import Json
from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.wiring import services
from flagd_server.errors import ServerError

blueprint = Blueprint("health", __name__)

_log = logging.getLogger(__name__)


@blueprint.get("/healthz")
def live() -> Json:
    build = services().build
    return {"status": "ok", "version": build.version, "git_sha": build.git_sha}


@blueprint.get("/readyz")
def ready() -> Json:
    checks: dict[str, str] = {}
    for name, check in services().checks.items():
        try:
            check()
            checks[name] = "ok"
        except ServerError as error:
            # Asked every few seconds; what is wrong is logged once, by whoever it is wrong with.
            _log.debug("not ready: %s: %s", name, error)
            checks[name] = "failed"
    if "failed" in checks.values():
        failed = ", ".join(name for name, state in checks.items() if state == "failed")
        raise ProblemError(
            Problem("unavailable", f"not ready: {failed}", {"checks": checks}, {"Retry-After": "1"})
        )
    return {"status": "ready", "checks": checks}


@blueprint.get("/metrics")
def metrics() -> Response:
    return Response(services().metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
