"""Starts the server and the shops, watches them, and ends them, whatever happens."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

ENVIRONMENT = "production"
SHOPS = ("shop-1", "shop-2", "shop-3")
_START_WITHIN_S = 60.0
_STOP_WITHIN_S = 6.0
_POLL_S = 0.02
_LINES_SHOWN = 12
_REPOSITORY = Path(__file__).parents[2]


class ProcessFailedError(Exception):
    """A process did not start, or ended although nobody asked it to."""


class Child:
    """A process in a group of its own, which writes into a file; Ctrl-C does not reach it."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=_REPOSITORY,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def wait_for(self, pattern: str) -> str:
        """Return the first group of the pattern in what the process wrote.

        Raises:
            ProcessFailedError: it ended, or did not write that in time.
        """
        deadline = time.monotonic() + _START_WITHIN_S
        while True:
            has_ended = self._process.poll() is not None
            found = re.search(pattern, self.written(), re.MULTILINE)
            if found is not None:
                return found.group(1)
            if has_ended or time.monotonic() > deadline:
                raise self._failure("did not start")
            time.sleep(_POLL_S)

    def written(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raise ProcessFailedError if the process has ended."""
        if self._process.poll() is not None:
            raise self._failure("ended")

    def _failure(self, what: str) -> ProcessFailedError:
        code = self._process.poll()
        how = "is still silent" if code is None else f"exit code {code}"
        last = "\n".join(f"    {line}" for line in self.written().splitlines()[-_LINES_SHOWN:])
        return ProcessFailedError(f"{self.name} {what} ({how}); its last words:\n{last}")

    def ask_to_stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until it has ended; kill its group when the time (monotonic) is up."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Cluster:
    """The server and three processes of the shop. Leaving the context ends them all.

    Attributes:
        url: of the server; `admin_token` opens its admin API, `sdk_token` is for the shops.
        shops: name → address.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []
        self.url = ""
        self.admin_token = ""
        self.sdk_token = ""
        self.shops: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start_server(self) -> None:
        """Start `flagd-server serve` on a new database.

        Raises:
            ProcessFailedError: it did not start.
        """
        program = Path(sys.executable).with_name("flagd-server")
        if not program.exists():
            raise ProcessFailedError(f"{program} is missing; `make install` puts it there")
        database, tokens = self._folder / "flagd.db", self._folder / "tokens.json"
        command = [str(program), "serve", "--port", "0", "--database", str(database)]
        command += ["--initial-tokens", str(tokens)]
        leash = [sys.executable, "-m", "examples.demo.leash", str(os.getpid())]
        server = self._start("server", [*leash, *command], {})
        self.url = server.wait_for(r'listening on (http://[^\s"]+)')
        issued = json.loads(tokens.read_text(encoding="utf-8"))
        self.admin_token, self.sdk_token = issued["admin"], issued["sdk"][ENVIRONMENT]

    def start_shops(self) -> None:
        """Start the shops side by side and wait for all of them.

        Raises:
            ProcessFailedError: one did not start.
        """
        settings = {"FLAGD_URL": self.url, "FLAGD_TOKEN": self.sdk_token}
        started = [
            self._start(
                name,
                [sys.executable, "-m", "examples.demo.shop_process", name, str(os.getpid())],
                settings,
            )
            for name in SHOPS
        ]
        for shop in started:
            self.shops[shop.name] = shop.wait_for(r"^ready (http://\S+)")

    def check(self) -> None:
        """Raise ProcessFailedError if one of the processes has ended."""
        for child in self._children:
            child.check()

    def stop(self) -> None:
        """End every process within a few seconds: the shops say their last words to the server."""
        shops = [child for child in self._children if child.name in SHOPS]
        others = [child for child in self._children if child.name not in SHOPS]
        for group in (shops, others):
            deadline = time.monotonic() + _STOP_WITHIN_S
            with ExitStack() as stack:
                for child in group:
                    stack.callback(child.end, deadline)
                    child.ask_to_stop()
        self._children.clear()

    def _start(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> Child:
        child = Child(name, command, {**_clean_environment(), **settings}, self._folder)
        self._children.append(child)
        return child


def _clean_environment() -> dict[str, str]:
    """Return the environment without another flagd's settings; no proxy stands before loopback."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAGD_")}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
