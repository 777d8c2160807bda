"""flagctl in shells: exit status, settings, pipes, terminals, completion."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.flagctl_process import PROGRAM, Flagctl
from tests.end_to_end.processes import DEADLINE_S


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "nope"), 1),
        (("set", "nope", "--enable"), 1),
        (("list", "-e", "nope"), 1),
        (("nope",), 2),
        (("list", "--nope"), 2),
        (("kill", "x"), 2),
        (("kill", "--reason", "x"), 2),
        (("set", "x"), 2),
        (("set", "x", "--percent", "x"), 2),
        (("rollout", "start", "x"), 2),
        (("rollout", "start", "x", "--stage", "nan"), 2),
        (("gate", "x", "--wait", "--timeout", "soon"), 2),
        (("apply", "-f", "nothing-here"), 2),
        (("show", ".."), 2),
    ],
)
def test_the_exit_status_says_what_went_wrong(
    ctl: Flagctl, flag: str, arguments: tuple[str, ...], code: int
) -> None:
    given = tuple(flag if each == "x" and arguments[0] == "set" else each for each in arguments)
    done = ctl.run(*given, "--json")
    assert (done.code, done.document["error"]["exit"]) == (code, code)
    assert done.err.startswith("flagctl: ")


def test_a_server_that_is_not_there_and_settings_that_are_missing(ctl: Flagctl) -> None:
    done = ctl.run("list", "--json", FLAGD_URL="http://127.0.0.1:1")
    assert (done.code, done.document["error"]["exit"]) == (3, 3)
    done = ctl.run("list", FLAGD_URL=None, FLAGD_TOKEN=None)
    assert done.code == 2
    assert "FLAGD_URL" in done.err
    assert "FLAGD_TOKEN" in done.err
    done = ctl.run("list", FLAGD_TOKEN="fr_admin_wrong")
    assert (done.code, "does not know this token" in done.err) == (1, True)


def test_the_token_may_be_in_a_file_and_is_no_argument(
    ctl: Flagctl, shared: FlagServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(shared.admin_token + "\n")
    assert ctl.run("list", "--token-file", "token", FLAGD_TOKEN=None).code == 0
    assert ctl.run("list", FLAGD_TOKEN=None, FLAGD_TOKEN_FILE="token").code == 0
    assert ctl.run("list", "--token", shared.admin_token).code == 2


def test_quiet_prints_nothing_and_piping_breaks_nothing(ctl: Flagctl, flag: str) -> None:
    assert ctl.run("list", "--quiet") == (0, "", "")
    with ctl.start("list") as listing:
        assert listing.stdout is not None
        listing.stdout.close()
        assert listing.wait(DEADLINE_S) == 141
        assert listing.stderr is not None
        assert listing.stderr.read() == ""
    assert flag in ctl.run("list").out


def test_a_terminal_has_colours_unless_it_wants_none(ctl: Flagctl, flag: str) -> None:
    coloured = ctl.on_terminal("list")
    assert "\x1b[32mon" in coloured.out
    assert "\x1b[3" not in ctl.on_terminal("list", NO_COLOR="1").out
    assert "\x1b" not in ctl.run("list").out
    assert "\x1b" not in ctl.on_terminal("list", "--json").out


def test_a_narrow_terminal_folds_and_loses_nothing(ctl: Flagctl, flag: str) -> None:
    narrow = ctl.on_terminal("watch", flag, "--once", columns=40, NO_COLOR="1").out
    plain = re.sub(r"\x1b\[\d*m", "", narrow)  # without colours there is still bold and dim
    lines = [line.rstrip("\r") for line in plain.split("\n")]
    assert max(map(len, lines)) <= 40
    assert re.split(r" {2,}", lines[-4].strip())[:2] == ["serves", "on 5 %, off 95 %"]
    assert flag in re.sub(r"\s+", "", plain)


def test_bash_completes_commands_and_flags(ctl: Flagctl, flag: str) -> None:
    def complete(words: str, number: int) -> str:
        environment = ctl.environment(
            _FLAGCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number)
        )
        done = subprocess.run(
            [PROGRAM], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert "plain,rollout" in complete("flagctl ro", 1)
    assert f"plain,{flag}" in complete(f"flagctl show {flag[:5]}", 2)
    assert (
        PROGRAM.name
        in subprocess.run(
            [PROGRAM],
            env={**os.environ, "_FLAGCTL_COMPLETE": "bash_source"},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    )
