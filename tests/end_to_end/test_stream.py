"""The stream, over real connections to a real server."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
import requests
from werkzeug.serving import make_server

from flagd_sdk.core.sse import ServerSentEvent
from flagd_server.app import create_app
from flagd_server.clock import SystemClock
from flagd_server.config import Settings
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.end_to_end.stream_reader import StreamReader
from tests.waiting import eventually

HEARTBEAT_S = Settings.model_fields["heartbeat_s"].default


def data(event: ServerSentEvent) -> Any:
    return json.loads(event.data)


def has_set(reader: StreamReader) -> bool:
    return any(event.event == "flags" for event in reader.events)


def has_flag_event(reader: StreamReader) -> bool:
    return bool(reader.flag_events())


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., StreamReader]]:
    """To the test's own server, unless another is named."""
    readers: list[StreamReader] = []

    def connect(
        environment: str = "production", to: FlagServer | None = None, **options: object
    ) -> StreamReader:
        target = to or request.getfixturevalue("server")
        readers.append(StreamReader(target.port, target.sdk_tokens[environment], **options))
        return readers[-1]

    yield connect
    for reader in readers:
        reader.sock.close()


def test_a_stream_starts_with_the_whole_set_of_its_environment(server, connect):
    server.create_flag("new-checkout")
    reader = connect().read_until(has_set, "the set")
    assert reader.head.startswith("HTTP/1.1 200 OK\r\n")
    assert data(reader.events[0])["environment"] == "production"
    assert data(reader.events[0])["flags"]["new-checkout"]["enabled"] is True
    assert reader.events[0].id == str(data(reader.events[0])["sequence"])


def test_the_set_on_the_stream_is_the_set_that_is_polled(server, connect):
    server.create_flag("new-checkout")
    reader = connect().read_until(has_set, "the set")
    token = server.sdk_tokens["production"]
    assert server.call("GET", "/sdk/v1/flags", token=token).json() == data(reader.events[0])


def test_a_change_reaches_the_streams_of_its_environment(server, connect):
    server.create_flag("new-checkout")
    production = connect().read_until(has_set, "the set")
    staging = connect("staging").read_until(has_set, "the set")
    server.kill_flag("new-checkout")
    event = production.read_until(has_flag_event, "the kill").flag_events()[0]
    assert data(event)["key"] == "new-checkout"
    assert data(event)["flag"]["kill"]["reason"] == "a test"
    server.configure("new-checkout", "staging", enabled=True)
    event = staging.read_until(has_flag_event, "the change").flag_events()[0]
    assert data(event)["flag"]["enabled"] is True
    assert data(event)["flag"]["kill"] is None


def test_a_segment_changes_the_whole_set(server, connect):
    reader = connect().read_until(has_set, "the set")
    condition = {"attribute": "plan", "op": "in", "values": ["beta"]}
    path = "/api/v1/environments/production/segments/beta"
    assert server.call("PUT", path, {"condition": condition}).ok
    reader.read_until(lambda r: len(r.events) == 2, "the second set")
    assert reader.events[1].event == "flags"
    assert data(reader.events[1])["segments"]["beta"] == condition


def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(server, connect):
    for number in range(5):  # or the whole set would be the shorter answer
        server.create_flag(f"other-{number}")
    server.create_flag("new-checkout")
    first = connect().read_until(has_set, "the set")
    held = first.events[-1].id
    first.sock.close()
    for enabled in (False, True, False):
        server.configure("new-checkout", enabled=enabled)
    again = connect(last_event_id=held)
    server.configure("new-checkout", enabled=True)
    again.read_until(lambda r: len(r.flag_events()) == 4, "four changes")
    assert [data(e)["flag"]["enabled"] for e in again.flag_events()] == [False, True, False, True]
    assert not has_set(again)
    sequences = [int(event.id) for event in again.events]
    assert sequences == sorted(set(sequences))
    assert sequences[0] > int(held)


def test_a_reader_that_holds_everything_gets_nothing_but_is_live(server, connect):
    server.create_flag("new-checkout")
    held = connect().read_until(has_set, "the set").events[-1].id
    again = connect(last_event_id=held).read_until(lambda r: b": hb\n" in r.raw, "a comment")
    assert again.events == []
    server.kill_flag("new-checkout")
    assert has_flag_event(again.read_until(has_flag_event, "the kill"))


@pytest.mark.parametrize("held", ["1", "99999999999999", "nonsense", "-1", "9" * 30])
def test_an_id_that_the_server_does_not_know_asks_for_the_whole_set(module_server, connect, held):
    reader = connect(to=module_server, last_event_id=held)
    assert has_set(reader.read_until(has_set, "the set"))


