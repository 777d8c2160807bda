"""/api/v1/environments/{environment}/slos"""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_name
from flagd_server.api.schemas.objectives import SloBody
from flagd_server.api.wiring import services

blueprint = Blueprint("slos", __name__, url_prefix="/api/v1/environments/<environment>/slos")


@blueprint.get("")
def list_slos(environment: str) -> Json:
    return documents.items(map(documents.slo, services().slos.list(environment)))


@blueprint.get("/<service>")
def get_slo(environment: str, service: str) -> Json:
    return documents.slo(services().slos.get(environment, service))


@blueprint.put("/<service>")
def put_slo(environment: str, service: str) -> tuple[Json, int]:
    name = read_name("service", service)
    body = read_body(SloBody)
    stored = services().slos.put(
        environment,
        name,
        body.availability,
        latency=body.latency_objective(),
        window_days=body.window_days,
        source=body.prometheus_source(),
        actor=caller().name,
    )
    return documents.slo(stored), 201 if stored.version == 1 else 200


@blueprint.get("/<service>/state")
def get_slo_state(environment: str, service: str) -> Json:
    states = services().slo_states
    services().asking.wait(states.questions(environment, service))
    return states.get(environment, service).to_document()


@blueprint.delete("/<service>")
def delete_slo(environment: str, service: str) -> tuple[str, int]:
    services().slos.delete(environment, service, actor=caller().name)
    return "", 204
