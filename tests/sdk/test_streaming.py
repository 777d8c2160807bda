import gc
import json
import tracemalloc
from typing import Any

import pytest

from flagd_sdk import Backoff, ClientStatus
from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConnectError, StatusError, StreamError
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from flagd_sdk.streaming import FlagStream
from tests.sdk.fakes import FakeClock, FakeStream, MemoryTransport, flag, flag_set, sse

KILLED = flag(version=2, killed=True)


class Bench:
    """A stream without its thread, on a clock that the test moves."""

    def __init__(self, random: float = 0.5) -> None:
        self.clock = FakeClock()
        notices = Notices(self.clock)
        self.state = FlagState(notices)
        self.transport = MemoryTransport()
        self.config = ClientConfig(
            url="http://server",
            token="t",
            poll_interval_s=10.0,
            backoff=Backoff(first_s=1.0, cap_s=20.0),
            max_flag_set_bytes=10_000,
        )
        self.stream = FlagStream(
            self.state,
            self.transport,
            self.config,
            notices,
            lambda: "i-1",
            self.clock,
            lambda: random,
        )

    @property
    def sequence(self) -> int:
        return self.state.flag_set.sequence

    def serve(self, *fetches: Any) -> None:
        self.transport.fetches.extend(fetches)

    def offer(self, *chunks: bytes | Exception) -> FakeStream:
        stream = FakeStream(*chunks)
        self.transport.streams.append(stream)
        return stream

    def step(self) -> float:
        delay_s = self.stream.step()
        self.clock.advance(delay_s)
        return delay_s


def change(sequence: int, document: dict[str, Any] | None) -> bytes:
    return sse("flag", {"sequence": sequence, "key": "new-checkout", "flag": document}, sequence)


def test_it_begins_with_a_fetch_and_resumes_the_stream_from_there() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    stream = bench.offer(change(6, KILLED))
    bench.step()
    assert bench.transport.last_event_ids == ["5"]
    assert bench.sequence == 6
    assert bench.state.flag_set.flags["new-checkout"].killed
    assert stream.is_closed


def test_a_stream_without_a_flag_set_before_it_asks_for_everything() -> None:
    bench = Bench()
    bench.state.preload(flag_set(flag(), sequence=99), is_from_server=False)
    bench.offer(sse("flags", flag_set(flag(), sequence=6), 6))
    bench.stream._follow()
    assert bench.transport.last_event_ids == [""]
    assert bench.sequence == 6


def test_events_take_effect_wherever_the_bytes_are_cut() -> None:
    raw = sse("flags", flag_set(flag(), sequence=5), 5) + change(6, KILLED)
    bench = Bench()
    bench.serve(flag_set(sequence=1))
    bench.offer(*(raw[i : i + 1] for i in range(len(raw))))
    bench.step()
    assert bench.sequence == 6


def test_after_a_server_was_set_back_its_first_change_brings_its_whole_flag_set() -> None:
    bench = Bench()
    mine, gone = flag(), flag("made-after-the-backup")
    bench.serve(flag_set(mine, gone, sequence=50))
    bench.offer(sse("flags", flag_set(mine, sequence=40), 40) + change(60, KILLED))
    bench.step()
    flags = bench.state.flag_set.flags
    assert flags["new-checkout"].killed, "a kill takes effect at once"
    assert "made-after-the-backup" in flags, "until something newer is known"
    bench.offer(sse("flags", flag_set(KILLED, sequence=60), 60), change(61, None))
    bench.serve(None)
    bench.step()
    assert bench.transport.last_event_ids == ["50", ""]
    assert not bench.state.flag_set.flags
    assert bench.sequence == 61


def test_half_an_event_has_no_effect() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    bench.offer(change(6, KILLED)[:-1])
    bench.step()
    assert bench.sequence == 5


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\xff\xfe\n\n", b"<html>\n\n", b": hb\n\n", b"event: other\ndata: {}\n\n",
     b"event: message\ndata: x\n\n"],
)  # fmt: skip
def test_what_is_no_event_of_ours_is_passed_over(garbage: bytes) -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    bench.offer(garbage + change(6, KILLED))
    bench.step()
    assert bench.sequence == 6


