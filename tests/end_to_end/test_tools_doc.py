"""The commands of docs/tools.md, run as they stand against a real server."""

import json
import os
import re
import subprocess
import threading
from typing import Any

import pytest
import yaml

from flagd_server.domain.hooks import HOOKS, Question
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY

TEXT = (REPOSITORY / "docs" / "tools.md").read_text(encoding="utf-8")
GATE = "/api/v1/environments/production/gates/before-more-traffic"


def documented(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def shell(script: str, server: FlagServer, token: str, **variables: str) -> tuple[int, str]:
    environment = {**os.environ, "FLAGD_URL": server.url, "FLAGD_TOKEN": token, **variables}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def deploy_token(module_server: FlagServer) -> str:
    body = {"scope": "deploy", "name": "ci"}
    return str(module_server.call("POST", "/api/v1/tokens", body).json()["text"])


def test_a_signed_call_by_openssl_kills(module_server: FlagServer) -> None:
    module_server.create_flag("new-checkout")
    make, call, _ = documented("sh")
    code, made = shell(make, module_server, module_server.admin_token)
    assert code == 0
    code, answer = shell(call, module_server, "", SECRET=json.loads(made)["secret"])
    assert code == 0
    assert json.loads(answer)["flags"][0]["did"] == "killed"
    code, _ = shell(call, module_server, "", SECRET="whsec_AAAA")
    assert code != 0


def test_a_pipeline_waits_for_the_gate(module_server: FlagServer, deploy_token: str) -> None:
    wait = documented("sh")[2]
    module_server.call("PUT", GATE, {"approval": True})
    once = wait.replace("--retry 60", "--retry 0")
    code, said = shell(once, module_server, deploy_token)
    assert code == 22
    assert json.loads(said)["verdict"] == "inconclusive"

    def approve() -> None:
        module_server.call("POST", f"{GATE}/approve", {"reason": "looks good"})

    person = threading.Timer(1.5, approve)
    person.start()
    quick = wait.replace("--retry-delay 10", "--retry-delay 1")
    assert quick != wait
    code, said = shell(quick, module_server, deploy_token)
    person.join()
    assert code == 0
    assert '"verdict":"healthy"' in said


def test_its_pipelines_ask_as_the_command_does() -> None:
    command = documented("sh")[2]
    parts = re.findall(r'"\$FLAGD_URL[^"]+"|--[a-z-]+ ?\d*|\{"name".*?\}', command)
    snippets = [*documented("yaml"), *documented("groovy")]
    asking = [
        snippet
        for snippet in snippets
        if "/hooks/flagger/production" in snippet and "curl" in snippet
    ]
    assert len(asking) == 3
    for snippet in asking:
        for part in parts:
            assert part.strip() in snippet


def test_its_yaml_can_be_read() -> None:
    for snippet in documented("yaml"):
        assert yaml.safe_load(snippet)


def test_its_table_says_what_each_webhook_is_answered() -> None:
    rows: dict[str, Any] = {}
    for line in TEXT.splitlines():
        cells = [cell.strip(" *") for cell in line.split("|")[1:5]]
        for hook in re.findall(r"`([a-z-]+)`", cells[0] if cells else ""):
            if hook in HOOKS and len(cells) == 4 and cells[1] in ("200", "403"):
                rows[hook] = cells[1:]
    expected = {
        Question.MAY_GO_ON: ["200", "403", "403"],
        Question.ROLL_BACK: ["403", "403", "200"],
        Question.NOTHING: ["200", "200", "200"],
    }
    assert rows == {hook: expected[question] for hook, question in HOOKS.items()}
