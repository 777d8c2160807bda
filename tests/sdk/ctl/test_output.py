import io
import json

import pytest

from flagd_sdk.ctl.exits import CommandError, Exit, Problem
from flagd_sdk.ctl.output import Output, clean


def test_what_would_steer_a_terminal_is_taken_out() -> None:
    document = {"a\x1b[2J": ["x\x07\x9b31m", {"b": "line\nline\ttab"}], "n": 5, "t": ("\u202e",)}
    bad = "\N{REPLACEMENT CHARACTER}"
    assert clean(document) == {
        f"a{bad}[2J": [f"x{bad}{bad}31m", {"b": "line\nline\ttab"}],
        "n": 5,
        "t": [bad],
    }


def test_a_document_is_for_programs_and_words_are_for_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = {"text": "a\x1b[31m"}
    Output(as_json=True).show(document, lambda _: ["never"])
    assert json.loads(capsys.readouterr().out) == document
    Output().show(document, lambda shown: [shown["text"]])
    assert capsys.readouterr().out == "a\N{REPLACEMENT CHARACTER}[31m\n"
    Output(is_quiet=True).show(document, lambda _: ["never"])
    assert capsys.readouterr().out == ""


def test_text_that_looks_like_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Output().show({}, lambda _: ["[red]5[/red] :smile: [/]"])
    assert capsys.readouterr().out == "[red]5[/red] :smile: [/]\n"


def test_an_error_names_every_fault_and_is_a_document_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = CommandError("no", Exit.CONFLICT, [Problem("a", "one"), Problem("", "two")], 409)
    Output(as_json=True).fail(error)
    out, err = capsys.readouterr()
    assert err == "flagctl: no\n  a: one\n  two\n"
    assert json.loads(out)["error"] == {
        "exit": 4,
        "message": "no",
        "status": 409,
        "problems": [{"where": "a", "message": "one"}, {"where": "", "message": "two"}],
    }


def test_a_terminal_without_unicode_gets_plain_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    Output().show({}, lambda _: ["━┃╌┤█░ → – “x” é"])
    stream.flush()
    stream.seek(0)
    assert stream.read() == '=|-|#. > - "x" ?\n'
