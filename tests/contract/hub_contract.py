"""What every hub keeps. A test module inherits from `HubContract` and says how to make one."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest

from flagd_sdk.core.sse import Decoder, ServerSentEvent, encode
from flagd_server.hub.base import Hub, SnapshotSource, Subscription

DEADLINE_S = 30.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s in vain: {what}"
        time.sleep(0.002)


class Snapshots:
    """A snapshot source that tests move on by hand, as a publisher does after its commit."""

    def __init__(self) -> None:
        self.sequences: dict[str, int] = {}
        self.padding = b"x" * 500  # longer than the few events that most tests miss

    def __call__(self, environment: str) -> tuple[int, bytes]:
        if environment == "broken":
            raise LookupError(environment)
        sequence = self.sequences.setdefault(environment, 1)
        return sequence, encode("flags", b'{"padding": "%b"}' % self.padding, str(sequence))


class Reader:
    """The far end of a stream."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raw = b""
        self._head_is_read = False
        self._decoder = Decoder(64 * 1024 * 1024)
        self.events: list[ServerSentEvent] = []

    def read_until(self, holds: Callable[["Reader"], bool], what: str) -> "Reader":
        deadline = time.monotonic() + DEADLINE_S
        while not holds(self):
            readable, _, _ = select.select([self.sock], [], [], deadline - time.monotonic())
            assert readable, f"waited {DEADLINE_S} s in vain: {what}; got {self.raw[-300:]!r}"
            data = self.sock.recv(1 << 20)
            assert data, f"closed before {what}; got {self.raw[-300:]!r}"
            self._take(data)
        return self

    def read_to_end(self) -> "Reader":
        self.sock.settimeout(DEADLINE_S)
        with suppress(ConnectionResetError):
            while data := self.sock.recv(1 << 20):
                self._take(data)
        return self

    def _take(self, data: bytes) -> None:
        self.raw += data
        if not self._head_is_read:
            _, separator, data = self.raw.partition(b"\r\n\r\n")
            if not separator:
                return
            self._head_is_read = True
        self.events += self._decoder.feed(data)

    def ids(self) -> list[int]:
        return [int(event.id) for event in self.events]

    @property
    def retry_ms(self) -> int | None:
        return self._decoder.retry_ms


def flag_event(sequence: int, padding: int = 0) -> bytes:
    return encode("flag", b'{"padding": "%b"}' % (b"x" * padding), str(sequence))


