"""OFREP: what a request may be, and what is said of one that can't be used."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flagd_server.api.schemas.ofrep import MAX_ATTRIBUTES, MAX_CONTEXT_BYTES, MAX_CONTEXT_DEPTH
from flagd_server.domain.allowance import EVALUATIONS_OF_TOKEN
from flagd_server.errors import StorageUnavailableError
from tests.contract.openapi_contract import Operation, contract
from tests.server.api.client import Api
from tests.server.api.mutations import mutations
from tests.server.api.ofrep import BULK, evaluate

OPERATIONS = [
    item
    for item in contract().operations
    if "requestBody" in item.definition and "ofrep" in item.definition["tags"]
]
KEYS = ["new-checkout", None]


@pytest.fixture
def web(with_scope: Callable[[str], Api], checkout: str) -> Api:
    return with_scope("ofrep")


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b" ", "PARSE_ERROR", "empty"),
        (b"{", "PARSE_ERROR", "not JSON at line 1"),
        (b"\xff", "PARSE_ERROR", "not UTF-8"),
        (b'{"context": {"a": NaN}}', "PARSE_ERROR", "NaN"),
        (b'{"context": {"a": 1, "a": 2}}', "PARSE_ERROR", "twice"),
        (b'{"context": {"a": "\\ud800"}}', "PARSE_ERROR", "surrogate"),
        (b"[" * 100_00 + b"]" * 100_00, "PARSE_ERROR", "deeper than"),
        (b"[]", "PARSE_ERROR", "the body is a list; expected an object"),
        (b"null", "PARSE_ERROR", "expected an object"),
        (b'{"context": null}', "INVALID_CONTEXT", "context is None; expected an object"),
        (b'{"context": []}', "INVALID_CONTEXT", "context is a list"),
        (b'{"context": {"targetingKey": 7}}', "INVALID_CONTEXT", "context.targetingKey is 7"),
        (b'{"context": {"targetingKey": null}}', "INVALID_CONTEXT", "expected a string"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_used_is_said(
    web: Api, key: str | None, body: bytes, code: str, said: str
) -> None:
    answer = evaluate(web, key, raw=body)
    assert answer.status_code == 400
    assert answer.json["errorCode"] == code
    assert said in answer.json["errorDetails"]
    assert answer.json.get("key") == key


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "options",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/json; charset=latin-1"},
        {"headers": {"Content-Encoding": "gzip"}},
    ],
    ids=str,
)
def test_what_is_not_plain_json_is_not_read(
    web: Api, key: str | None, options: dict[str, Any]
) -> None:
    answer = evaluate(web, key, **options)
    assert (answer.status_code, answer.json["errorCode"]) == (400, "PARSE_ERROR")


@pytest.mark.parametrize("key", KEYS)
class TestLimits:
    def test_of_the_body(self, web: Api, key: str | None) -> None:
        room = MAX_CONTEXT_BYTES - len(json.dumps({"context": {"a": ""}}))
        assert evaluate(web, key, {"targetingKey": "u"}).status_code == 200
        assert evaluate(web, None, {"a": "x" * room}).status_code == 200
        for size in (room + 1, 5_000_000):
            answer = evaluate(web, key, {"a": "x" * size})
            assert (answer.status_code, answer.json["errorCode"]) == (400, "PARSE_ERROR")
            assert str(MAX_CONTEXT_BYTES) in answer.json["errorDetails"]

    def test_of_attributes(self, web: Api, key: str | None) -> None:
        most = {"targetingKey": "u"} | {f"a{n}": n for n in range(MAX_ATTRIBUTES - 1)}
        assert evaluate(web, key, most).status_code == 200
        answer = evaluate(web, key, most | {"one": "more"})
        assert (answer.status_code, answer.json["errorCode"]) == (400, "INVALID_CONTEXT")
        assert str(MAX_ATTRIBUTES) in answer.json["errorDetails"]

    def test_of_depth(self, web: Api, key: str | None) -> None:
        deepest = nested(MAX_CONTEXT_DEPTH - 1)
        assert evaluate(web, key, {"targetingKey": "u", "a": deepest}).status_code == 200
        answer = evaluate(web, key, {"targetingKey": "u", "a": [deepest]})
        assert (answer.status_code, answer.json["errorCode"]) == (400, "INVALID_CONTEXT")
        assert f"deeper than {MAX_CONTEXT_DEPTH}" in answer.json["errorDetails"]


def test_limits_are_those_of_the_contract() -> None:
    (operation,) = (item for item in OPERATIONS if item.name == "evaluate_flag")
    spelled = " ".join(operation.definition["description"].split())
    for limit in (
        f"{MAX_CONTEXT_BYTES // 1024} KiB",
        f"{MAX_ATTRIBUTES} attributes",
        f"nested at most {MAX_CONTEXT_DEPTH} deep",
        f"{EVALUATIONS_OF_TOKEN.per_s:,.0f} times a second",
        f"{EVALUATIONS_OF_TOKEN.burst:,.0f} at once",
    ):
        assert limit in spelled


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_spoiled_field_is_refused_and_an_allowed_one_is_not(
    web: Api, operation: Operation
) -> None:
    key = "new-checkout" if operation.name == "evaluate_flag" else None
    outcomes = {True: 0, False: 0}
    for mutation in mutations(operation.body_example):
        is_allowed = contract().is_allowed(operation.body_pointer, mutation.body)
        body = json.dumps(mutation.body).encode()
        answer = evaluate(web, key, raw=body)
        what = f"{mutation.what} at {mutation.field}: {answer.status_code} {answer.json}"
        code = answer.json.get("errorCode")
        if not is_allowed:
            assert (answer.status_code, code in ("PARSE_ERROR", "INVALID_CONTEXT")) == (
                400,
                True,
            ), what
        elif len(body) <= MAX_CONTEXT_BYTES and code is not None:
            assert code in ("TARGETING_KEY_MISSING", "INVALID_CONTEXT", "PARSE_ERROR"), what
        outcomes[is_allowed] += 1
    assert min(outcomes.values()) > 10


@pytest.mark.parametrize("key", KEYS)
def test_a_mistake_of_the_server_is_a_general_error_and_logged(
    app: Flask,
    web: Api,
    key: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(app.extensions["flagd_server"].evaluation, "require_turn", fail)
    answer = evaluate(web, key, is_failure_expected=True)
    assert (answer.status_code, answer.json["errorCode"]) == (500, "GENERAL")
    assert answer.headers["X-Request-Id"] in answer.json["errorDetails"]
    assert answer.headers["X-Request-Id"] in caplog.text
    assert "a mistake" not in answer.text
    assert answer.json.get("key") == key


def test_a_database_that_is_away_is_said_as_everywhere(
    app: Flask, web: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageUnavailableError("gone")

    monkeypatch.setattr(app.extensions["flagd_server"].evaluation, "require_turn", fail)
    answer = web.post(BULK, {})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
