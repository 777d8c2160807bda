"""…/alarms: what people should look at."""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.documents import Json
from flagd_server.api.wiring import services

blueprint = Blueprint("alarms", __name__, url_prefix="/api/v1/environments/<environment>/alarms")


@blueprint.get("")
def list_alarms(environment: str) -> Json:
    return documents.items(map(documents.alarm, services().alarms.list(environment)))
