import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagd_sdk.ctl.api import Api, at
from flagd_sdk.ctl.exits import CommandError, Exit
from tests.sdk.ctl.answering_server import Answer, AnsweringServer, problem


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with AnsweringServer() as running:
        yield running


@pytest.mark.parametrize(
    ("answer", "exit_", "message"),
    [
        (problem(404), Exit.REFUSED, "so it is"),
        (problem(401), Exit.REFUSED, "does not know this token"),
        (problem(403, required_scopes=["admin", "kill"]), Exit.REFUSED, "of scope admin or kill"),
        (problem(409), Exit.CONFLICT, "so it is"),
        (problem(412, current_version=7), Exit.CONFLICT, "so it is"),
        (problem(429), Exit.UNREACHABLE, "so it is"),
        (problem(503), Exit.UNREACHABLE, "so it is"),
        ((502, {}, b"<html>bad gateway</html>"), Exit.UNREACHABLE, "answered 502 and no JSON"),
        ((500, {}, b'{"a": 1}'), Exit.UNREACHABLE, "answered 500 and no JSON"),
        ((200, {}, b"[1]"), Exit.UNREACHABLE, "answered 200 and no JSON"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), Exit.UNREACHABLE, "answered 302"),
    ],
)
def test_every_answer_is_a_word_and_an_exit(
    server: AnsweringServer, answer: Answer, exit_: Exit, message: str
) -> None:
    server.answer = answer
    with pytest.raises(CommandError, match=message) as caught:
        Api(server.url, "fr_x").get(at("flags"))
    assert caught.value.exit is exit_
    assert caught.value.status == answer[0]
    assert len(server.asked) == 1, "a redirect would have taken the token along"


def test_wrong_fields_are_named(server: AnsweringServer) -> None:
    server.answer = problem(422, errors=[{"field": "key", "message": "expected letters"}])
    with pytest.raises(CommandError) as caught:
        Api(server.url, "fr_x").post(at("flags"), {})
    assert [str(each) for each in caught.value.problems] == ["key: expected letters"]


def test_the_token_is_the_given_one_whatever_netrc_has(
    server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr("flagd_sdk.ctl.api._LOOPBACK", ())
    Api(server.url, "fr_x").patch(at("flags", "a b/c"), {}, 7)
    ((method, path, headers),) = server.asked
    assert (method, path) == ("PATCH", "/api/v1/flags/a%20b%2Fc")
    assert headers["Authorization"] == "Bearer fr_x"
    assert headers["If-Match"] == '"7"'


def test_nobody_there_is_said_in_one_line() -> None:
    with pytest.raises(CommandError, match=r"can't be reached: Connection refused$") as caught:
        Api("http://127.0.0.1:1", "fr_x").get(at("flags"))
    assert caught.value.exit is Exit.UNREACHABLE


def test_a_name_cannot_lead_to_another_path() -> None:
    for name in ("..", ".", ""):
        with pytest.raises(CommandError, match="names nothing"):
            at("flags", name)
    assert at("flags", "../tokens") == "/api/v1/flags/..%2Ftokens"


def test_pages_are_read_until_there_are_enough(server: AnsweringServer) -> None:
    server.answer = (200, {}, json.dumps({"items": [1, 2, 3], "next": 9}).encode())
    found: list[Any] = Api(server.url, "fr_x").pages(at("audit"), 5, flag="f")
    assert found == [1, 2, 3, 1, 2]
    assert [path.partition("?")[2] for _, path, _ in server.asked] == [
        "limit=5&flag=f",
        "limit=2&flag=f&before=9",
    ]