@pytest.mark.parametrize(
    "data",
    [b"{", b"[" * 100_000, b"null", b'{"sequence": 6}', b"9" * 5_000, b'"\\ud800"',
     b'{"sequence": NaN, "key": "k", "flag": null}',
     b'{"sequence": -1, "key": "new-checkout", "flag": null}',
     b'{"sequence": 1e400, "key": "new-checkout", "flag": null}',
     b'{"sequence": 9007199254740991, "key": "new-checkout", "flag": null}',
     b'{"sequence": 7, "key": "k", "flag": null, "key": "new-checkout"}',
     b'{"sequence": 7, "key": "new-checkout\xe9", "flag": null}'],
)  # fmt: skip
@pytest.mark.parametrize("event", [b"flag", b"flags"])
def test_an_event_that_cannot_be_read_ends_the_stream_and_changes_nothing(
    event: bytes, data: bytes
) -> None:
    bench = Bench()
    bench.config = bench.config._replace(max_flag_set_bytes=1_000_000)
    bench.serve(flag_set(flag(), sequence=5))
    stream = bench.offer(b"event: " + event + b"\ndata: " + data + b"\n\n", change(6, KILLED))
    bench.step()
    assert bench.sequence == 5
    assert stream.is_closed


def test_an_event_that_is_too_long_ends_the_stream() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    stream = bench.offer(b"data: " + b"x" * 100_000, change(6, KILLED))
    bench.step()
    assert bench.sequence == 5
    assert stream.is_closed


def test_while_there_is_no_stream_it_polls_with_the_etag() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5), None, flag_set(flag(version=2), sequence=6))
    polled_at = []
    for _ in range(100):
        before = len(bench.transport.etags)
        bench.stream.step()
        if len(bench.transport.etags) > before:
            polled_at.append(bench.clock.now_s - 1_000.0)
        if not bench.transport.fetches:
            break
        bench.clock.advance(0.5)
    assert bench.transport.etags == ["", '"production-5"', '"production-5"']
    assert bench.sequence == 6
    assert polled_at == [0.0, 10.0, 20.0]


def test_after_a_long_silence_it_asks_soon() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5), flag_set(flag(version=2), sequence=6))
    stream = bench.offer()

    def fall_silent() -> bytes:
        bench.clock.advance(30.0)
        raise StreamError("no byte in two heartbeats")

    stream.read = fall_silent  # type: ignore[method-assign]
    assert bench.step() == pytest.approx(0.625), "the stream first"
    while bench.sequence == 5:
        bench.step()
    assert bench.clock.now_s <= 1_000.0 + 30.0 + 5.0
    assert bench.sequence == 6


def test_a_cut_in_a_quiet_time_is_no_silence() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    stream = bench.offer(b": hb\n\n")
    read = stream.read

    def cut_in_between() -> bytes:
        if not stream._chunks:
            bench.clock.advance(13.0)
        return read()

    stream.read = cut_in_between  # type: ignore[method-assign]
    bench.stream.step()
    assert bench.stream._poll_at == bench.clock.now_s + 10.0


def test_a_stream_that_comes_back_ends_the_polling() -> None:
    bench = Bench()
    bench.serve(flag_set(flag(), sequence=5))
    bench.step()
    bench.offer(change(6, KILLED))
    polls = len(bench.transport.etags)
    bench.step()
    assert bench.sequence == 6
    assert len(bench.transport.etags) == polls


def test_delays_grow_while_the_server_is_away_and_every_attempt_is_one_connection() -> None:
    bench = Bench()
    delays = [bench.step() for _ in range(8)]
    assert delays == [0.625, 1.5, 3.0, 6.0, 12.0, 15.0, 15.0, 15.0]
    assert len(bench.transport.etags) == 8
    assert bench.transport.last_event_ids == [], "the stream is not tried where a fetch fails"


