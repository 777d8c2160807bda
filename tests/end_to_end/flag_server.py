"""`flagd-server serve` in a process of its own, on a database in a temporary folder."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.end_to_end.processes import DEADLINE_S, ServerProcess
from tests.ports import ReservedPort
from tests.processes import children_of, halted
from tests.waiting import eventually

Json = Any

_URL = "FLAGD_DATABASE_URL"
_AGAIN = "listening again on "
PROGRAM = ("-c", "import sys; from flagd_server.cli import main; sys.exit(main())")


class FlagServer:
    """Starts at once and listens when the constructor returns.

    `restart` keeps the database and the port, so that clients find it again.
    """

    def __init__(self, folder: Path, *, program: Sequence[str] = PROGRAM, **settings: str) -> None:
        """Start it.

        Args:
            program: what Python is to run; it is given the command line of `flagd-server`.
            settings: environment variables, such as `FLAGD_HEARTBEAT_S="1"`.
        """
        self._folder = folder
        self._program = program
        self._settings = settings
        self._session = requests.Session()
        self._session.trust_env = False
        self._reserved = ReservedPort()
        self._logs: list[str] = []
        self._start()
        tokens = json.loads((folder / "tokens.json").read_text())
        self.admin_token: str = tokens["admin"]
        self.sdk_tokens: Mapping[str, str] = tokens["sdk"]

    def _start(self) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FLAGD_")
        }
        if _URL not in self._settings:  # both would be an error
            environment["FLAGD_DATABASE"] = str(self.database)
        environment |= {
            "FLAGD_INITIAL_TOKENS_FILE": str(self._folder / "tokens.json"),
            "FLAGD_PORT": str(self.port),
            **self._settings,
        }
        self._process = ServerProcess([*self._program, "serve"], environment)
        try:
            self.url = self._process.url
        except BaseException:  # nobody else knows it yet who could stop it
            self._process.stop()
            raise

    @property
    def database(self) -> Path:
        return self._folder / "flags.db"

    @property
    def database_name(self) -> str:
        """What `open_storage` is to be given: a path or a URL."""
        return self._settings.get(_URL, str(self.database))

    @property
    def port(self) -> int:
        return self._reserved.number

    @property
    def pid(self) -> int:
        """Of the process that was started: signals to it stop the server."""
        return self._process.pid

    @property
    def worker_pid(self) -> int:
        """Of its child, which serves."""
        # None is there between its death and its successor's start.
        return eventually(self._children)[0]

    @property
    def log(self) -> str:
        return "".join((*self._logs, self._process.log))

    def signal(self, number: int) -> None:
        self._process.signal(number)

    def wait_for(self, pattern: str) -> None:
        """Return when what it has written since its start holds the pattern."""
        self._process.wait_for(pattern)

    def wait(self) -> int:
        """Return the exit code."""
        return self._process.wait()

    def stop(self) -> int:
        """Stop as an operator does, and return the exit code."""
        self._session.close()
        return self._process.stop()

    def restart(self) -> None:
        self.stop()
        self._logs.append(self._process.log)
        self._start()

    def crash(self) -> None:
        """End all of it without a warning; `restart` starts it again."""
        # Halted first: it may be about to replace a worker that has just died.
        for pid in (self.pid, *halted(self.pid)):
            os.kill(pid, signal.SIGKILL)
        self.wait()

    def kill_worker(self) -> None:
        """End what serves without a warning; it is started again."""
        told = self.log.count(_AGAIN)
        os.kill(self.worker_pid, signal.SIGKILL)
        eventually(lambda: self.log.count(_AGAIN) > told, within_s=DEADLINE_S)

    def _children(self) -> list[int]:
        return children_of(self.pid)

    def call(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request, with the admin token unless another is given."""
        return self._session.request(
            method,
            self.url + path,
            json=body,
            headers={"Authorization": f"Bearer {token or self.admin_token}", **(headers or {})},
            timeout=DEADLINE_S,
        )

    def ask(self, method: str, path: str, body: Json = None, **options: Any) -> requests.Response:
        """Send a request as `call` does, again while the server can't do it just now.

        Postgres ends the session of a server that the machine pauses in the middle of a write, and
        that write is a 503, of which nothing was changed.
        """

        def answered() -> list[requests.Response]:
            answer = self.call(method, path, body, **options)
            return [] if answer.status_code == 503 else [answer]

        return eventually(answered, every_s=0.1)[0]

    def create_flag(self, key: str, environment: str = "production", **configuration: Json) -> None:
        """Create a boolean flag and configure it in one environment, enabled unless said."""
        document = {"key": key, "type": "boolean", "variants": {"on": True, "off": False}}
        created = self.ask("POST", "/api/v1/flags", document)
        assert created.status_code == 201, created.text
        self.configure(key, environment, **{"enabled": True, **configuration})

    def configure(self, key: str, environment: str = "production", **changes: Json) -> Json:
        """Change a configuration, whatever its version, and return it as it then is."""
        path = f"/api/v1/flags/{key}/environments/{environment}"
        etag = self.ask("GET", path).headers["ETag"]
        changed = self.ask("PATCH", path, changes, headers={"If-Match": etag})
        assert changed.status_code == 200, changed.text
        return changed.json()

    def kill_flag(self, key: str, environment: str = "production", wait_s: float = 0) -> Json:
        path = f"/api/v1/flags/{key}/environments/{environment}/kill"
        killed = self.ask(
            "POST", path + (f"?wait_s={wait_s}" if wait_s else ""), {"reason": "a test"}
        )
        assert killed.status_code == 200, killed.text
        return killed.json()
