"""The commands and programs of docs/ofrep.md, run as they stand against a real server."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openfeature import api

from tests.end_to_end import node_clients
from tests.end_to_end.flag_server import PROGRAM, FlagServer
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY


def documented(language: str) -> list[str]:
    text = (REPOSITORY / "docs" / "ofrep.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return blocks


def filled(program: str, server: FlagServer, token: str) -> str:
    assert "http://127.0.0.1:8013" in program
    assert "fr_ofrep_production_…" in program
    program = program.replace("http://127.0.0.1:8013", server.url)
    return program.replace("fr_ofrep_production_…", token)


def test_it_shows_how_to_make_a_token(ofrep_server: FlagServer) -> None:
    (command,) = documented("console")
    arguments = command.removeprefix("$ flagd-server ").split()
    done = subprocess.run(
        [sys.executable, *PROGRAM, *arguments, "--database", str(ofrep_server.database)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    (made,) = re.findall(r"fr_ofrep_production_\w{16}\.[\w-]{43}", done.stdout)
    answer = ofrep_server.call("POST", "/ofrep/v1/evaluate/flags", {}, token=made)
    assert answer.status_code == 200


def test_its_python_runs(
    ofrep_server: FlagServer, ofrep_token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = (filled(program, ofrep_server, ofrep_token) for program in documented("python"))
    names: dict[str, Any] = {}
    exec(compile(program, "ofrep.md", "exec"), names)
    names["provider"].session.close()
    api.clear_providers()
    assert capsys.readouterr().out in ("True\n", "False\n")


@pytest.mark.timeout(300)
def test_its_javascript_runs(tmp_path: Path, ofrep_server: FlagServer, ofrep_token: str) -> None:
    node = node_clients.install(tmp_path)
    programs = documented("js")
    assert len(programs) == 2
    printed = []
    for number, program in enumerate(programs):
        file = node / f"documented-{number}.mjs"
        file.write_text(filled(program, ofrep_server, ofrep_token) + "process.exit(0);\n")
        done = subprocess.run(
            ["node", file.name],
            cwd=node,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
        printed.append(done.stdout.splitlines()[-1])
    assert printed[0] == printed[1]
    assert printed[0] in ("true", "false")