@pytest.mark.parametrize("random", [0.0, 0.999])
@pytest.mark.parametrize(
    "fault",
    [ConnectError("refused"), StatusError(500), StatusError(401), StatusError(302), b"<html>",
     StatusError(429, retry_after_s=0.0), flag_set(sequence=3)],
)  # fmt: skip
def test_no_fault_makes_more_than_three_connections_a_second(fault: Any, random: float) -> None:
    bench = Bench(random)
    attempts: list[float] = []
    for _ in range(400):
        bench.serve(fault)
        bench.offer(sse("flags", flag_set(sequence=3))[:30])
        before = len(bench.transport.etags) + len(bench.transport.last_event_ids)
        delay_s = bench.stream.step()
        made = len(bench.transport.etags) + len(bench.transport.last_event_ids) - before
        attempts += [bench.clock.now_s] * made
        bench.clock.advance(max(delay_s, 0.001))
    for start in attempts:
        assert sum(start <= at < start + 1.0 for at in attempts) <= 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_retried_seldom_and_recovers_by_itself(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flagd_sdk")
    bench = Bench()
    bench.serve(*[StatusError(status)] * 3, flag_set(flag(), sequence=5))
    assert [bench.step() for _ in range(3)] == [15.0, 15.0, 15.0]
    assert bench.state.status == ClientStatus.ERROR
    bench.offer(b": hb\n\n")
    bench.step()
    assert bench.state.flag_set.sequence == 5
    messages = [record.getMessage() for record in caplog.records]
    assert sum("refuses the token" in message for message in messages) == 1
    assert sum("answers again" in message for message in messages) == 1


def test_retry_after_is_honoured() -> None:
    bench = Bench()
    bench.serve(StatusError(429, retry_after_s=12.0))
    assert bench.step() == 15.0


def test_the_servers_retry_spreads_the_return() -> None:
    bench = Bench(random=0.75)
    bench.serve(flag_set(flag(), sequence=5))
    bench.offer(b"retry: 8000\n\n")
    assert bench.stream.step() == pytest.approx(0.25 + 0.75 * 7.75)


def test_a_lost_stream_keeps_the_values_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flagd_sdk")
    bench = Bench()
    bench.serve(flag_set(flag(on=100_000), sequence=5), None, None)
    bench.offer(StreamError("reset"))
    bench.offer(StreamError("reset"))
    bench.step()
    assert bench.state.status == ClientStatus.STALE
    bench.step()
    assert bench.state.flag_set.resolve("new-checkout", {}).value is True
    bench.offer(b": hb\n\n", StreamError("later"))
    bench.step()
    messages = [record.getMessage() for record in caplog.records]
    assert sum("flag stream can't be used" in message for message in messages) == 1
    assert sum("flag stream is back" in message for message in messages) == 1


def test_a_fault_of_our_own_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.serve(ZeroDivisionError("ours"))
    stops = iter([False, True])
    bench.stream._stopping.is_set = lambda: next(stops)  # type: ignore[method-assign]
    bench.stream._stopping.wait = lambda timeout=None: True  # type: ignore[method-assign]
    bench.stream._run()
    assert "ZeroDivisionError" in caplog.text
    assert bench.stream._poll_at > bench.clock.now_s


def test_json_of_a_flag_set_with_odd_values_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    document = flag_set(flag(), {"key": "odd", "type": "object"}, sequence=5)
    bench.serve(json.dumps(document).encode())
    bench.step()
    assert bench.sequence == 5


@pytest.mark.timeout(600)  # every allocation is traced
def test_memory_does_not_grow_with_reconnects(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "flagd_sdk")  # what is told would be kept for the test
    bench = Bench()
    sequence = 5

    def reconnect(times: int) -> None:
        nonlocal sequence
        for _ in range(times):
            sequence += 1
            bench.serve(flag_set(flag(version=sequence), sequence=sequence))
            bench.offer(change(sequence, flag(version=sequence)), StreamError("it broke"))
            while bench.transport.streams:
                bench.step()
            # What the server's stand-in notes of each request.
            bench.transport.etags.clear()
            bench.transport.last_event_ids.clear()

    tracemalloc.start()
    try:
        reconnect(100)  # what is made once, and the flag set that each replaces, is no growth
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        reconnect(4_000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert bench.sequence == sequence
    assert grown < 20_000, "five bytes each"
