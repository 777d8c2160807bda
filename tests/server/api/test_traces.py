"""Traces, as a collector receives them: a tiny one of the test's own, over HTTP."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from flagd_server.app import create_app
from flagd_server.build import Build
from flagd_server.config import Settings
from flagd_server.domain.targets import Allowed
from flagd_server.errors import OutgoingError, SettingsError
from flagd_server.otel import tracing_of
from flagd_server.outgoing import OutgoingHttp
from flagd_server.services.first_start import InitialTokens
from flagd_server.tracing import NoTracing
from tests.server.api.client import Api
from tests.server.strange_servers import nobody_listening
from tests.waiting import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """Takes spans in, as OTLP over HTTP brings them; also a page for the server to ask."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.asked: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self._answer()

            def do_GET(self) -> None:
                collector.asked.append(dict(self.headers))
                self._answer()

            def _answer(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with closing(Collector()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_and_its_transaction_are_one_trace_with_the_caller_s(
    collector: Collector, database: str, initial_tokens: InitialTokens
) -> None:
    app = create_app(Settings(database=database, git_sha="0123abc"))
    admin, sdk = Api(app, initial_tokens.admin), Api(app, initial_tokens.sdk["production"])
    admin.post("/api/v1/environments", {"key": "preview"}, headers={"traceparent": TRACEPARENT})
    etag = sdk.get("/sdk/v1/flags").headers["ETag"]
    sdk.get("/sdk/v1/flags", headers={"If-None-Match": etag})
    body = {"context": {"targetingKey": "eva@shop.example"}}
    sdk.post("/ofrep/v1/evaluate/flags", body)
    admin.get("/api/v1/audit?flag=swordfish")
    admin.get("/nothing/eva@shop.example")
    admin.get("/healthz")
    app.extensions["flagd_server"].close()

    # The last to be sent; a server that stops waits for the collector, but not for long.
    eventually(lambda: "GET" in {span.name for span in collector.spans})
    named = {span.name: span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert set(named) == {
        "POST /api/v1/environments",
        "GET /sdk/v1/flags",
        "POST /ofrep/v1/evaluate/flags",
        "GET /api/v1/audit",
        "GET",
    }
    created = named["POST /api/v1/environments"]
    assert (created.trace_id.hex(), created.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(created) == {
        "http.request.method": "POST",
        "http.route": "/api/v1/environments",
        "http.response.status_code": 201,
        "flagd.request_id": TRACE,
    }
    within = [span for span in collector.spans if span.parent_span_id == created.span_id]
    assert "storage.write" in {span.name for span in within}
    assert {attributes(span)["db.system.name"] for span in within} == {"sqlite"}
    # The poll that is answered before Flask is among them.
    polls = [span for span in collector.spans if span.name == "GET /sdk/v1/flags"]
    assert {attributes(span)["http.response.status_code"] for span in polls} == {200, 304}
    everything = b"".join(request.SerializeToString() for request in collector.requests)
    for secret in (b"eva@", b"swordfish", initial_tokens.admin.encode()):
        assert secret not in everything
    for said in (b"flagd-server", b"0123abc"):
        assert said in everything


def test_what_the_server_asks_others_is_traced_and_told_the_trace(collector: Collector) -> None:
    tracing = tracing_of(os.environ, Build("1.0.0"))
    outgoing = OutgoingHttp(Allowed.parse(["127.0.0.1"]), tracing=tracing)
    assert outgoing.get(f"{collector.url}/hooks/swordfish?key=hunter2", 30.0)[0] == 200
    with nobody_listening() as url, pytest.raises(OutgoingError):
        outgoing.get(f"{url}/", 30.0)
    tracing.close()
    answered, failed = eventually(lambda: collector.spans[1:] and collector.spans)
    assert answered.kind == Span.SPAN_KIND_CLIENT
    assert attributes(answered)["server.address"] == "127.0.0.1"
    assert attributes(answered)["http.response.status_code"] == 200
    told = collector.asked[0]["traceparent"]
    assert told.split("-")[1:3] == [answered.trace_id.hex(), answered.span_id.hex()]
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "OutgoingFailedError"
    everything = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"swordfish" not in everything
    assert b"hunter2" not in everything


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_it_is_off_unless_somebody_says_where_to(environ: dict[str, str]) -> None:
    assert isinstance(tracing_of(environ, Build("1.0.0")), NoTracing)


def test_a_protocol_that_is_not_spoken_is_told_at_the_start() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf"):
        tracing_of(environ, Build("1.0.0"))


WITHOUT = """
import sys
for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
    del sys.modules[name]
sys.modules["opentelemetry"] = None
import json, os
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.errors import SettingsError
app = create_app(Settings(database=sys.argv[1]))
status = app.test_client().get("/healthz").status_code
app.extensions["flagd_server"].close()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://x"
try:
    create_app(Settings(database=sys.argv[1]))
except SettingsError as error:
    print(json.dumps([status, str(error)]))
"""


def test_the_server_runs_without_the_extra_and_names_it_where_it_is_wanted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "flagd.db")],
        env={name: text for name, text in os.environ.items() if not name.startswith("OTEL_")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [
        200,
        "OTEL_EXPORTER_OTLP_ENDPOINT: traces need what the extra brings:"
        " pip install 'flagd-release[otel]'",
    ]
