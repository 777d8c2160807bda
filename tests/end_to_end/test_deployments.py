"""Two versions of a service in real processes: who brought what, what is to blame, who lags."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY
from tests.waiting import eventually

FLAGS = "/api/v1/flags/{}/environments/production"
DEPLOYMENTS = "/api/v1/deployments"
PROGRAM = Path(__file__).with_name("versioned_shop.py")
HALF = {"split": {"weights": {"on": 50_000, "off": 50_000}}}


@pytest.fixture
def start_shop(server: FlagServer) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(version: str) -> subprocess.Popen[str]:
        arguments = [server.url, server.sdk_tokens["production"], version]
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(DEADLINE_S)
        if process.stdout is not None:
            process.stdout.close()


def test_a_version_is_registered_seen_judged_and_loses_what_it_brought(
    server: FlagServer, start_shop: Callable[[str], subprocess.Popen[str]]
) -> None:
    for flag in ("old", "new-cart", "new-checkout"):
        server.create_flag(flag, default_serve=HALF)
    body = {"scope": "deploy", "name": "pipeline"}
    token = server.call("POST", "/api/v1/tokens", body).json()["text"]

    def ask(method: str, path: str, body: Any = None) -> Any:
        answer = server.call(method, path, body, token=token)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def deployments() -> dict[str, Any]:
        return {each["version"]: each for each in ask("GET", DEPLOYMENTS)["items"]}

    old = start_shop("v1")
    eventually(lambda: "v1" in deployments())
    image = "registry.example/shop@sha256:" + "0a" * 32
    artefact = {"service": "shop", "version": "v2", "image": image, "environment": "production"}
    registered = ask("POST", DEPLOYMENTS, artefact)
    assert registered["first_seen_at"] is None
    start_shop("v2")

    # The guard ends the new checkout; the deployment says that the flag was it.
    path = f"{DEPLOYMENTS}/{registered['id']}"
    state = eventually(lambda: (s := ask("GET", path))["verdict"]["verdict"] == "flag" and s)
    assert state["verdict"]["flags"] == ["new-checkout"]
    assert [flag["flag"] for flag in state["flags"]] == ["new-cart", "new-checkout"]
    assert state["flags"][1]["kill"]["source"] == "guard"
    assert state["health"]["verdict"] == "unhealthy"
    assert state["processes"] == {"count": 1, "of_service": 2, "share": 0.5}
    assert 0 < state["traffic"]["share"] < 1
    assert state["traffic"]["error_rate"] > 0
    assert {v: each["source"] for v, each in deployments().items()} == {
        "v1": "telemetry",
        "v2": "registered",
    }
    of_guard = eventually(
        lambda: (
            (s := ask("GET", FLAGS.format("new-checkout") + "/kill"))["receipt"]["confirmed"] == 2
            and s
        )
    )
    assert of_guard["kill"]["source"] == "guard"
    assert len(of_guard["receipt"]["slowest"]) == 2
    assert of_guard["receipt"]["confirmed_after_ms"]["100"] > 0

    # All that the version brought, in one call; what was there before stays on.
    killed = ask("POST", f"{path}/kill?wait_s=10", {"reason": "the release is taken back"})
    assert [(each["flag"], each["already"]) for each in killed["flags"]] == [
        ("new-cart", False),
        ("new-checkout", True),
    ]
    receipt = killed["receipt"]
    assert (receipt["processes"], receipt["confirmed"], receipt["unconfirmed"]) == (2, 2, [])
    assert ask("GET", FLAGS.format("old"))["kill"] is None
    metrics = server.call("GET", "/metrics").text
    labels = '{environment="production",percent="100"}'
    assert f"flagd_kill_confirmed_seconds_count{labels} 2.0" in metrics

    # A process that hangs is connected and does not confirm: it is named.
    old.send_signal(signal.SIGSTOP)
    try:
        kill = FLAGS.format("old") + "/kill"
        receipt = ask("POST", f"{kill}?wait_s=1", {"reason": "a test"})["receipt"]
        assert receipt["processes"] == 2
        assert receipt["confirmed"] <= 1
        # The other one may take longer than was waited for.
        state = eventually(lambda: (s := ask("GET", kill))["receipt"]["confirmed"] == 1 and s)
        (lagging,) = state["unconfirmed"]
        assert lagging["instance"] in receipt["unconfirmed"]
        assert (lagging["service"], lagging["service_version"]) == ("shop", "v1")
    finally:
        old.send_signal(signal.SIGCONT)
    eventually(lambda: ask("GET", kill)["receipt"]["confirmed"] == 2)
    assert ask("GET", kill)["unconfirmed"] == []
