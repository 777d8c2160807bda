"""The fuzzer's checks find what they are there for."""

import pytest

from tests.contract.openapi_contract import Operation, contract
from tests.fuzz.calls import Answer, Call
from tests.fuzz.checks import breaches
from tests.fuzz.world import Caller, World, mark_of

LIST = next(each for each in contract().operations if each.name == "list_environments")
READER = Caller("read", {"authorization": "Bearer r"}, "read")
JSON = {"content-type": "application/json"}
SECRET = "fr_admin_" + "s" * 43


def found(
    answer: Answer, caller: Caller = READER, operation: Operation = LIST, target: str = ""
) -> list[str]:
    call = Call("GET", target or "/api/v1/environments")
    return list(breaches(World(secrets={SECRET}), operation, caller, call, answer))


def test_a_good_answer_passes() -> None:
    assert found(Answer(200, JSON, b'{"items": []}')) == []


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (Answer(500, JSON, b"{}"), "500"),
        (Answer(503, JSON, b"{}"), "503"),
        (Answer(418, JSON, b"{}"), "not as documented"),
        (Answer(200, {"content-type": "text/html"}, b'{"items": []}'), "not as documented"),
        (Answer(200, JSON, b'{"items": [{"key": 1}]}'), "not as documented"),
        (Answer(200, {**JSON, "x": "Traceback (most"}, b'{"items": []}'), "insides"),
        (Answer(200, {**JSON, "x": SECRET}, b'{"items": []}'), "secret"),
    ],
)
def test_each_breach_is_named(answer: Answer, what: str) -> None:
    assert any(what in breach for breach in found(answer))


def test_who_may_not_must_not_be_answered() -> None:
    answer = Answer(200, JSON, b'{"items": []}')
    assert any("may not" in each for each in found(answer, Caller("kill", {}, "kill")))


def test_what_is_only_in_one_environment_is_not_for_those_of_another() -> None:
    answer = Answer(200, {**JSON, "x": mark_of("staging")}, b'{"items": []}')
    elsewhere = Caller("sdk server", {}, "sdk", environment="production")
    assert any("only in staging" in each for each in found(answer, elsewhere))
    assert found(answer) == []
