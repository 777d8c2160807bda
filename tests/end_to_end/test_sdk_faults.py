import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from flagd_sdk import Backoff, ClientStatus, FlagClient
from tests.end_to_end import misbehaving
from tests.end_to_end.fault_run import BACK_WITHIN_S, HEADER, Seen, observe_all
from tests.end_to_end.faults import FAULTS
from tests.end_to_end.misbehaving import Handler, MisbehavingServer
from tests.sdk.fakes import flag, flag_set, sse
from tests.waiting import eventually

TOKEN = "fr_sdk_production_SeCrEtOfTheToken"
FAULT_S = 4.0
READY_S = 30.0  # bounds waiting only
# The flags, the stream and the reports can't be had, each for two reasons in turn at the most:
# that it was cut, and what it met then.
MOST_WARNINGS = 6


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        yield server


@pytest.fixture
def connect(server: MisbehavingServer, tmp_path: Path) -> Iterator[Callable[..., FlagClient]]:
    clients: list[FlagClient] = []

    def connect(**settings: Any) -> FlagClient:
        defaults: dict[str, Any] = {
            "cache_dir": None,
            "connect_timeout_s": 0.5,
            "request_timeout_s": 0.5,
            "stream_silence_s": 1.0,
            "poll_interval_s": 0.5,
            "report_interval_s": 0.2,
            "heartbeat_interval_s": 0.5,
            "backoff": Backoff(first_s=0.25, cap_s=1.0, floor_s=0.25),
        }
        clients.append(FlagClient(server.url, TOKEN, **{**defaults, **settings}))
        return clients[-1]

    yield connect
    for client in clients:
        client.close(2.0)


def break_down(server: MisbehavingServer, fault: Handler | None) -> None:
    if fault is None:
        server.refuse()
    else:
        server.misbehave(fault)


