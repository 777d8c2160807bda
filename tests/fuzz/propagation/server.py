"""A whole server on a file, in this process: it can be restarted and put back to a backup.

What it has published is kept by sequence, from its stream: what any process may hold.
"""

import json
import shutil
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.test import Client, TestResponse

from flagd_sdk.core.sse import Decoder
from flagd_sdk.errors import ConnectError
from tests.fuzz.first_database import open_app
from tests.fuzz.propagation.network import WAIT_S, Line

ENVIRONMENT = "production"
Json = Any


class Published:
    """The server's flag set as of each sequence that its stream has named."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sets: dict[int, Mapping[str, Json]] = {}
        self._newest = -1

    def follow(self, line: Line, instance: str = "observer") -> threading.Thread:
        """Read a stream to its end, in a thread."""
        connection = line.open_stream("", instance)

        def read() -> None:
            decoder = Decoder(1 << 24)
            while piece := connection.read():
                for event in decoder.feed(piece):
                    self._take(event.event, json.loads(event.data))

        thread = threading.Thread(target=read, name="observer", daemon=True)
        thread.start()
        return thread

    def _take(self, event: str, document: Json) -> None:
        with self._changed:
            sequence = document["sequence"]
            if event == "flags":
                self._sets[sequence] = document
            else:
                held = self._sets[self._newest]
                flags = dict(held["flags"])
                flags[document["key"]] = document["flag"]
                if document["flag"] is None:
                    del flags[document["key"]]
                self._sets[sequence] = {**held, "sequence": sequence, "flags": flags}
            self._newest = sequence
            self._changed.notify_all()

    def at(self, sequence: int) -> Mapping[str, Json] | None:
        """Return the set of a sequence; None where it was never published."""
        with self._changed:
            self._changed.wait_for(lambda: sequence in self._sets, WAIT_S)
            return self._sets.get(sequence)


class _Serving:
    """Calls the application, and knows when nobody does: only then is it closed."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._changed = threading.Condition()
        self._calls = 0
        self._is_closed = False

    def __call__(self, environ: Any, start_response: Any) -> Any:
        with self._changed:
            if self._is_closed:
                raise ConnectError("the server is going")
            self._calls += 1
        try:
            return self._app(environ, start_response)
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            assert self._changed.wait_for(lambda: not self._calls, WAIT_S), "a request hangs"
        self._app.extensions["flagd_server"].close()


class Server:
    """Runs from the start, unless stopped. `published` outlives restarts."""

    def __init__(self, folder: Path, admin_token: str, sdk_token: str) -> None:
        self._file = folder / "flags.db"
        self._backup = folder / "backup.db"
        self._admin = {"Authorization": f"Bearer {admin_token}"}
        self._sdk_token = sdk_token
        self.app: _Serving | None = None
        self.published = Published()
        self.has_backup = False
        self.start()

    def application(self) -> _Serving | None:
        return self.app

    def start(self) -> None:
        self.app = _Serving(open_app(self._file))
        self._observer = self.published.follow(Line(self.application, self._sdk_token))

    def stop(self) -> None:
        app, self.app = self.app, None
        if app is not None:
            app.close()
            # What it has not taken yet would be taken for what the next server says.
            self._observer.join(WAIT_S)
            assert not self._observer.is_alive(), "its stream has not ended"

    def restart(self) -> None:
        self.stop()
        self.start()

    def back_up(self) -> None:
        """Copy the file while the server runs on it."""
        with (
            closing(sqlite3.connect(self._file)) as source,
            closing(sqlite3.connect(self._backup)) as target,
        ):
            source.backup(target)
        self.has_backup = True

    def put_back(self) -> None:
        """Start on the backup: whatever was written since is gone."""
        self.stop()
        for file in self._file.parent.glob("flags.db*"):
            file.unlink()
        shutil.copy(self._backup, self._file)
        self.start()

    def call(
        self, method: str, path: str, body: Json = None, if_match: int | None = None
    ) -> TestResponse:
        """Ask as the administrator."""
        assert self.app is not None
        headers = dict(self._admin)
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        answer = Client(self.app).open(path, method=method, json=body, headers=headers)
        assert answer.status_code < 500, answer.text
        return answer

    def ask_as_application(self, method: str, path: str, body: Json = None) -> Json:
        assert self.app is not None
        headers = {"Authorization": f"Bearer {self._sdk_token}"}
        answer = Client(self.app).open(path, method=method, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    @property
    def sequence(self) -> int:
        return int(self.ask_as_application("GET", "/sdk/v1/flags")["sequence"])

    def evaluations(self, user: Mapping[str, Json]) -> dict[str, tuple[str, Json]]:
        """Return what the server itself serves a user: flag → (variant, value)."""
        body = {"context": dict(user)}
        found = self.ask_as_application("POST", "/ofrep/v1/evaluate/flags", body)["flags"]
        return {each["key"]: (each["variant"], each["value"]) for each in found}
