"""What a webhook is sent."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from flagd_server.domain.notifications import (
    RETRY_AFTER_S,
    body_of,
    check_webhook,
    headers_for,
    new_secret,
    retry_after_s,
)

HAPPENING: dict[str, Any] = {
    "kind": "kill",
    "environment": "production",
    "flag": "new-checkout",
    "at": "2026-11-27T12:00:00.000Z",
    "by": "guard",
    "text": "killed: <error> & more",
    "detail": {"evidence": "ev-1"},
}


def test_a_message_is_what_happened_with_its_id() -> None:
    assert json.loads(body_of("json", "msg-1", HAPPENING)) == {"id": "msg-1", **HAPPENING}


def test_slack_gets_a_text_in_which_nothing_is_a_link_or_a_mention() -> None:
    assert json.loads(body_of("slack", "msg-1", HAPPENING)) == {
        "text": "*production · new-checkout* killed: &lt;error&gt; &amp; more"
    }


def test_it_is_signed_as_standard_webhooks_says() -> None:
    # The example of the specification, checked with its own reference implementation.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = headers_for(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"


def test_another_body_id_or_time_has_another_signature() -> None:
    secret = new_secret(b"k" * 32)
    assert base64.b64decode(secret.removeprefix("whsec_")) == b"k" * 32

    def signature(*message: Any) -> str:
        return headers_for(secret, *message)["webhook-signature"]

    signatures = {
        signature("a", 1, b"x"),
        signature("b", 1, b"x"),
        signature("a", 2, b"x"),
        signature("a", 1, b"y"),
    }
    assert len(signatures) == 4
    expected = hmac.new(b"k" * 32, b"a.1.x", hashlib.sha256).digest()
    assert f"v1,{base64.b64encode(expected).decode()}" in signatures


def test_it_is_sent_again_with_growing_pauses_and_then_given_up() -> None:
    waits = [retry_after_s(n, 500, 0.5) for n in range(1, len(RETRY_AFTER_S) + 2)]
    assert waits[:-1] == list(RETRY_AFTER_S)
    assert waits[-1] is None
    assert retry_after_s(1, None, 0.0) == 5.0 * 0.875
    assert retry_after_s(1, 410, 0.5) is None


@pytest.mark.parametrize(
    ("url", "events", "fields"),
    [
        ("https://chat.example.com/x", ["kill", "stage"], []),
        ("ftp://chat.example.com/x", [], ["url"]),
        ("https://user:pass@chat.example.com/", [], ["url"]),
        ("not a url", ["kill", "surprise"], ["url", "events[1]"]),
    ],
)
def test_each_fault_is_named(url: str, events: list[str], fields: list[str]) -> None:
    assert [fault.field for fault in check_webhook(url, events)] == fields