@pytest.mark.timeout(300)  # it may have to be measured again, and each takes half a minute
def test_no_fault_reaches_the_application_and_none_outlasts_its_cause(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = observe_all(FAULTS, FAULT_S, tmp_path)
    assert not capfd.readouterr().err
    print(HEADER, *(one.row() for one in seen), sep="\n")

    def whose(condition: Callable[[Seen], bool]) -> list[Seen]:
        return [one for one in seen if condition(one)]

    assert len(seen) == 2 * len(FAULTS)
    assert not whose(lambda one: one.values != {True}), "never the default, nor an older value"
    assert not whose(lambda one: one.went_back)
    assert not whose(lambda one: one.back_s is None or one.back_s > BACK_WITHIN_S)
    assert not whose(lambda one: one.connections > 5)
    assert not whose(lambda one: bool(one.crashes)), "no fault of our own"
    assert not whose(lambda one: len(one.warnings) > MOST_WARNINGS)
    repeated = whose(lambda one: len(set(one.warnings)) < len(one.warnings))
    assert [(one.fault, one.phase, one.warnings) for one in repeated] == [], "once per cause"
    assert not whose(lambda one: "SeCrEt" in "".join(one.warnings))
    assert not whose(lambda one: "/elsewhere" in "".join(one.heads)), "nor the token to others"
    # In a process with some hundred threads on a busy machine, chance may stop one at any line.
    # What is slow by itself is so each time.
    for number in range(3):
        slow = {one.fault: FAULTS[one.fault] for one in seen if one.slowest_ms > 1.0}
        if not slow:
            break
        seen = observe_all(slow, 0.5, tmp_path / f"again-{number}")
    assert [one for one in seen if one.slowest_ms > 1.0] == []


@pytest.mark.parametrize("name", ["refuses connections", "answers with garbage", "older flags"])
def test_where_no_value_is_known_a_fault_at_the_start_gives_the_defaults(
    server: MisbehavingServer, connect: Callable[..., FlagClient], name: str
) -> None:
    break_down(server, FAULTS[name].handler)
    began = monotonic()
    flags = connect(connect_timeout_s=60.0, request_timeout_s=60.0)
    assert monotonic() - began < 20.0, "starting never waits: the fault lasts until below"
    is_older = name == "older flags"  # which is a good first answer, without the flag
    assert flags.wait_until_ready(READY_S if is_older else 0.3) is is_older
    assert flags.is_enabled("on", False) is False
    assert flags.is_enabled("on", True) is True
    server.heal()
    assert eventually(lambda: flags.is_enabled("on", False) is True)


def test_where_the_token_names_its_environment_no_other_is_taken_at_the_start(
    server: MisbehavingServer, connect: Callable[..., FlagClient]
) -> None:
    break_down(server, FAULTS["another environment's flags"].handler)
    flags = connect()
    assert not flags.wait_until_ready(1.0)
    server.heal()
    assert eventually(lambda: flags.is_enabled("on", False) is True)


def test_no_count_is_lost_or_doubled_by_an_outage(
    server: MisbehavingServer, connect: Callable[..., FlagClient]
) -> None:
    flags = connect()
    assert flags.wait_until_ready(READY_S)
    total = 0
    for fault in (None, misbehaving.hang, misbehaving.status("503 Service Unavailable"), None):
        for _ in range(50):
            with flags.scope({"targetingKey": f"u{total}"}):
                flags.is_enabled("on")
            total += 1
        break_down(server, fault)
        threading.Event().wait(0.4)
        server.heal()

    def counted() -> int:
        by_sequence = {summary["sequence"]: summary for summary in list(server.summaries)}
        return sum(c["exposures"] for s in by_sequence.values() for c in s["cells"])

    assert eventually(lambda: counted() == total)
    assert [s["sequence"] for s in server.summaries] == sorted(
        s["sequence"] for s in server.summaries
    )


def test_values_survive_a_restart_while_the_server_is_away(
    server: MisbehavingServer, connect: Callable[..., FlagClient], tmp_path: Path
) -> None:
    flags = connect(cache_dir=tmp_path)
    assert flags.wait_until_ready(READY_S)
    assert flags.close(READY_S)
    server.refuse()
    again = connect(cache_dir=tmp_path)
    assert again.is_enabled("on", False) is True
    assert again.status == ClientStatus.STALE


@pytest.mark.parametrize("chunked", [False, True], ids=["until close", "chunked"])
def test_an_event_is_applied_as_its_bytes_arrive(
    server: MisbehavingServer, connect: Callable[..., FlagClient], chunked: bool
) -> None:
    more = threading.Event()

    def drip(server: MisbehavingServer, connection: Any, head: str) -> None:
        def send(raw: bytes) -> None:
            connection.sendall(b"%x\r\n%b\r\n" % (len(raw), raw) if chunked else raw)

        if "/stream" not in head:
            misbehaving.healthy(server, connection, head)
            return
        misbehaving.open_stream(connection, chunked)
        change = {"sequence": 51, "key": "on", "flag": flag("on", killed=True)}
        raw = sse("flag", change, 51)
        send(raw[:20])
        more.wait()
        send(raw[20:])
        server.wait()  # the connection stays open, with nothing behind the event

    server.misbehave(drip)
    # Neither a poll nor a new stream brings it in the time.
    flags = connect(stream_silence_s=300.0, request_timeout_s=300.0, poll_interval_s=300.0)
    assert flags.wait_until_ready(READY_S)
    assert flags.is_enabled("on") is True
    more.set()
    assert eventually(lambda: flags.is_enabled("on") is False)


def test_a_silent_stream_is_given_up_after_two_heartbeats(
    server: MisbehavingServer, connect: Callable[..., FlagClient]
) -> None:
    streams: list[float] = []

    def silent(server: MisbehavingServer, connection: Any, head: str) -> None:
        if "/stream" not in head:
            misbehaving.healthy(server, connection, head)
            return
        streams.append(monotonic())
        misbehaving.open_stream(connection, chunked=False)
        connection.sendall(b": hb\n\n")
        server.wait()

    server.misbehave(silent)
    # The head may take its time, or what is given up is the request and not the silence.
    connect(stream_silence_s=0.5, request_timeout_s=READY_S)
    assert eventually(lambda: len(streams) >= 3)
    assert streams[1] - streams[0] >= 0.5


@pytest.mark.parametrize("mode", ["stream open", "hanging"])
def test_closing_is_prompt_whatever_the_server_does(
    server: MisbehavingServer, connect: Callable[..., FlagClient], mode: str
) -> None:
    flags = connect(stream_silence_s=60.0, request_timeout_s=60.0, report_interval_s=60.0)
    assert flags.wait_until_ready(READY_S)
    assert eventually(lambda: any("/stream" in head for head in server.headers))
    if mode == "hanging":
        server.misbehave(misbehaving.hang)
        with flags.scope({"targetingKey": "u1"}):
            flags.is_enabled("on")
    began = monotonic()
    # Nothing that it might wait for comes within the minute.
    has_ended = flags.close(1.0 if mode == "hanging" else READY_S)
    assert monotonic() - began < READY_S
    assert has_ended is (mode == "stream open")


def test_the_token_goes_into_one_header_and_nothing_else(
    server: MisbehavingServer,
    connect: Callable[..., FlagClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    flags = connect()
    assert flags.wait_until_ready(READY_S)
    assert flags.flush(READY_S)
    for head in list(server.headers):
        assert f"Authorization: Bearer {TOKEN}" in head
        assert head.count(TOKEN) == 1
        assert "Accept-Encoding: identity" in head
