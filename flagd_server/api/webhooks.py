"""/api/v1/environments/{environment}/webhooks: a secret is in the answer that makes it, and nowhere
else.
"""

from flask import Blueprint

from flagd_server.api import access, documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body, read_key
from flagd_server.api.schemas.admin import WebhookBody
from flagd_server.api.wiring import services
from flagd_server.storage.release_records import Webhook

blueprint = Blueprint(
    "webhooks", __name__, url_prefix="/api/v1/environments/<environment>/webhooks"
)


@blueprint.get("")
def list_webhooks(environment: str) -> Json:
    return documents.items(map(_shown, services().webhooks.list(environment)))


@blueprint.get("/<webhook>")
def get_webhook(environment: str, webhook: str) -> Json:
    return _shown(services().webhooks.get(environment, webhook))


@blueprint.put("/<webhook>")
def put_webhook(environment: str, webhook: str) -> tuple[Json, int, dict[str, str]]:
    body = read_body(WebhookBody)
    put = services().webhooks.put(
        environment,
        read_key("webhook", webhook),
        url=body.url,
        form=body.format,
        events=body.events,
        enabled=body.enabled,
        new_secret_wanted=body.new_secret,
        actor=caller().name,
    )
    document = _shown(put.webhook)
    if put.secret is not None:
        document["secret"] = put.secret
    status = 201 if put.webhook.version == 1 else 200
    return document, status, {"Cache-Control": "no-store"}


@blueprint.delete("/<webhook>")
def delete_webhook(environment: str, webhook: str) -> tuple[str, int]:
    services().webhooks.delete(environment, webhook, actor=caller().name)
    return "", 204


@blueprint.get("/<webhook>/deliveries")
def list_deliveries(environment: str, webhook: str) -> Json:
    found = services().webhooks.deliveries(environment, webhook)
    return documents.items(map(documents.delivery, found))


@blueprint.post("/<webhook>/test")
def try_webhook(environment: str, webhook: str) -> tuple[Json, int]:
    sent = services().webhooks.try_out(environment, webhook, actor=caller().name)
    return documents.delivery(sent), 202


def _shown(webhook: Webhook) -> Json:
    return documents.webhook(webhook, is_whole=access.may(access.ADMINISTER, webhook.environment))
