"""Runs the demo for real: the server, three processes of the shop, the traffic, the kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
WITHIN_S = 200.0
SHOPS = {"shop-1", "shop-2", "shop-3"}

# One demo at a time: each is five busy processes. It takes half a minute where the machine is idle.
pytestmark = pytest.mark.timeout(300)


def run_demo(*arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Return exit code, output and the closing figures."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--once", "--json", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return done.returncode, done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_the_guard_takes_a_broken_flag_off_in_every_process() -> None:
    code, output, figures = run_demo()

    assert figures["problems"] == [], output
    assert code == 0
    assert figures["killed_by"] == "guard"
    assert figures["e_value"] >= figures["threshold"]
    assert 0 < figures["seconds_to_kill"] < 20
    assert figures["failed_by_flag"] >= 3  # the guard asks for three failing visitors at the least
    assert figures["failed_after_last_process"] == 0
    assert set(figures["decision_to_process_ms"]) == SHOPS
    assert (figures["processes"], figures["confirmed"]) == (3, 3)
    assert "KILL " in output
    assert "PaymentGatewayError" in output


def test_a_healthy_flag_is_left_alone_among_the_errors_of_the_log() -> None:
    code, output, figures = run_demo("--healthy")

    assert figures["problems"] == [], output
    assert code == 0
    assert figures["killed"] is False
    assert figures["errors_from_before"] > 0
    assert figures["requests"]["new"] >= 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_demo(number: signal.Signals, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # SIGKILL leaves its files behind
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    try:
        started = next(line for line in demo.stdout if "processes of the shop" in line)
        children = children_of(demo.pid)
    finally:
        demo.send_signal(number)
    output = started + demo.stdout.read()
    demo.wait(WITHIN_S)
    demo.stdout.close()

    assert len(children) == 4, output
    deadline = time.monotonic() + 60
    while (left := [pid for pid in children if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == [], output


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in listed.split()]


def is_running(pid: int) -> bool:
    """Return whether the process is there; one that has ended and waits to be noticed is not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
