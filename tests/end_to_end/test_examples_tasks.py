"""Runs the examples of Celery, Sentry and OpenTelemetry as they stand, against a real server."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import REPOSITORY

WITHIN_S = 50.0


@pytest.fixture
def shop(server: FlagServer) -> FlagServer:
    server.create_flag("new-checkout", default_serve={"variant": "on"})
    return server


def run(
    example: str, server: FlagServer, expected_code: int = 0, **settings: str
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", f"examples.integrations.{example}"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "FLAGD_URL": server.url,
            "FLAGD_TOKEN": server.sdk_tokens["production"],
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert result.returncode == expected_code, result.stderr
    return result


def test_the_celery_task_takes_the_way_that_the_flag_says(shop: FlagServer) -> None:
    assert run("celery_app", shop).stdout == "the new checkout\n"
    shop.kill_flag("new-checkout")
    assert run("celery_app", shop).stdout == "the old checkout\n"


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON documents that follow one another in a text."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def test_the_opentelemetry_example_exports_an_event_and_a_span(shop: FlagServer) -> None:
    event, span = documents(run("opentelemetry_app", shop).stdout)
    assert event["event_name"] == "feature_flag.evaluation"
    assert event["attributes"]["feature_flag.key"] == "new-checkout"
    assert event["attributes"]["feature_flag.result.variant"] == "on"
    assert event["attributes"]["feature_flag.set.id"] == "production"
    assert event["trace_id"] == span["context"]["trace_id"]
    assert span["attributes"] == {"flagd_release.variant.new-checkout": "on"}


@contextmanager
def sentry() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Take what is sent to Sentry; give its DSN and the events."""
    events: list[dict[str, Any]] = []

    class Intake(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            items = [json.loads(line) for line in body.splitlines() if line]
            events.extend(item for item in items if "exception" in item)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Intake) as intake:
        thread = threading.Thread(target=intake.serve_forever)
        thread.start()
        try:
            yield f"http://key@127.0.0.1:{intake.server_port}/1", events
        finally:
            intake.shutdown()
            thread.join()


def test_the_sentry_example_sends_its_error_with_the_flags(shop: FlagServer) -> None:
    with sentry() as (dsn, events):
        result = run("sentry_app", shop, expected_code=1, SENTRY_DSN=dsn)
        assert "the new checkout is broken" in result.stderr
        shop.kill_flag("new-checkout")
        assert run("sentry_app", shop, SENTRY_DSN=dsn).stdout == "the old checkout\n"
    (event,) = events
    assert event["contexts"]["flags"]["values"] == [{"flag": "new-checkout", "result": True}]
    assert event["contexts"]["flag variants"] == {"new-checkout": "on"}
