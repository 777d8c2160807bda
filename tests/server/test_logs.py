"""What becomes of a line of the log."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from flagd_server import logs, request_id

TOKEN = "fr_admin_" + "a1B2" * 10


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    for handler in handlers:
        root.addHandler(handler)
    root.handlers = handlers
    root.setLevel(level)


def written(form: str = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", form, stream)
    return stream


def documents(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_a_document_with_its_request_and_what_was_said_besides() -> None:
    stream = written()
    token = request_id.CURRENT.set("abc")
    logging.getLogger("flagd_server.x").warning("slow by %d s", 3, extra={"route": "/healthz"})
    request_id.CURRENT.reset(token)
    logging.getLogger("gunicorn.error").info("no request")
    logging.getLogger("flagd_server.x").debug("not at this level")
    first, second = documents(stream)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "flagd_server.x",
        "message": "slow by 3 s",
        "route": "/healthz",
        "request_id": "abc",
    }
    assert "request_id" not in second


def test_a_traceback_stays_on_its_line_and_shows_no_variables() -> None:
    stream = written()
    swordfish = "swordfish"
    try:
        raise RuntimeError(f"can't reach postgresql://flagd:{swordfish}@db/flagd")
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    (document,) = documents(stream)
    assert "RuntimeError: can't reach postgresql://flagd:…@db/flagd" in document["exception"]
    assert swordfish not in document["exception"]


def test_text_is_for_people_and_what_is_no_terminal_gets_json() -> None:
    stream = written("text")
    try:
        local = "swordfish"
        raise RuntimeError
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    assert "failed" in stream.getvalue()
    assert local not in stream.getvalue()
    stream = written("auto")
    logging.getLogger("x").error("failed")
    assert documents(stream)[0]["message"] == "failed"


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (f"unknown token {TOKEN}", "unknown token fr_admin_…"),
        (
            "fr_sdk_production_ab12cd34ef56ab78.Abc-def_ghi tried",
            "fr_sdk_production_… tried",
        ),
        ("Authorization: Bearer hunter2", "Authorization: Bearer …"),
        ("Error handling request /ofrep/v1/x?user=eva&b=1", "Error handling request /ofrep/v1/x?…"),
        ("can't open postgresql://u:hunter2@db/f?sslmode=x", "can't open postgresql://u:…@db/f?…"),
        ("is it a secret? No.", "is it a secret? No."),
    ],
)
def test_secrets_and_query_strings_are_taken_out(said: str, logged: str) -> None:
    assert logs.redact(said) == logged
    stream = written()
    logging.getLogger("x").warning("%s", said)
    assert documents(stream)[0]["message"] == logged
