"""A thousand clients that lose their server in the same instant, on clocks that the test moves."""

import heapq
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count, repeat

from flagd_sdk.config import ClientConfig
from flagd_sdk.errors import ConnectError, StreamError
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from flagd_sdk.reporter import Reporter
from flagd_sdk.streaming import FlagStream
from tests.sdk.fakes import FakeClock, FakeStream, MemoryTransport, flag, flag_set

HEARTBEAT_S = 13.5  # as the hub beats


class _Member:
    """One of the clients: its stream's logic, and when it asked for what."""

    def __init__(self, seed: int, retry_ms: int, heard_s: float) -> None:
        self.random = random.Random(seed)
        self.clock = FakeClock(-heard_s)  # so that the cut is at 0 for all of them
        self.transport = MemoryTransport()
        self.transport.fetches.append(flag_set(flag(), sequence=5))
        # Nothing was heard for so long, as heartbeats come every 15 s; and then it is cut.
        stream = FakeStream(f"retry: {retry_ms}\n\n".encode(), StreamError("cut"))
        read = stream.read

        def read_then_wait() -> bytes:
            if len(stream._chunks) == 1:
                self.clock.advance(heard_s)
            return read()

        stream.read = read_then_wait  # type: ignore[method-assign]
        self.transport.streams.append(stream)
        notices = Notices(self.clock)
        config = ClientConfig(url="http://server", token="t")
        self.stream = FlagStream(
            FlagState(notices),
            self.transport,
            config,
            notices,
            lambda: "i",
            self.clock,
            self.random.random,
        )
        self.stream.step()


def stream_returns(
    retries_ms: Sequence[int], away_s: float, fault: Exception
) -> tuple[list[float], list[float]]:
    """Return when each client's stream was back, and when it polled."""
    number = count()
    fleet = random.Random(7)
    due: list[tuple[float, int, _Member]] = []
    for seed, retry_ms in enumerate(retries_ms):
        member = _Member(seed, retry_ms, fleet.uniform(0.0, HEARTBEAT_S))
        due.append((min(member.stream._stream_at, member.stream._poll_at), next(number), member))
    heapq.heapify(due)
    back_at: list[float] = []
    polled_at: list[float] = []
    while due:
        now_s, _, member = heapq.heappop(due)
        member.clock.now_s = now_s
        transport = member.transport
        transport.fetches.clear()
        transport.streams.clear()
        transport.fetches.append(fault if now_s < away_s else flag_set(flag(), sequence=5))
        transport.streams.append(fault if now_s < away_s else FakeStream())
        transport.etags.clear()
        transport.last_event_ids.clear()
        delay_s = member.stream.step()
        polled_at += [now_s] * len(transport.etags)
        if transport.last_event_ids and now_s >= away_s:
            back_at.append(now_s)
        else:
            heapq.heappush(due, (now_s + max(delay_s, 0.001), next(number), member))
    return back_at, polled_at


def report_returns(clients: int, away_s: float, is_busy: bool) -> list[float]:
    """Return when each client's first summary was taken after the server had been away."""
    back_at = []
    for seed in range(clients):
        own = random.Random(seed)
        asked_s = own.uniform(4.0, 8.0)  # as of the hub's `retry:` with a thousand streams
        clock = FakeClock(-own.uniform(0.0, 10.0))
        transport = MemoryTransport()
        reporter = Reporter(
            transport,
            ClientConfig(url="http://server", token="t"),
            Notices(clock),
            lambda: "i",
            lambda: 5,
            clock,
            lambda: datetime.fromtimestamp(0, UTC),
            own.random,
            asked_s=repeat(asked_s).__next__,
        )
        while True:
            if is_busy:
                reporter.unscoped("new-checkout")
            transport.summaries.clear()
            transport.replies.clear()
            if 0.0 <= clock.now_s < away_s:
                transport.replies.append(ConnectError("refused"))
            delay_s = reporter.step()
            if transport.summaries and clock.now_s >= away_s:
                break
            clock.advance(max(delay_s, 0.001))
        back_at.append(clock.now_s)
    return back_at