@pytest.mark.parametrize("end", ["restart", "kill_worker"])
def test_a_reader_resumes_after_the_server_came_back(server, connect, end):
    server.create_flag("new-checkout")
    server.create_flag("other")
    reader = connect().read_until(has_set, "the set")
    server.kill_flag("new-checkout")
    held = reader.read_until(has_flag_event, "the kill").events[-1].id
    getattr(server, end)()
    reader.read_to_end()
    up_to_date = connect(last_event_id=held).read_until(lambda r: b": hb\n" in r.raw, "a comment")
    assert up_to_date.events == []
    server.kill_flag("other")
    up_to_date.read_until(has_flag_event, "the second kill")
    assert int(up_to_date.events[-1].id) > int(held)
    behind = connect(last_event_id=str(int(held) - 1)).read_until(lambda r: bool(r.events), "it")
    # What it missed, or everything: never less.
    flags = [data(event) for event in behind.events]
    assert "flags" in flags[0] or flags[0]["key"] in ("new-checkout", "other")


def test_the_answer_to_a_write_waits_for_no_reader_and_a_slow_one_is_cut(server, connect):
    server.create_flag("large")
    slow = connect(receive_buffer=4096)
    swift = connect().read_until(has_set, "the set")
    slow.read_until(has_set, "the set")
    rule = {
        "id": "r",
        "condition": {"attribute": "user", "op": "in", "values": ["x" * 900] * 400},
        "serve": {"variant": "on"},
    }
    metrics = ""
    for number in range(60):
        server.configure("large", rules=[rule], off_variant=("on", "off")[number % 2])
        swift.read_until(lambda r, n=number: len(r.flag_events()) > n, f"change {number}")
        metrics = server.call("GET", "/metrics").text
        if "flagd_streams_cut_total 1.0" in metrics:
            break
    else:
        pytest.fail(f"never cut: {metrics}")
    slow.read_to_end()
    assert len(slow.flag_events()) < len(swift.flag_events())
    # It comes back with what it holds.
    again = connect(last_event_id=slow.events[-1].id)
    again.read_until(lambda r: bool(r.events), "what it missed")
    assert int(again.events[-1].id) <= int(swift.events[-1].id)


def test_a_revoked_token_loses_its_stream_at_once(server, connect):
    kept = connect().read_until(has_set, "the set")
    created = server.call(
        "POST", "/api/v1/tokens", {"scope": "sdk", "environment": "production", "name": "second"}
    ).json()
    revoked = StreamReader(server.port, created["text"]).read_until(has_set, "the set")
    assert server.call("DELETE", f"/api/v1/tokens/{created['id']}").ok
    assert revoked.read_to_end().flag_events() == []
    refused = StreamReader(server.port, created["text"])
    refused.read_until(lambda r: bool(r.head), "the answer")
    assert refused.head.startswith("HTTP/1.1 401")
    server.create_flag("new-checkout")
    kept.read_until(has_flag_event, "the flag")
    for reader in (revoked, refused):
        reader.sock.close()


def test_a_token_revoked_by_the_command_line_loses_its_stream_though_no_request_comes(
    server, connect
):
    reader = connect().read_until(has_set, "the set")
    storage = open_storage(str(server.database))
    tokens = Tokens(storage, SystemClock())
    (revoked,) = [token for token in tokens.list() if token.prefix == "fr_sdk_production"]
    started_at = time.monotonic()
    tokens.revoke(revoked.id, actor="command line")
    storage.close()
    assert reader.read_to_end().flag_events() == []
    assert time.monotonic() - started_at < HEARTBEAT_S, "not only when a heartbeat was due"
    token = server.sdk_tokens["production"]
    assert server.call("GET", "/sdk/v1/flags", token=token).status_code == 401


def test_a_token_that_expires_loses_its_stream_before_a_heartbeat_is_due(server, connect):
    kept = connect().read_until(has_set, "the set")
    body = {"scope": "sdk", "environment": "production", "name": "visitor", "expires_in_s": 2}

    def opened_in_time() -> tuple[dict, StreamReader] | None:
        created = server.call("POST", "/api/v1/tokens", body).json()
        reader = StreamReader(server.port, created["text"])
        reader.read_until(lambda r: bool(r.head), "the answer")
        if reader.head.startswith("HTTP/1.1 200"):
            return created, reader
        reader.sock.close()  # it has taken longer than the token lasts
        return None

    created, reader = eventually(opened_in_time)
    ends_at = datetime.fromisoformat(created["expires_at"])
    assert reader.read_to_end().flag_events() == []
    # A second or less, but for what the machine takes: long before a heartbeat.
    assert timedelta(0) <= datetime.now(UTC) - ends_at < timedelta(seconds=HEARTBEAT_S - 2)
    refused = server.call("GET", "/sdk/v1/flags", token=created["text"])
    assert refused.status_code == 401
    assert refused.json()["detail"] == f"the token expired at {created['expires_at']}"
    server.create_flag("new-checkout")
    kept.read_until(has_flag_event, "the flag")
    reader.sock.close()


