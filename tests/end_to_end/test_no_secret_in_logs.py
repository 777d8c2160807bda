"""Every kind of secret and targeting key through every route, and what the server then wrote.

At level debug with the access log on: nothing of it may stand there, be the request right,
malformed, refused, or one on which the server fails.
"""

import http.client
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import quote

from tests.contract.openapi_contract import Operation, contract
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.end_to_end.test_security_headers import UNPARSED, exchange

# A word that stands nowhere else, for whom a flag is evaluated.
TARGETING_KEY = "targeted-9f1d7c"
# What nobody has, but may be a real one of another server.
STRANGE_TOKENS = (
    "fr_admin_" + "Leaked1" * 6,
    "fr_sdk_production_" + "Leaked2" * 6,
    "fr_read_0123456789abcdef." + "Leaked3" * 6 + "x",
    "whsec_" + "Leaked4" * 6,
)
KINDS = ("admin", "read", "deploy", "kill", "sdk", "ofrep")
CONTEXT = {"context": {"targetingKey": TARGETING_KEY, "email": f"{TARGETING_KEY}@shop.example"}}


class Caller:
    def __init__(self, server: FlagServer) -> None:
        self._port = server.port
        self.answers: list[int] = []

    def send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        with closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            is_endless = answer.headers.get("Content-Type", "").startswith("text/event-stream")
            self.answers.append(answer.status)
            return answer.status, b"" if is_endless else answer.read()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def requests_of(
    operation: Operation, token: str
) -> Iterator[tuple[str, bytes | None, dict[str, str]]]:
    """Yield requests with secrets at every place that a request has."""
    path, strange = operation.path(), STRANGE_TOKENS[0]
    right = None
    if "requestBody" in operation.definition:
        example = operation.body_example
        right = json.dumps(CONTEXT if "context" in example else example).encode()
    yield path, right, bearer(token)
    secrets = json.dumps({"a": [*STRANGE_TOKENS, token, CONTEXT]}).encode()
    yield path, secrets, bearer(token)
    yield path, secrets[:-9], bearer(token)
    others = {"Cookie": f"session={token}", "Referer": f"http://x/?token={token}"}
    yield path, right, {"Authorization": f"Basic {token}", "X-API-Key": strange, **others}
    asked = f"{path}?ticket={quote(token)}&targetingKey={TARGETING_KEY}&limit={strange}&%ff%00=%"
    yield asked, right, bearer(token)
    conditions = {"If-Match": strange, "If-None-Match": token, "Last-Event-ID": TARGETING_KEY}
    signed = {"webhook-signature": f"v1,{strange}", "webhook-id": token}
    yield path, right, {**bearer(token), **conditions, **signed, "X-Flagd-Instance": f"{token} x"}


def test_nothing_of_it_is_written(start_server: Callable[..., FlagServer]) -> None:
    server = start_server(
        FLAGD_LOG_LEVEL="debug", FLAGD_ACCESS_LOG="true", FLAGD_REFUSED_PER_MINUTE="0"
    )
    tokens = {"admin": server.admin_token, "sdk": server.sdk_tokens["production"]}
    for scope in KINDS:
        if scope not in tokens:
            asked = {"scope": scope, "name": scope}
            if scope == "ofrep":
                asked["environment"] = "production"
            tokens[scope] = server.call("POST", "/api/v1/tokens", asked).json()["text"]
    server.create_flag("new-checkout")
    made = [
        server.call("PUT", "/api/v1/environments/production/hook-secret").json()["secret"],
        server.call(
            "PUT",
            "/api/v1/environments/production/webhooks/chat",
            {"url": "https://hooks.slack.com/services/T0/B0/Leaked5Leaked5", "format": "slack"},
        ).json()["secret"],
    ]
    ticketed = server.call("POST", "/ofrep/v1/evaluate/flags", CONTEXT, token=tokens["ofrep"])
    uri = ticketed.json()["eventStreams"][0]["endpoint"]["requestUri"]
    made.append(uri.partition("ticket=")[2])
    caller = Caller(server)
    operations = sorted(contract().operations, key=lambda each: each.method == "delete")
    for operation in operations:
        scopes = operation.scopes or {"admin"}
        token = tokens[next(scope for scope in KINDS if scope in scopes)]
        for path, body, headers in requests_of(operation, token):
            caller.send(operation.method.upper(), path, body, headers)
    for token in (*tokens.values(), *STRANGE_TOKENS[:3]):
        # It takes the token's id, for which its text is easily mistaken.
        caller.send("DELETE", f"/api/v1/tokens/{token}", None, bearer(tokens["admin"]))
    caller.send("GET", uri, None, {})
    for request, _ in UNPARSED.values():
        exchange(server, request.replace(b"fr_admin_secret", tokens["admin"].encode()))
    # What fails inside is logged with its traceback.
    with closing(sqlite3.connect(server.database, isolation_level=None)) as connection:
        connection.execute("UPDATE environments SET created_at = 'never'")
        caller.send("GET", "/api/v1/environments", None, bearer(tokens["admin"]))
        body = json.dumps({"key": "x", "name": TARGETING_KEY}).encode()
        caller.send("POST", "/api/v1/environments", body, bearer(tokens["admin"]))
        for table in ("flags", "configurations", "segments", "audit"):
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
    for operation in operations:
        if operation.method == "get":
            continue
        document = {"description": TARGETING_KEY, "variants": {tokens["sdk"]: True}}
        caller.send(
            operation.method.upper(),
            operation.path(),
            json.dumps(document).encode(),
            {**bearer(tokens["admin"]), "If-Match": '"1"'},
        )
    for token in (*tokens.values(), *made, *STRANGE_TOKENS):
        caller.send("GET", f"/api/v1/flags?x={token}", None, bearer(tokens["admin"]))
    server.stop()

    assert {200, 201, 400, 401, 403, 404, 422, 500} <= set(caller.answers)
    written = server.log
    assert "Traceback" in written  # of a request that failed
    assert written.count("/api/v1/flags") > 50  # the access log
    secrets = {*tokens.values(), *server.sdk_tokens.values(), *made}
    for secret in secrets:
        assert secret[-12:] not in written
    for word in (TARGETING_KEY, "Leaked", "targetingKey"):
        assert word not in written, re.findall(f".*{word}.*", written)[:3]
