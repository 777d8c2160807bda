"""Webhooks over the API: what is shown of them, and to whom."""

from collections.abc import Callable

import pytest

from tests.server.api.client import Api

PATH = "/api/v1/environments/production/webhooks"
URL = "https://hooks.slack.com/services/T0/B0/secret?of=slack"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8013/api/v1/tokens",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0.0.0.0/",
    ],
)
def test_a_webhook_to_where_the_public_can_not_reach_is_refused_at_once(
    admin: Api, url: str
) -> None:
    refused = admin.put(f"{PATH}/inward", {"url": url})
    assert refused.status_code == 422
    (fault,) = refused.json["errors"]
    assert fault["field"] == "url"
    assert "is not a public address" in fault["message"]
    assert admin.get(PATH).json["items"] == []


@pytest.mark.usefixtures("checkout")
def test_the_path_of_a_url_is_shown_to_those_only_who_may_set_it(
    admin: Api, with_scope: Callable[[str], Api]
) -> None:
    made = admin.put(f"{PATH}/chat", {"url": URL, "format": "slack"})
    assert (made.status_code, made.json["url"]) == (201, URL)
    assert admin.get(f"{PATH}/chat").json["url"] == URL
    for scope in ("read", "deploy"):
        api = with_scope(scope)
        (listed,) = api.get(PATH).json["items"]
        assert listed == api.get(f"{PATH}/chat").json
        assert listed["url"] == "https://hooks.slack.com"
    assert "services/T0" not in admin.get("/api/v1/audit").text
