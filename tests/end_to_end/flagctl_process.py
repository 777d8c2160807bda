"""`flagctl` as it is installed, in a process of its own."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, NamedTuple

from tests.end_to_end.processes import DEADLINE_S

PROGRAM = Path(sys.executable).parent / "flagctl"


class Done(NamedTuple):
    """What a command has left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, which has to be one JSON document and nothing else."""
        return json.loads(self.out)


class Flagctl:
    """Runs commands on one server, in one folder."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FLAGD_")
            and name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM")
        } | {"FLAGD_URL": url, "FLAGD_TOKEN": token, "PYTHONWARNINGS": "error"}

    def environment(self, **changes: str | None) -> dict[str, str]:
        merged: dict[str, str | None] = {**self._environment, **changes}
        return {name: value for name, value in merged.items() if value is not None}

    def start(self, *arguments: str, **changes: str | None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PROGRAM, *arguments],
            env=self.environment(**changes),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(self, *arguments: str, **changes: str | None) -> Done:
        """Run a command; `changes` are environment variables, None for one that is not set."""
        with self.start(*arguments, **changes) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str) -> Any:
        """Run a command with `--json`, which has to succeed, and return its document."""
        done = self.run(*arguments, "--json")
        assert done.code == 0, (arguments, done)
        return done.document

    def on_terminal(
        self, *arguments: str, columns: int = 100, answer: str = "", **changes: str | None
    ) -> Done:
        """Run a command on a terminal of so many columns; `answer` is what a person types."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            env=self.environment(TERM="xterm-256color", **changes),
            cwd=self._folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, answer.encode())
        parts = []
        try:
            while part := os.read(ours, 65_536):
                parts.append(part)
        except OSError:  # how Linux tells that nobody has the terminal open any more
            pass
        finally:
            os.close(ours)
        return Done(process.wait(DEADLINE_S), b"".join(parts).decode(), "")
