"""The worst night: the server is gone, and then the new path breaks."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, REPOSITORY
from tests.waiting import eventually

FLAG = "new-checkout"
PATH = f"/api/v1/flags/{FLAG}/environments/production"
# Failing units until one process that is alone takes a flag at 25 % off.
NEEDED = 10
# From when the server is back: a client waits up to 20 s before it asks again.
TOLD_WITHIN_S = 60.0


class Application:
    """A process with the SDK in it."""

    def __init__(self, server: FlagServer, folder: Path) -> None:
        token = server.sdk_tokens["production"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.breaker_app", server.url, token, str(folder)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Application":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def serve(self, name: str, requests: int, *, is_broken: bool = False) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask(name=name, requests=requests, is_broken=is_broken)
        return answer


@pytest.fixture
def applications(server: FlagServer, tmp_path: Path) -> Iterator[Callable[[], Application]]:
    """Start applications that share a cache; they end with the test, as by a crash."""
    with ExitStack() as running:
        yield lambda: running.enter_context(Application(server, tmp_path / "cache"))


@pytest.mark.timeout(300)
def test_the_night_the_server_died(
    server: FlagServer, applications: Callable[[], Application], tmp_path: Path
) -> None:
    split = {"weights": {"on": 25_000, "off": 75_000}}
    server.create_flag(FLAG, default_serve={"split": split})
    shop = applications()
    assert shop.ask(wait_s=DEADLINE_S)
    assert shop.serve("healthy", 100)["taken"] > 5
    assert shop.ask(flush_s=DEADLINE_S), "it knows that it is alone"

    server.crash()
    assert shop.serve("still-healthy", 100)["taken"] > 5
    broken = shop.serve("broken", 1_000, is_broken=True)
    print(f"off after {broken['taken']} failing units, the server being dead")
    assert broken["taken"] <= NEEDED + 1
    (kill,) = broken["kills"]
    assert broken["reason"] == "DISABLED"
    assert broken["metadata"]["killed_by"] == "local"
    assert shop.serve("after", 200)["taken"] == 0

    (kept,) = (tmp_path / "cache").glob("*.flags")
    eventually(lambda: kill in kept.read_text())
    shop.__exit__()
    shop = applications()
    restarted = shop.serve("restarted", 200)
    assert (restarted["taken"], restarted["kills"]) == (0, [kill])

    server.restart()
    told = eventually(
        lambda: server.call("GET", f"{PATH}/local-kills").json()["items"], TOLD_WITHIN_S
    )
    assert [(each["id"], each["standing"]) for each in told] == [(kill, True)]
    assert server.call("GET", PATH).json()["kill"] is None, "one process is not all of them"
    assert shop.serve("known", 200)["taken"] == 0

    lift = {"kills": [kill], "reason": "the provider is back"}
    assert server.call("POST", f"{PATH}/local-kills/lift", lift).status_code == 200
    eventually(lambda: shop.serve("lifted", 20)["kills"] == [], TOLD_WITHIN_S)
    assert shop.serve("well-again", 200)["taken"] > 20
    eventually(lambda: server.call("GET", f"{PATH}/local-kills").json()["processes"] == 0)


@pytest.mark.timeout(300)
def test_the_guard_has_the_final_word_with_everybodys_events(
    server: FlagServer, applications: Callable[[], Application]
) -> None:
    split = {"weights": {"on": 25_000, "off": 75_000}}
    server.create_flag(FLAG, default_serve={"split": split})
    shop = applications()
    assert shop.ask(wait_s=DEADLINE_S)
    shop.serve("healthy", 100)
    assert shop.ask(flush_s=DEADLINE_S)
    server.crash()
    assert shop.serve("broken", 1_000, is_broken=True)["kills"]

    server.restart()
    kill = eventually(lambda: server.call("GET", PATH).json()["kill"], TOLD_WITHIN_S)
    assert kill["source"] == "guard", "on the events that waited in the process"
    seen = eventually(lambda: (s := shop.serve("killed", 20))["kills"] == [] and s, TOLD_WITHIN_S)
    assert (seen["metadata"]["killed_by"], seen["taken"]) == ("guard", 0)
    eventually(lambda: server.call("GET", f"{PATH}/local-kills").json()["processes"] == 0)
    restore = {"kill": kill["id"], "reason": "fixed", "keep": True}
    assert server.call("POST", f"{PATH}/restore", restore).status_code == 200
    eventually(lambda: shop.serve("restored", 50)["taken"] > 0)
