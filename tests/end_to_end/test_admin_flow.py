"""The life of one flag on a real server: requests as curl sends them, a real SDK beside them."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from flagd_sdk import FlagClient
from tests.contract.openapi_contract import Exchange, contract
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S

CHECKOUT = "/api/v1/flags/new-checkout"
PRODUCTION = f"{CHECKOUT}/environments/production"
USERS = [{"targetingKey": f"user-{number}"} for number in range(400)]


class Operator:
    """Sends requests with the admin token, and holds each exchange to the contract."""

    def __init__(self, server: FlagServer) -> None:
        self._server = server

    def __call__(
        self, method: str, path: str, body: Any = None, version: int | None = None
    ) -> requests.Response:
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        answer = self._server.call(method, path, body, headers=headers)
        parts = urlsplit(path)
        contract().check(
            Exchange(
                method=method.lower(),
                path=parts.path,
                query=parts.query,
                request_headers={name.lower(): value for name, value in headers.items()},
                request_body=b"" if body is None else json.dumps(body).encode(),
                status=answer.status_code,
                headers={name.lower(): value for name, value in answer.headers.items()},
                body=answer.content,
            )
        )
        return answer


@pytest.fixture
def operator(server: FlagServer) -> Operator:
    return Operator(server)


@pytest.fixture
def shop(server: FlagServer) -> Iterator[FlagClient]:
    with FlagClient(
        server.url, server.sdk_tokens["production"], service="shop", cache_dir=None
    ) as client:
        assert client.wait_until_ready(DEADLINE_S)
        yield client


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.01)


def _served(client: FlagClient) -> set[str]:
    """Return the users who have the feature."""
    return {
        user["targetingKey"] for user in USERS if client.is_enabled("new-checkout", context=user)
    }


def test_a_flag_is_made_raised_killed_and_restored(operator: Operator, shop: FlagClient) -> None:
    variants = {"on": True, "off": False}
    created = operator(
        "POST", "/api/v1/flags", {"key": "new-checkout", "type": "boolean", "variants": variants}
    )
    assert created.status_code == 201
    version = created.json()["configurations"]["production"]["version"]

    before: set[str] = set()
    for share in (5_000, 25_000, 50_000):
        split = {"split": {"weights": {"on": share, "off": 100_000 - share}}}
        raised = operator(
            "PATCH", PRODUCTION, {"enabled": True, "default_serve": split}, version=version
        )
        assert raised.status_code == 200
        version = raised.json()["version"]
        expected = share / 100_000 * len(USERS)
        _eventually(lambda seen=before, at_least=expected * 0.6: len(_served(shop)) > at_least)
        now = _served(shop)
        assert now >= before, "a ramp takes the feature from nobody"
        before = now

    killed = operator(
        "POST", f"{PRODUCTION}/kill?wait_s=10", {"reason": "payments fail", "source": "alert"}
    ).json()
    receipt = killed["receipt"]
    assert (receipt["processes"], receipt["confirmed"], receipt["unconfirmed"]) == (1, 1, [])
    # The receipt is the promise that it is off there: no waiting for it any more.
    assert _served(shop) == set()

    version = killed["version"]
    raised = operator(
        "PATCH", PRODUCTION, {"default_serve": {"variant": "on"}}, version=version
    ).json()
    assert raised["kill"]["id"] == killed["kill"]["id"]
    back = operator("POST", f"{PRODUCTION}/rollback", {"version": version}, raised["version"])
    assert back.status_code == 200
    assert _served(shop) == set()

    unknown = {"kill": "kill-0", "reason": "fixed"}
    assert operator("POST", f"{PRODUCTION}/restore", unknown).status_code == 409
    body = unknown | {"kill": killed["kill"]["id"], "start_percent": 10}
    restored = operator("POST", f"{PRODUCTION}/restore", body)
    assert restored.json()["kill"] is None
    _eventually(lambda: len(_served(shop)) > 0)
    again = _served(shop)
    assert again < before, "fewer than had it, and the same users"

    history = operator("GET", f"{PRODUCTION}/history").json()["items"]
    assert [item["action"] for item in history[:4]] == ["restore", "rollback", "update", "kill"]
    audit = operator("GET", "/api/v1/audit?flag=new-checkout&limit=200").json()["items"]
    assert len(audit) >= len(history)


def test_the_commands_in_the_contract_work_as_they_stand(server: FlagServer) -> None:
    description = contract().document["info"]["description"]
    block = re.search(r"## A first flag by curl\n(.*?)\n## ", description, re.DOTALL)
    assert block is not None
    script = re.sub(r"^ *URL=.*$", "", block[1], flags=re.MULTILINE)
    script = "\n".join(line for line in script.splitlines() if line.startswith("    "))
    # Only the server knows the id of the kill; what a wrong one is answered is known.
    script = script.replace("<kill.id>", "kill-0")
    done = subprocess.run(
        ["bash", "-euc", script],
        env={"URL": server.url, "TOKEN": server.admin_token, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert '"weights":{"on":5000,"off":95000}' in done.stdout
    assert '"killed":true' in done.stdout
    assert "not by 'kill-0'" in done.stdout


def _send(server: FlagServer, head: str, *pieces: bytes) -> bytes:
    """Send raw bytes and return the status line; a server that closes early may stop reading."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as sock:
        lines = [head, "Host: flags", f"Authorization: Bearer {server.admin_token}"]
        try:
            sock.sendall("\r\n".join(lines).encode() + b"\r\n")
            for piece in pieces:
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return sock.makefile("rb").readline()


POST = "POST /api/v1/environments HTTP/1.1\r\nContent-Type: application/json"


class TestBodiesOnTheWire:
    def test_a_body_announced_as_too_large_is_refused_unread(self, server: FlagServer) -> None:
        status = _send(server, POST, b"Content-Length: 999999999999\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 413 ")

    def test_a_chunked_body_is_refused_once_it_is_too_large(self, server: FlagServer) -> None:
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        status = _send(server, POST, b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 17)
        assert status.startswith(b"HTTP/1.1 413 ")

    def test_a_chunked_body_within_the_limit_is_read(self, server: FlagServer) -> None:
        body = b'{"key": "preview"}'
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        status = _send(server, POST, b"Transfer-Encoding: chunked\r\n\r\n", chunked)
        assert status.startswith(b"HTTP/1.1 201 ")

    @pytest.mark.parametrize(
        "rest",
        [
            b"Transfer-Encoding: chunked\r\n\r\nnot a size\r\n",
            b"Content-Length: -5\r\n\r\n",
            b"Content-Length: five\r\n\r\n",
        ],
    )
    def test_broken_framing_is_a_400(self, server: FlagServer, rest: bytes) -> None:
        assert _send(server, POST, rest).startswith(b"HTTP/1.1 400 ")
        assert server.call("GET", "/healthz").status_code == 200
