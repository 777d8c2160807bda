"""A server in a process of its own, with what it writes kept for whoever has to find out why."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEADLINE_S = 40.0
"""Bounds waiting only: two servers that start on a busy machine take half of it."""
REPOSITORY = Path(__file__).parents[2]


class ServerProcess:
    """Starts at once; `url` is known when it listens."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        program: str = sys.executable,
        **options: Any,
    ) -> None:
        """Args:
        options: of `subprocess.Popen`.
        """
        self._process = subprocess.Popen(
            [program, *arguments],
            env=dict(environment),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            **options,
        )
        self.pid = self._process.pid
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def log(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match in what the server has written; fail if it never comes."""
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while True:
                found = re.search(pattern, "".join(self._lines))
                if found:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    written = "".join(self._lines)
                    raise AssertionError(f"the server never wrote {pattern!r} but: {written}")
                self._changed.wait(min(left, 0.5))

    @property
    def url(self) -> str:
        return self.wait_for(r'listening on (http://[^\s"]+)').group(1)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code."""
        code = self._process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def stop(self) -> int:
        """Ask it to stop, end it if it doesn't, and return the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)  # a worker would keep the pipe open
        code = self.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code
