"""The README's commands and programs, run as they stand against a real server."""

import re
import subprocess
from pathlib import Path

from tests.end_to_end.flag_server import FlagServer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def curl_commands() -> str:
    """The commands that talk to the server, as one shell script that stops at the first failure."""
    commands = [
        command.replace("curl ", "curl --fail-with-body ", 1)
        for block in blocks("console")
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        if command.startswith("curl ")
    ]
    return "set -e\n" + "echo\n".join(commands)


def test_the_first_flag_in_five_minutes_works(server: FlagServer) -> None:
    script = curl_commands()
    assert script.count("curl ") == 4
    done = subprocess.run(
        ["bash", "-c", script],
        env={"FLAGD": server.url, "ADMIN": server.admin_token, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"killed":true' in done.stdout
    assert server.call("GET", "/api/v1/flags/new-checkout/environments/production").json()[
        "default_serve"
    ]["split"]["weights"] == {"on": 25_000, "off": 75_000}


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
        assert names["flags"].wait_until_ready(10)  # type: ignore[attr-defined]
        # Outside a scope there is no user to place, so the old way answers.
        assert names["new_checkout"]("cart") == "old"  # type: ignore[operator]
    finally:
        names["flags"].close()  # type: ignore[attr-defined]
