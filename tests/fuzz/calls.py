"""What the fuzzer sends and is answered, and the two ways to send it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import requests
from flask import Flask

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Call:
    """One request, as it goes on the wire; `target` is path and query, names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def shown(self) -> str:
        """Return it for a person who wants to send it again."""
        headers = "".join(f"\n    {name}: {value}" for name, value in self.headers.items())
        return f"{self.method} {self.target}{headers}\n    {self.body!r}"


@dataclass(frozen=True)
class Answer:
    """`body` is None where it has no end."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Sender(Protocol):
    def send(self, call: Call) -> Answer: ...


class InProcess:
    """Calls the application as a WSGI server does."""

    def __init__(self, app: Flask) -> None:
        self._client = app.test_client(use_cookies=False)

    def send(self, call: Call) -> Answer:
        response = self._client.open(
            call.path,
            method=call.method,
            query_string=call.query,
            data=call.body,
            headers=dict(call.headers),
        )
        is_endless = response.mimetype == "text/event-stream"
        try:
            body = None if is_endless else response.data
        finally:
            response.close()
        return Answer(response.status_code, _lowered(response.headers), body)


class OverHttp:
    """Calls a server that listens."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def send(self, call: Call) -> Answer:
        request = requests.Request(call.method, self._url, dict(call.headers)).prepare()
        # As it is: what `requests` would tidy is what a server has to bear.
        request.url = self._url + call.target
        request.body = call.body or None
        if call.body:
            request.headers["Content-Length"] = str(len(call.body))
        with self._session.send(request, stream=True, timeout=TIMEOUT_S) as response:
            is_endless = response.headers.get("Content-Type", "").startswith("text/event-stream")
            body = None if is_endless else response.content
            return Answer(response.status_code, _lowered(response.headers), body)

    def close(self) -> None:
        self._session.close()


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with names in lower case; what is there twice is joined."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        held = found.get(name.lower())
        found[name.lower()] = value if held is None else f"{held}, {value}"
    return found
