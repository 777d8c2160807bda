"""Servers for benchmarks, each in a process of its own on the first core."""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._loopback import (
    Connection,
    Crowd,
    no_collections,
    request_bytes,
    requests_per_second,
)

FLAG = "new-checkout"
_PATH = f"/api/v1/flags/{FLAG}/environments/production"
_START_S = 30.0


class Program:
    """A server in a process of its own, on the first core."""

    def __init__(self, arguments: list[str], **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAGD_")}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the program
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=kept | environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.port = self._wait_for_port()
        pin(self._process.pid, 0)
        pin(self.worker, 0)

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r"listening on http://\S+:(\d+)", self._read_log())
            if found:
                return int(found.group(1))
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {self._read_log()}")

    def _read_log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    @property
    def worker(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return int(children.split()[0]) if children else self._process.pid

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.worker}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


def pin(process: int, core: int) -> None:
    """Keep a process and its threads on one core, where there are two at least."""
    cores = sorted(os.sched_getaffinity(process))
    if len(cores) > 1:
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores[core]})


@contextmanager
def running(arguments: list[str], **environment: str) -> Iterator[Program]:
    program = Program(arguments, **environment)
    try:
        yield program
    finally:
        program.stop()


class Flags:
    """The server under test, with a flag to kill."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.program = program
        tokens = json.loads((folder / "tokens.json").read_text())
        self._admin: str = tokens["admin"]
        self.sdk: str = tokens["sdk"]["production"]
        self.connection = Connection(program.port)
        self.create_flag(FLAG, rules=[])

    def admin(self, method: str, path: str, body: Any = None, extra: str = "") -> Any:
        encoded = b"" if body is None else json.dumps(body).encode()
        answer = self.connection.call(request_bytes(method, path, self._admin, encoded, extra))
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body!r}")
        return answer.json()

    def create_flag(self, key: str, rules: list[Any]) -> None:
        variants = {"on": True, "off": False}
        self.admin("POST", "/api/v1/flags", {"key": key, "type": "boolean", "variants": variants})
        changes = {
            "enabled": True,
            "rules": rules,
            "default_serve": {"split": {"weights": {"on": 25_000, "off": 75_000}}},
        }
        path = f"/api/v1/flags/{key}/environments/production"
        self.admin("PATCH", path, changes, 'If-Match: "1"\r\n')

    def grow_to(self, size: int) -> int:
        """Add flags until the set has so many bytes, and return how many it has."""
        condition = {"attribute": "country", "op": "in", "values": ["NL", "BE", "DE", "FR", "LU"]}
        rule = {"id": "region", "condition": condition, "serve": {"variant": "on"}}
        get = request_bytes("GET", "/sdk/v1/flags", self.sdk)
        grown = number = 0
        while grown < size:
            self.create_flag(f"flag-{number}", [rule])
            number += 1
            grown = len(self.connection.call(get).body)
        return grown

    def warm_up(self) -> None:
        """Have every thread of the server work, and the hub hold some streams for a while."""
        get = request_bytes("GET", "/sdk/v1/flags", self.sdk)
        requests_per_second(self.program.port, lambda _: get, 200, connections=32, seconds=0.5)
        crowd = self.open_streams(200)
        self.time_kill(crowd)
        crowd.close()

    def open_streams(self, number: int) -> Crowd:
        crowd = Crowd(self.program.port, request_bytes("GET", "/sdk/v1/stream", self.sdk), number)
        if len(crowd.gather(b"event: flags\n")) < number:
            raise RuntimeError("some streams never started")
        return crowd

    def time_kill(self, crowd: Crowd) -> list[float]:
        """Kill, and return the milliseconds until each stream had it; then restore."""
        request = request_bytes("POST", _PATH + "/kill", self._admin, b'{"reason":"a benchmark"}')
        with no_collections():
            started_at = time.perf_counter()
            self.connection.send(request)
            arrived = crowd.gather(b"event: flag\n")
        kill = self.connection.receive().json()["kill"]["id"]
        self.admin("POST", _PATH + "/restore", {"kill": kill})
        crowd.gather(b"event: flag\n")
        return [(at - started_at) * 1e3 for at in arrived]


@contextmanager
def flag_server() -> Iterator[Flags]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        serve = ["-c", "import sys; from flagd_server.cli import main; sys.exit(main())", "serve"]
        with running(
            serve,
            FLAGD_PORT="0",
            FLAGD_DATABASE=str(folder / "flags.db"),
            FLAGD_INITIAL_TOKENS_FILE=str(folder / "tokens.json"),
        ) as program:
            flags = Flags(folder, program)
            yield flags
            flags.connection.close()