class HubContract:
    """Inherit, and override `make_hub` only."""

    def make_hub(self, snapshots: SnapshotSource, heartbeat_s: float) -> Hub:
        raise NotImplementedError

    @pytest.fixture
    def snapshots(self) -> Snapshots:
        return Snapshots()

    @pytest.fixture
    def hub(self, snapshots: Snapshots) -> Iterator[Hub]:
        hub = self.make_hub(snapshots, heartbeat_s=60.0)
        yield hub
        hub.close()

    @pytest.fixture
    def connect(self, hub: Hub) -> Iterator[Callable[..., Reader]]:
        readers: list[Reader] = []

        def connect(
            environment: str = "production",
            token_id: str = "t1",
            instance: str | None = None,
            last_event_id: int | None = None,
            origin: str | None = None,
            to: Hub | None = None,
        ) -> Reader:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                near = socket.create_connection(listener.getsockname())
                far, _ = listener.accept()
            subscription = Subscription(environment, token_id, instance, last_event_id, origin)
            (to or hub).attach(far, subscription)
            readers.append(Reader(near))
            return readers[-1]

        yield connect
        for reader in readers:
            reader.sock.close()

    @pytest.fixture
    def publish(self, hub: Hub, snapshots: Snapshots) -> Callable[..., None]:
        def publish(*sequences: int, environment: str = "production", padding: int = 0) -> None:
            for sequence in sequences:
                snapshots.sequences[environment] = sequence
                hub.publish(environment, sequence, flag_event(sequence, padding))

        return publish

    # How a stream starts

    def test_a_stream_starts_with_a_response_head_a_retry_and_the_whole_set(self, connect):
        reader = connect().read_until(lambda r: bool(r.events), "the set")
        head = reader.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        assert head[0] == "HTTP/1.1 200 OK"
        headers = dict(line.split(": ", 1) for line in head[1:])
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["Connection"] == "close"
        assert headers["Date"].endswith(" GMT")
        assert 500 <= reader.retry_ms <= 1000
        assert [(e.event, e.id) for e in reader.events] == [("flags", "1")]

    def test_a_page_of_another_origin_is_told_that_it_may_read(self, connect):
        plain = connect().read_until(lambda r: bool(r.events), "the set")
        assert b"Access-Control" not in plain.raw
        page = connect(origin="https://shop.example").read_until(
            lambda r: bool(r.events), "the set"
        )
        head = page.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        assert "Access-Control-Allow-Origin: https://shop.example" in head
        assert "Vary: Origin" in head

    def test_a_reader_that_is_up_to_date_gets_no_event_but_knows_that_it_is_live(
        self, connect, publish
    ):
        reader = connect(last_event_id=1).read_until(lambda r: b": hb\n\n" in r.raw, "a comment")
        assert reader.events == []
        publish(2)
        assert reader.read_until(lambda r: bool(r.events), "event 2").ids() == [2]

    def test_a_reader_that_comes_back_gets_what_it_missed(self, connect, publish):
        publish(5, 6, 7)
        reader = connect(last_event_id=5)
        publish(8)
        reader.read_until(lambda r: r.ids()[-1:] == [8], "event 8")
        assert [(e.event, e.id) for e in reader.events] == [
            ("flag", "6"),
            ("flag", "7"),
            ("flag", "8"),
        ]

    @pytest.mark.parametrize("held", [3, 99])
    def test_a_reader_beyond_the_recent_events_gets_the_whole_set(self, connect, publish, held):
        publish(5, 6)
        reader = connect(last_event_id=held).read_until(lambda r: bool(r.events), "the set")
        assert [(e.event, e.id) for e in reader.events] == [("flags", "6")]

    def test_a_replay_longer_than_the_whole_set_gives_way_to_it(self, connect, publish):
        publish(5)
        publish(6, 7, padding=1000)
        reader = connect(last_event_id=5).read_until(lambda r: bool(r.events), "the set")
        assert [(e.event, e.id) for e in reader.events] == [("flags", "7")]

    def test_a_thousand_missed_events_are_replayed(self, connect, publish, snapshots):
        snapshots.padding = b"x" * 200_000
        publish(*range(10, 1011))
        reader = connect(last_event_id=10)
        reader.read_until(lambda r: r.ids()[-1:] == [1010], "the last event")
        assert reader.ids() == list(range(11, 1011))

    def test_an_event_that_the_first_set_already_holds_is_not_sent_again(
        self, hub, connect, snapshots
    ):
        snapshots.sequences["production"] = 7  # committed, and announced a moment later
        reader = connect().read_until(lambda r: r.ids() == [7], "the set")
        hub.publish("production", 6, flag_event(6))
        hub.publish("production", 7, flag_event(7))
        hub.publish("production", 8, flag_event(8))
        assert reader.read_until(lambda r: r.ids()[-1] == 8, "event 8").ids() == [7, 8]

    def test_streams_opened_while_events_flow_miss_none_and_get_none_twice(
        self, connect, publish, snapshots
    ):
        last = 3000
        publisher = threading.Thread(target=lambda: publish(*range(2, last + 1)))
        publisher.start()
        readers = [connect() for _ in range(50)]
        publisher.join()
        for reader in readers:
            reader.read_until(lambda r: r.ids()[-1:] == [last], "the last event")
            first = reader.ids()[0]
            assert reader.events[0].event == "flags"
            assert reader.ids() == list(range(first, last + 1))

    def test_a_failing_snapshot_ends_that_stream_alone(self, hub, connect, publish):
        healthy = connect().read_until(lambda r: bool(r.events), "the set")
        assert connect(environment="broken").read_to_end().events == []
        publish(2)
        healthy.read_until(lambda r: r.ids() == [1, 2], "event 2")
        assert hub.is_alive

    # Who gets what

    def test_an_event_reaches_the_streams_of_its_environment_only(self, connect, publish):
        here = connect().read_until(lambda r: bool(r.events), "the set")
        there = connect(environment="staging").read_until(lambda r: bool(r.events), "the set")
        publish(10, environment="staging")
        publish(11)
        assert here.read_until(lambda r: len(r.events) == 2, "an event").ids() == [1, 11]
        assert there.read_until(lambda r: len(r.events) == 2, "an event").ids() == [1, 10]

    def test_heartbeats_come_within_their_interval(self, snapshots, connect):
        hub = self.make_hub(snapshots, heartbeat_s=0.3)
        try:
            reader = connect(to=hub).read_until(lambda r: bool(r.events), "the set")
            came_at = []
            for number in range(1, 9):
                reader.read_until(
                    lambda r, n=number: r.raw.count(b": hb\n\n") >= n, f"heartbeat {number}"
                )
                came_at.append(time.monotonic())
            # The one least disturbed: a busy machine adds to all, and standing still to some.
            assert min(after - before for before, after in pairwise(came_at)) < 0.4
        finally:
            hub.close()

    def test_a_set_above_the_backlog_limit_reaches_a_slow_reader(self, connect, snapshots, hub):
        snapshots.padding = b"x" * 8_000_000
        reader = connect()
        wait_until(lambda: hub.statistics().streams == 1, "the stream")
        reader.read_until(lambda r: bool(r.events), "the set")
        assert len(reader.events[0].data) > 8_000_000
        assert hub.statistics().cut == 0

    def test_a_reader_that_does_not_read_is_cut_and_holds_nobody_up(self, hub, connect, publish):
        slow = connect().read_until(lambda r: bool(r.events), "the set")
        swift = connect().read_until(lambda r: bool(r.events), "the set")
        sequence = 1
        while hub.statistics().cut == 0:
            sequence += 1
            assert sequence < 200, "never cut"
            publish(sequence, padding=256 * 1024)
            swift.read_until(lambda r, s=sequence: r.ids()[-1] == s, f"event {sequence}")
        assert swift.ids() == list(range(1, sequence + 1))
        slow.read_to_end()
        # What it got is a beginning without holes: it can resume from there.
        assert slow.ids() == list(range(1, len(slow.ids()) + 1))
        # Its socket is closed before it is counted out.
        wait_until(lambda: hub.statistics().streams == 1, "the end of the stream")

    def test_a_reader_that_stands_still_is_cut_at_the_second_heartbeat(self, snapshots, connect):
        snapshots.padding = b"x" * 16_000_000
        hub = self.make_hub(snapshots, heartbeat_s=0.2)
        try:
            connect(to=hub)
            wait_until(lambda: hub.statistics().cut == 1, "the cut")
            # It is counted as cut before it is dropped.
            wait_until(lambda: hub.statistics().streams == 0, "the end of the stream")
        finally:
            hub.close()

    # How a stream ends

    def test_a_reader_that_hangs_up_is_noticed(self, hub, connect):
        reader = connect(instance="i-1").read_until(lambda r: bool(r.events), "the set")
        assert hub.connected("production") == {"i-1"}
        reader.sock.close()
        wait_until(lambda: hub.statistics().streams == 0, "the end of the stream")
        wait_until(lambda: hub.connected("production") == frozenset(), "the end of its instance")
        assert hub.statistics().cut == 0

    def test_bytes_sent_after_the_request_are_dropped(self, connect, publish):
        reader = connect().read_until(lambda r: bool(r.events), "the set")
        reader.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        publish(2)
        assert reader.read_until(lambda r: len(r.events) > 1, "event 2").ids() == [1, 2]

    def test_a_peer_that_will_not_be_quiet_is_cut_off(self, hub, connect):
        reader = connect().read_until(lambda r: bool(r.events), "the set")
        with suppress(OSError):
            reader.sock.sendall(b"x" * 4_000_000)
        wait_until(lambda: hub.statistics().streams == 0, "the end of the stream")

    def test_an_instance_counts_as_connected_until_its_last_stream_ends(self, hub, connect):
        first = connect(instance="i-1").read_until(lambda r: bool(r.events), "the set")
        second = connect(instance="i-1").read_until(lambda r: bool(r.events), "the set")
        connect(instance="i-2", environment="staging").read_until(lambda r: bool(r.events), "it")
        first.sock.close()
        wait_until(lambda: hub.statistics().streams == 2, "the end of one stream")
        assert hub.connected("production") == {"i-1"}
        second.sock.close()
        wait_until(lambda: hub.connected("production") == frozenset(), "the end of the other")
        assert hub.connected("staging") == {"i-2"}

    def test_a_revoked_token_loses_its_streams_and_opens_no_other(self, hub, connect, publish):
        revoked = connect(token_id="bad").read_until(lambda r: bool(r.events), "the set")
        kept = connect(token_id="good").read_until(lambda r: bool(r.events), "the set")
        hub.disconnect_token("bad")
        assert revoked.read_to_end().ids() == [1]
        assert connect(token_id="bad").read_to_end().raw == b""  # was past the check already
        publish(2)
        kept.read_until(lambda r: r.ids() == [1, 2], "event 2")

    def test_close_sends_what_is_queued_and_says_when_to_come_back(self, hub, connect, publish):
        readers = [connect().read_until(lambda r: bool(r.events), "the set") for _ in range(5)]
        publish(2)
        hub.close()
        for reader in readers:
            assert reader.read_to_end().ids() == [1, 2]
            assert 500 <= reader.retry_ms <= 1000
        assert len({reader.retry_ms for reader in readers}) > 1
        wait_until(lambda: hub.statistics().streams == 0, "the end of the streams")
        assert not hub.is_alive

    def test_close_does_not_wait_for_a_reader_that_stands_still(self, hub, connect, snapshots):
        snapshots.padding = b"x" * 16_000_000
        connect()
        wait_until(lambda: hub.statistics().streams == 1, "the stream")
        started_at = time.monotonic()
        hub.close(timeout_s=0.1)
        assert time.monotonic() - started_at < 20.0, "the reader stands still for ever"
        wait_until(lambda: hub.statistics().streams == 0, "the end of the stream")

    def test_a_closed_hub_takes_nothing(self, hub, connect):
        hub.close()
        hub.publish("production", 5, flag_event(5))
        assert connect().read_to_end().raw == b""
        assert list(hub.stream(Subscription("production", "t1"))) == []
        hub.close()

    # The fallback

    def test_the_iterator_carries_the_same_stream_without_a_head(self, hub, publish):
        publish(5, 6)
        stream = hub.stream(Subscription("production", "t1", "i-1", 5))
        decoder = Decoder(1 << 20)
        events: list[ServerSentEvent] = []
        while not events:
            events += decoder.feed(next(stream))
        assert [(e.event, e.id) for e in events] == [("flag", "6")]
        assert 500 <= decoder.retry_ms <= 1000
        assert hub.connected("production") == {"i-1"}
        publish(7)
        while len(events) < 2:
            events += decoder.feed(next(stream))
        assert events[-1].id == "7"
        stream.close()
        wait_until(lambda: hub.statistics().streams == 0, "the end of the stream")

    def test_an_iterator_ends_with_the_hub(self, hub):
        stream = hub.stream(Subscription("production", "t1"))
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.extend(stream))
        thread.start()
        wait_until(lambda: b"flags" in b"".join(received), "the set")
        hub.close()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert b"".join(received).rpartition(b"retry: ")[2].strip().isdigit()

    def test_an_iterator_closed_by_another_thread_ends(self, hub):
        stream = hub.stream(Subscription("production", "t1"))
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.extend(stream))
        thread.start()
        wait_until(lambda: b"flags" in b"".join(received), "the set")
        stream.close()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()

    # Counting

    def test_published_events_are_counted(self, hub, publish):
        publish(2, 3)
        publish(4, environment="staging")
        wait_until(lambda: hub.statistics().published == 3, "three events")
