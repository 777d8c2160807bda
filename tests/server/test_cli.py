"""The command line."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flagd_server.cli import main
from flagd_server.clock import SystemClock
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from flagd_server.storage.records import Token

ADMIN = "fr_admin_" + "a1B2" * 10
Run = Callable[..., int]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "flagd.db"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return with what the server was started, which returns at once."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("flagd_server.serving.serve", lambda app, **options: calls.append(options))
    monkeypatch.setattr("flagd_server.logs.configure", lambda *settings: None)
    return calls


@pytest.fixture
def run(database: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("FLAGD_DATABASE", str(database))
    return lambda *arguments: main([*arguments])


def check(database: Path, text: str) -> Token | None:
    storage = open_storage(str(database))
    try:
        return Tokens(storage, SystemClock()).authenticate(text)
    finally:
        storage.close()


def test_the_first_start_prints_tokens_that_work_and_the_second_nothing(
    run: Run, served: list[dict[str, Any]], database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "--port", "0") == 0
    printed = capsys.readouterr().out
    found = dict(line.strip().rsplit(None, 1) for line in printed.splitlines() if "fr_" in line)
    assert list(found) == ["admin", "SDK, production", "SDK, staging", "SDK, development"]
    for name, text in found.items():
        token = check(database, text)
        assert token is not None
        assert token.environment == name.partition(", ")[2] or token.scope == "admin"
    assert run("serve") == 0
    assert capsys.readouterr().out == ""
    for options in served:
        del options["say"]
    assert served == [
        {"host": "127.0.0.1", "port": port, "threads": 16, "behind_tls": False}
        for port in (0, 8013)
    ]


def test_the_first_tokens_may_go_to_a_file_that_only_the_owner_reads(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "tokens.json"
    assert run("serve", "--initial-tokens", str(file)) == 0
    assert capsys.readouterr().out == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    tokens = json.loads(file.read_text())
    assert sorted(tokens["sdk"]) == ["development", "production", "staging"]
    assert all(check(database, text) for text in [tokens["admin"], *tokens["sdk"].values()])
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_tokens_that_can_not_be_written_leave_the_database_empty(
    run: Run, served: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "--initial-tokens", str(tmp_path / "none" / "tokens.json")) == 1
    assert "FLAGD_INITIAL_TOKENS_FILE: can't write" in capsys.readouterr().err
    assert served == []
    assert run("serve") == 0
    assert "fr_admin_" in capsys.readouterr().out


def test_an_admin_token_that_is_given_is_used_and_not_repeated(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLAGD_ADMIN_TOKEN", ADMIN)
    assert run("serve") == 0
    assert ADMIN not in capsys.readouterr().out
    assert check(database, ADMIN) is not None


def test_options_win_over_variables_and_all_faults_are_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLAGD_PORT", "8014")
    monkeypatch.setenv("FLAGD_THREADS", "none")
    assert run("serve", "--port", "seven") == 1
    assert capsys.readouterr().err.splitlines() == [
        "flagd-server: FLAGD_PORT: expected a whole number from 0 to 65535, got 'seven'",
        "flagd-server: FLAGD_THREADS: expected a whole number from 1 to 256, got 'none'",
    ]


def test_the_settings_in_force_are_printed_without_secrets(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLAGD_ADMIN_TOKEN", ADMIN)
    monkeypatch.setenv("FLAGD_PROT", "8014")
    assert run("config") == 0
    out, err = capsys.readouterr()
    assert ["FLAGD_DATABASE", "environment", f'"{database}"'] in map(str.split, out.splitlines())
    assert err == "flagd-server: FLAGD_PROT: there is no such setting\n"
    assert run("config", "--json") == 0
    as_json = capsys.readouterr().out
    assert {"variable": "FLAGD_PORT", "value": 8013, "origin": "default"} in json.loads(as_json)
    assert ADMIN not in out + as_json
    monkeypatch.setenv("FLAGD_PORT", "none")
    assert run("config") == 1
    assert "FLAGD_PORT: expected" in capsys.readouterr().err


def test_a_token_from_creation_to_revocation(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("serve")
    capsys.readouterr()
    arguments = ("--scope", "sdk", "--environment", "staging", "--name", "web", "--kind", "client")
    assert run("token", "create", *arguments) == 0
    text = capsys.readouterr().out.strip()
    token = check(database, text)
    assert token is not None
    assert (token.name, token.kind, token.created_by) == ("web", "client", "command line")

    assert run("token", "list") == 0
    listed = capsys.readouterr().out
    (line,) = [line for line in listed.splitlines() if token.id in line]
    assert line.split() == [token.id, "fr_sdk_staging", "client", "alive", "never", "used", "web"]
    assert text not in listed

    assert run("token", "revoke", token.id) == 0
    assert check(database, text) is None
    run("token", "list")
    assert f"{token.id}  fr_sdk_staging" in (shown := capsys.readouterr().out)
    assert "revoked 20" in shown


def test_a_token_may_be_made_to_end_by_itself(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("serve")
    capsys.readouterr()
    create = ("token", "create", "--scope", "read", "--name", "visitor", "--expires-in")
    assert run(*create, "90d") == 0
    token = check(database, capsys.readouterr().out.strip())
    assert token is not None
    assert token.expires_at is not None
    lasts = token.expires_at - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < lasts <= timedelta(days=90)
    run("token", "list")
    assert "alive until 20" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(*create, "soon")
    assert "expected a duration such as 90d or 12h, got 'soon'" in capsys.readouterr().err


def test_a_person_from_the_first_account_to_its_end(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("serve")
    capsys.readouterr()
    roles = ("--role", "viewer", "--role", "releaser@staging")
    assert run("people", "add", "ann", *roles) == 0
    first = capsys.readouterr().out.strip()
    assert run("people", "password", "ann") == 0
    assert len({first, capsys.readouterr().out.strip()}) == 2
    run("people", "list")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split(maxsplit=1)[0] == "ann"
    assert line.endswith("one-time password                   viewer, releaser@staging")
    assert run("people", "roles", "ann", "--role", "admin") == 0
    assert run("people", "disable", "ann") == 0
    run("people", "list")
    (line,) = capsys.readouterr().out.splitlines()
    assert "disabled 20" in line
    assert line.endswith("admin")
    assert run("people", "enable", "ann") == 0
    assert run("people", "add", "ann") == 1
    assert capsys.readouterr().err == "flagd-server: there is a person 'ann' already\n"
    assert run("people", "roles", "ann", "--role", "viewer@nowhere") == 1
    assert "there is no environment 'nowhere'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("people", "add", "bob", "--role", "king")
    assert "expected one of viewer, editor" in capsys.readouterr().err


def test_what_can_not_be_done_is_said_in_one_line(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("token", "list") == 1
    assert capsys.readouterr().err == f"flagd-server: FLAGD_DATABASE: there is no {database}\n"
    run("serve")
    capsys.readouterr()
    assert run("token", "revoke", "tok-0") == 1
    assert capsys.readouterr().err == "flagd-server: there is no token 'tok-0'\n"
    assert run("token", "create", "--scope", "sdk", "--name", "x") == 1
    assert capsys.readouterr().err.startswith("flagd-server: environment: ")


def test_a_second_server_on_one_database_is_refused(
    run: Run,
    served: list[dict[str, Any]],
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flagd_server.storage._LEAVES_WITHIN_S", 0.0)
    with closing(open_storage(str(database), as_server=True)):
        assert run("serve") == 1
    assert capsys.readouterr() == ("", f"flagd-server: another server runs on {database}\n")
    assert served == []


@pytest.mark.parametrize("name", ["", "a\nb", "a\tb", "x" * 129])
def test_a_token_is_called_something_that_fits_a_line(
    run: Run, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run("serve")
    capsys.readouterr()
    assert run("token", "create", "--scope", "admin", "--name", name) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("flagd-server: name: expected 1 to 128 characters")


def command(*arguments: str | bytes, **options: Any) -> subprocess.Popen[str]:
    """Start a command as a shell does, with its own standard streams."""
    program = "import sys; from flagd_server.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "recording.jsonl"
    # Its answers are more than a pipe holds.
    file.write_text('{"config": {}}\n' + "".join(f'{{"t": {t}}}\n' for t in range(2_000)))
    return file


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(recording: Path) -> None:
    with command("backtest", str(recording), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        _, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (128 + 13, "")


def test_output_that_can_not_be_written_is_said_in_one_line(recording: Path) -> None:
    with (
        open("/dev/full", "w") as full,
        command("backtest", str(recording), stdout=full) as process,
    ):
        _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert err == "flagd-server: [Errno 28] No space left on device\n"


def test_an_interrupted_command_ends_without_a_traceback() -> None:
    with command("backtest", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"config": {}}\n{"t": 1}\n')
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 128 + 2
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_an_argument_that_is_no_text_is_an_error_of_usage() -> None:
    with command("token", "revoke", b"tok-\xff", stdout=subprocess.DEVNULL) as process:
        _, err = process.communicate(timeout=90)
    assert process.returncode == 2
    assert "argument ID: expected text in UTF-8" in err


@pytest.mark.parametrize("arguments", [[], ["token"], ["serve", "--prot", "1"], ["token", "make"]])
def test_a_command_that_does_not_exist_is_an_error_of_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_server_without_its_extra_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "flagd_server.serving", raising=False)
    monkeypatch.setitem(sys.modules, "gunicorn.app.base", None)
    assert run("serve") == 1
    said = capsys.readouterr().err
    assert "the module 'gunicorn.app.base' is missing" in said
    assert "pip install 'flagd-release[server]'" in said


def test_a_module_of_our_own_that_is_missing_is_no_matter_of_extras(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flagd_server.serving", None)
    with pytest.raises(ModuleNotFoundError, match=r"flagd_server\.serving"):
        run("serve")