def test_silence_is_broken_by_heartbeats(start_server, connect):
    quick = start_server(FLAGD_HEARTBEAT_S="0.2")
    reader = connect(to=quick).read_until(has_set, "the set")
    started_at = time.monotonic()
    reader.read_until(lambda r: r.raw.count(b": hb\n\n") >= 5, "five heartbeats")
    assert time.monotonic() - started_at < HEARTBEAT_S, "one would have come by default"


def test_a_stop_delivers_what_was_acknowledged_and_says_when_to_come_back(server, connect):
    server.create_flag("new-checkout")
    readers = [connect().read_until(has_set, "the set") for _ in range(20)]
    server.kill_flag("new-checkout")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for reader in readers:
        assert len(reader.read_to_end().flag_events()) == 1
        assert 500 <= reader.retry_ms <= 1000


def test_a_kill_that_waits_is_confirmed_by_the_processes_it_reached(server, connect):
    server.create_flag("new-checkout")
    reader = connect(instance="i-1").read_until(has_set, "the set")
    receipts: list[dict] = []
    killer = Thread(
        target=lambda: receipts.append(server.kill_flag("new-checkout", wait_s=15)["receipt"])
    )
    killer.start()
    event = reader.read_until(has_flag_event, "the kill").flag_events()[0]
    now = "2026-01-01T00:00:00.000Z"
    summary = {
        "instance": "i-1",
        "sequence": 1,
        "service": "shop",
        "service_version": "1",
        "applied_sequence": int(event.id),
        "started_at": now,
        "ended_at": now,
        "cells": [],
        "unscoped": {},
        "error_kinds": [],
        "local_kills": [],
        "dropped": {},
    }
    reported = requests.post(
        server.url + "/sdk/v1/telemetry",
        json=summary,
        headers={"Authorization": f"Bearer {server.sdk_tokens['production']}"},
        timeout=DEADLINE_S,
    )
    assert reported.status_code == 200, reported.text
    killer.join(DEADLINE_S)
    assert receipts[0]["processes"] == 1
    assert receipts[0]["confirmed"] == 1
    assert receipts[0]["unconfirmed"] == []
    assert receipts[0]["last_confirmed_after_ms"] < 10_000


def test_a_kill_names_the_process_that_did_not_confirm(server, connect):
    server.create_flag("new-checkout")
    connect(instance="i-mute").read_until(has_set, "the set")
    receipt = server.kill_flag("new-checkout", wait_s=0.2)["receipt"]
    assert receipt["unconfirmed"] == ["i-mute"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"token": "nonsense"}, 401),
        ({"instance": "not allowed"}, 400),
        ({"instance": "x" * 65}, 400),
        ({"method": "POST"}, 405),
    ],
)
def test_a_bad_request_for_a_stream_gets_a_problem(module_server, options, status):
    options = {"token": module_server.sdk_tokens["production"], **options}
    reader = StreamReader(module_server.port, **options)
    reader.read_until(lambda r: b"}" in r.raw, "the answer")
    assert reader.head.startswith(f"HTTP/1.1 {status}")
    assert "application/problem+json" in reader.head
    reader.sock.close()


def test_head_tells_what_a_stream_is_without_opening_one(module_server):
    token = module_server.sdk_tokens["production"]
    answer = module_server.call("HEAD", "/sdk/v1/stream", token=token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")


def test_an_admin_token_opens_no_stream(module_server):
    assert module_server.call("GET", "/sdk/v1/stream").status_code == 403


def test_another_wsgi_server_streams_too(server):
    """werkzeug's development server stands for all that know nothing of the hub."""
    server.stop()
    app = create_app(Settings(database=str(server.database)))
    other = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=other.serve_forever)
    thread.start()
    try:
        reader = StreamReader(other.server_port, server.sdk_tokens["production"])
        reader.read_until(lambda r: b"event: flags" in r.raw, "the set")
        admin = {"Authorization": f"Bearer {server.admin_token}"}
        document = {"key": "new", "type": "boolean", "variants": {"on": True, "off": False}}
        assert (
            app.test_client().post("/api/v1/flags", json=document, headers=admin).status_code == 201
        )
        reader.read_until(lambda r: b"event: flag\n" in r.raw, "the flag")
        app.extensions["flagd_server"].close()
        assert b"retry: " in reader.read_to_end().raw.rpartition(b"event: flag\n")[2]
        reader.sock.close()
    finally:
        other.shutdown()
        other.server_close()
        thread.join(DEADLINE_S)
        app.extensions["flagd_server"].close()
