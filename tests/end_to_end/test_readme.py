"""The README's commands and programs, run as they stand against a real server."""

import re
import subprocess
from pathlib import Path

from tests.end_to_end.flag_server import FlagServer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str, section: str | None = None) -> list[str]:
    text = README if section is None else README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def curl_commands(section: str) -> str:
    """The commands that talk to the server, as one shell script that stops at the first failure."""
    commands = [
        command.replace("curl ", "curl --fail-with-body ", 1)
        for block in blocks("console", section)
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        if command.startswith("curl ")
    ]
    return "set -e\n" + "echo\n".join(commands)


def run(server: FlagServer, script: str) -> str:
    done = subprocess.run(
        ["bash", "-c", script],
        env={"FLAGD": server.url, "ADMIN": server.admin_token, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_flag_in_five_minutes_works(server: FlagServer) -> None:
    script = curl_commands("A first flag in five minutes")
    assert script.count("curl ") == 4
    assert '"killed":true' in run(server, script)
    assert server.call("GET", "/api/v1/flags/new-checkout/environments/production").json()[
        "default_serve"
    ]["split"]["weights"] == {"on": 25_000, "off": 75_000}


def test_a_release_starts(server: FlagServer) -> None:
    server.create_flag("new-checkout", "production")
    script = curl_commands("Releasing")
    assert script.count("curl ") == 1
    assert '"state":"running"' in run(server, script)


def test_the_programs_run(server: FlagServer) -> None:
    server.create_flag(
        "new-checkout",
        "production",
        enabled=True,
        default_serve={"split": {"weights": {"on": 25_000, "off": 75_000}}},
    )
    first, second = blocks("python")
    names: dict[str, object] = {"old_checkout": lambda cart: "old"}
    first = first.replace("http://127.0.0.1:8013", server.url)
    first = first.replace("fr_sdk_production_…", server.sdk_tokens["production"])
    exec(compile(first, "README.md", "exec"), names)
    try:
        exec(compile(second, "README.md", "exec"), names)
        assert names["flags"].wait_until_ready(60)  # type: ignore[attr-defined]
        # Outside a scope there is no user to place, so the old way answers.
        assert names["new_checkout"]("cart") == "old"  # type: ignore[operator]
    finally:
        names["flags"].close()  # type: ignore[attr-defined]
