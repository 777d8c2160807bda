"""Web frameworks in real servers, real clients that go away, and what the flag server counted."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S, ServerProcess

GUNICORN = ["-m", "gunicorn", "--bind=127.0.0.1:0", "--threads=4", "--preload", "--workers=2"]
UVICORN = ["-m", "uvicorn", "--port=0", "--no-access-log"]
STACKS = {
    "gunicorn and Flask": ([*GUNICORN, "tests.end_to_end.web_sites:flask_app"], ""),
    "gunicorn and Django": ([*GUNICORN, "tests.end_to_end.web_sites:django_wsgi"], "/sync"),
    "uvicorn and FastAPI": ([*UVICORN, "tests.end_to_end.web_sites:fastapi_app"], "/async"),
    "uvicorn and Django": ([*UVICORN, "tests.end_to_end.web_sites:django_asgi"], "/async"),
}
SPLIT = {"split": {"weights": {"on": 50_000, "off": 50_000}}}


@contextmanager
def serving(command: list[str], server: FlagServer) -> Iterator[str]:
    """Run a site, give its address, and stop it, upon which it reports what it has counted."""
    settings = {"FLAGD_URL": server.url, "FLAGD_TOKEN": server.sdk_tokens["production"]}
    process = ServerProcess(command, {**os.environ, **settings})
    try:
        yield process.wait_for(r"(http://127\.0\.0\.1:\d+)").group(1)
    finally:
        process.stop()


def leave_in_the_middle(site: str, path: str) -> None:
    """Read the beginning of a body that never ends, and go."""
    host, _, port = site.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = b""
        while b"more" not in received:
            piece = connection.recv(4096)
            assert piece, f"it ended by itself: {received!r}"
            received += piece


def counted(server: FlagServer, flag: str) -> dict[str, Any]:
    """Return exposures and errors of both variants, and the kinds of failing visitors' errors."""
    path = f"/api/v1/flags/{flag}/environments/production/evidence"
    running = server.call("GET", path).json()["running"] or {"comparisons": []}
    errors = next((pair for pair in running["comparisons"] if pair["metric"] == "errors"), None)
    if errors is None:  # nothing was reported yet
        return {"exposures": 0, "errors": 0, "kinds": []}
    arms = errors["treatment"], errors["control"]
    return {
        "exposures": sum(arm["exposures"] for arm in arms),
        "errors": sum(arm["errors"] for arm in arms),
        "kinds": sorted(toss["kind"] for toss in errors["tosses"]),
    }


def eventually_counted(server: FlagServer, flag: str, exposures: int) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while (found := counted(server, flag))["exposures"] < exposures:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stack", STACKS)
def test_what_happened_to_requests_is_what_the_server_counts(
    server: FlagServer, stack: str
) -> None:
    for flag in ("on", "late"):
        server.create_flag(flag, default_serve=SPLIT, guard={"mode": "observe"})
    command, prefix = STACKS[stack]
    with serving(command, server) as site:
        for page, status in [
            ("plain", 200),
            ("raises", 500),
            ("unavailable", 503),
            ("missing", 404),
        ]:
            got = requests.get(f"{site}{prefix}/{page}", timeout=DEADLINE_S)
            assert got.status_code == status
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(f"{site}{prefix}/stream-raises", timeout=DEADLINE_S)
        leave_in_the_middle(site, f"{prefix}/endless")
        eventually_counted(server, "on", 6)
    # The site has ended, so whatever it had to say is said.
    assert counted(server, "on") == {
        "exposures": 6,
        "errors": 3,
        "kinds": ["error:503", "error:PaymentError", "error:PaymentError"],
    }
    assert counted(server, "late") == {  # in the bodies: of the stream that raises, of the endless
        "exposures": 2,
        "errors": 1,
        "kinds": ["error:PaymentError"],
    }
