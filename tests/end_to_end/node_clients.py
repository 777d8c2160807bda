"""The programs of tests/clients/node: OpenFeature's own OFREP clients for JavaScript."""

import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import DEADLINE_S

SOURCE = Path(__file__).parents[1] / "clients" / "node"
OLDEST_NODE = 20
_INSTALL_S = 200.0

Json = Any


def install(folder: Path) -> Path:
    """Copy the programs there with the packages that their lock names, and return the folder.

    Skips the test where there is no node new enough; under CI that is a failure.
    """
    lack = _lack()
    if lack is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(lack)
        pytest.skip(lack)
    for file in SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_INSTALL_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _lack() -> str | None:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return f"OFREP's JavaScript clients are NOT TESTED: node {OLDEST_NODE} and npm are missing"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"v(\d+)", said)
    if version is None or int(version[1]) < OLDEST_NODE:
        return f"OFREP's JavaScript clients are NOT TESTED: node is {said.strip()}, too old"
    return None


def evaluate_on_server(
    folder: Path, base_url: str, headers: Mapping[str, str], evaluations: list[Json]
) -> tuple[list[Json], list[Json]]:
    """Evaluate with the server SDK; return (details, requests)."""
    asked = {"baseUrl": base_url, "headers": [*headers.items()], "evaluations": evaluations}
    done = subprocess.run(
        ["node", "server.mjs"],
        cwd=folder,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["details"], said["requests"]


class WebClient:
    """The web SDK in a process of its own; `seen` is what it has said besides its answers."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["node", "--experimental-eventsource", "web.mjs"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.seen: list[Json] = []

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def ask(self, **command: Json) -> Json:
        """Give one command and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._next_with("answer", lambda answer: True)

    def wait_for(self, kind: str, holds: Callable[[Json], bool] = lambda said: True) -> Json:
        """Return the next thing of a kind ("request", "stream", "event") of which it holds."""
        return self._next_with(kind, holds)

    def said(self, kind: str) -> list[Json]:
        return [said[kind] for said in self.seen if kind in said]

    def _next_with(self, kind: str, holds: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                said = json.loads(self._lines.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                raise AssertionError(
                    f"no {kind} within {DEADLINE_S} s; seen: {self.seen}"
                ) from None
            self.seen.append(said)
            if kind in said and holds(said[kind]):
                return said[kind]

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._reader.join(DEADLINE_S)
