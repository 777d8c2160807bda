"""Servers for benchmarks, each in a process of its own on the first core."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks._crowd import Crowd
from benchmarks._loopback import Connection, no_collections, request_bytes, requests_per_second

FLAG = "new-checkout"
_PATH = f"/api/v1/flags/{FLAG}/environments/production"
_START_S = 60.0
_FLOOR_SOURCE = Path(__file__).with_name("floor.c")


class Program:
    """A server in a process of its own, on the first core. `command` is a program's path first."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAGD_")}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the program
        self._process = subprocess.Popen(
            command,
            env=kept | environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.port = self._wait_for_port()
            pin(self._process.pid, 0)
            pin(self.worker, 0)
        except BaseException:  # nobody else knows it yet who could stop it
            self.stop()
            raise

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

    def kill(self) -> None:
        """End it as a power cut would, worker and all."""
        worker = self.worker
        self._process.kill()
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it in order. Idempotent."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


def pin(process: int, core: int) -> None:
    """Keep a process and its threads on one core, where there are two at least."""
    cores = sorted(os.sched_getaffinity(process))
    if len(cores) > 1:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread.name), {cores[core]})


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[Program]:
    program = Program(command, **environment)
    try:
        yield program
    finally:
        program.stop()


class Flags:
    """The server under test, with a flag to kill."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.program = program
        self.folder = folder
        tokens = json.loads((folder / "tokens.json").read_text())
        self.admin_token: str = tokens["admin"]
        self.sdk: str = tokens["sdk"]["production"]
        self.connection = Connection(program.port)
        self.create_flag(FLAG, rules=[])

    def admin(self, method: str, path: str, body: Any = None, extra: str = "") -> Any:
        encoded = b"" if body is None else json.dumps(body).encode()
        answer = self.connection.call(request_bytes(method, path, self.admin_token, encoded, extra))
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

    def metric(self, name: str) -> float:
        """Return a figure of /metrics that has no labels."""
        answer = self.connection.call(request_bytes("GET", "/metrics", self.admin_token))
        found = re.search(rf"(?m)^{name} (\S+)$", answer.body.decode())
        if found is None:
            raise RuntimeError(f"no {name} in /metrics")
        return float(found.group(1))

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
        request = request_bytes(
            "POST", _PATH + "/kill", self.admin_token, b'{"reason":"a benchmark"}'
        )
        with no_collections():
            started_at = time.perf_counter()
            self.connection.send(request)
            arrived = crowd.gather(b"event: flag\n")
        kill = self.connection.receive().json()["kill"]["id"]
        self.admin("POST", _PATH + "/restore", {"kill": kill, "reason": "again", "keep": True})
        crowd.gather(b"event: flag\n")
        return [(at - started_at) * 1e3 for at in arrived]


def etag_of(port: int, request: bytes) -> str:
    """Return the tag of what a request is answered with."""
    connection = Connection(port)
    connection.send(request)
    head = connection.sock.recv(65536).partition(b"\r\n\r\n")[0].decode()
    connection.close()
    found = re.search(r"(?im)^etag: (\S+)", head)
    if found is None:
        raise RuntimeError(f"no ETag: {head}")
    return found.group(1)


@contextmanager
def bare_loop(kind: str, size: int) -> Iterator[tuple[Program, str]]:
    """Run a floor of `floor.c`; without a C compiler the same in Python. Yield its language, too.

    Args:
        kind: "fanout" or "answer".
        size: bytes of what it sends.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        with running([sys.executable, "-m", "benchmarks._floor", kind, str(size)]) as program:
            yield program, "Python"
        return
    with tempfile.TemporaryDirectory() as folder:
        binary = str(Path(folder, "floor"))
        subprocess.run([compiler, "-O2", "-o", binary, _FLOOR_SOURCE], check=True)
        with running([binary, kind, str(size)]) as program:
            yield program, "C"


@contextmanager
def serving(folder: Path, **database: str) -> Iterator[Program]:
    """Run `flagd-server serve`; the first one on a database leaves its tokens in the folder."""
    main = "import sys; from flagd_server.cli import main; sys.exit(main())"
    with running(
        [sys.executable, "-c", main, "serve"],
        FLAGD_PORT="0",
        FLAGD_INITIAL_TOKENS_FILE=str(folder / "tokens.json"),
        # One token and one address stand for a whole fleet here.
        FLAGD_MAX_STREAMS_PER_TOKEN="14000",  # noqa: S106 - a number
        FLAGD_API_PER_MINUTE="0",
        FLAGD_OPEN_PER_MINUTE="0",
        **database,
    ) as program:
        yield program


@contextmanager
def flag_server() -> Iterator[Flags]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(folder, FLAGD_DATABASE=str(folder / "flags.db")) as program:
            flags = Flags(folder, program)
            yield flags
            flags.connection.close()
