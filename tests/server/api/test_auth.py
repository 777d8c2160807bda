"""Who may do what: every operation of the contract against every scope."""

from collections.abc import Callable

import pytest

from flagd_server.domain.token_text import SCOPES
from tests.contract.openapi_contract import Operation, contract
from tests.server.api.client import Api

GUARDED = [operation for operation in contract().operations if operation.scopes]


def _send(api: Api, operation: Operation) -> tuple[int, dict[str, object]]:
    # An empty body is refused after the token has been looked at, so that nothing is changed.
    answer = api.request(operation.method.upper(), operation.path(), {})
    return answer.status_code, answer.json if answer.is_json else {}


@pytest.mark.parametrize("scope", SCOPES)
def test_each_scope_opens_what_the_contract_says_and_nothing_else(
    with_scope: Callable[[str], Api], scope: str
) -> None:
    api = with_scope(scope)
    for operation in sorted(GUARDED, key=lambda operation: operation.method == "delete"):
        status, body = _send(api, operation)
        if scope in operation.scopes:
            assert status not in (401, 403), operation.name
        else:
            assert status == 403, operation.name
            assert body["required_scopes"], operation.name
            assert set(body["required_scopes"]) == operation.scopes
            assert scope in body["detail"]


def test_operations_without_a_token_are_those_of_the_operators() -> None:
    open_operations = {item.name for item in contract().operations if item.is_open}
    # The signed hook is opened by a signature: test_hooks_signed.py.
    assert open_operations == {"live", "ready", "version", "metrics", "take_signed", "log_in"}


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.name)
def test_nothing_is_open_without_a_token(admin: Api, operation: Operation) -> None:
    assert _send(admin.by(None), operation)[0] == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer fr_admin_" + "x" * 43,
        "Bearer " + "x" * 100_000,
        "Bearer \xff\xfe",
        "bearer a b c",
    ],
    ids=lambda header: header[:20],
)
def test_what_is_no_token_is_refused_with_a_challenge(admin: Api, header: str) -> None:
    answer = admin.get("/api/v1/flags", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


def test_the_scheme_is_read_in_any_case(admin: Api, initial_tokens: object) -> None:
    header = f"bEARER {initial_tokens.admin}"  # type: ignore[attr-defined]
    assert admin.get("/api/v1/flags", headers={"Authorization": header}).status_code == 200


def test_an_sdk_sees_its_own_environment_only(admin: Api, checkout: str) -> None:
    body = {"scope": "sdk", "name": "staging shop", "environment": "staging"}
    shop = admin.by(admin.post("/api/v1/tokens", body).json["text"])
    flags = shop.get("/sdk/v1/flags").json
    assert flags["environment"] == "staging"
    assert flags["flags"][checkout]["enabled"] is False


def test_a_secret_is_never_repeated(
    admin: Api, initial_tokens: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = initial_tokens.admin  # type: ignore[attr-defined]
    answers = [
        admin.by(secret + "x").get("/api/v1/flags"),
        admin.get("/api/v1/tokens"),
        admin.post("/api/v1/tokens", {"scope": "admin"}),
        admin.get("/metrics"),
    ]
    assert all(secret not in answer.text for answer in answers)
    assert secret not in caplog.text
