"""The hub of one process: one thread and one selector own every stream.

Callers only put commands on a queue, so the order of commands is the order of everything, and no
state of a stream needs a lock. Each event is encoded by its publisher, once, and the same bytes go
to every socket.
"""

import logging
import math
import os
import random
import resource
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from itertools import chain

from flagd_server.http_headers import Headers
from flagd_server.hub.base import HubStatistics, SnapshotSource, Subscription
from flagd_server.hub.event_stream import SocketEventStream
from flagd_server.hub.replay import ReplayRing
from flagd_server.hub.subscriber import SEND_FLAGS, SlowReaderError, Subscriber, raw_send
from flagd_server.hub.wire import HEARTBEAT, response_head, retry

# A reader takes two missed heartbeats for a dead stream.
HEARTBEAT_S = 15.0
# What is promised is an upper bound, so a heartbeat leaves a little early.
_EARLY = 0.9
# Readers whose streams break come back within this many milliseconds for each open stream: of a
# thousand that lose a server in the same instant, a good fifth in the worst second. A few are back
# at once, and nobody is kept away longer than an SDK waits of its own accord.
_SPREAD_MS_PER_STREAM = 8
_MIN_SPREAD_MS = 1_000
_MAX_SPREAD_MS = 20_000
# Heartbeats are dealt out over this many turns, lest 10,000 of them hold up a kill for 90 ms.
_TURNS = 32
# What the kernel may hold without an answer from the peer: a host that vanished without a word is
# noticed at the second heartbeat, where TCP alone goes on for a quarter of an hour.
_UNANSWERED_MS = 30_000
# What the kernel may hold for a reader that reads nothing. Left to itself Linux goes up to 4 MB
# each, and a thousand of those are all the memory that TCP has, for everybody. It doubles this.
_SEND_BUFFER_BYTES = 128 * 1024

# Share of the process's descriptors that streams may take; the rest is for ordinary requests.
_DESCRIPTOR_SHARE = 0.7
# Share of the streams that one token may have open: all processes of a company may use one, but a
# single one that leaked must not shut the others out.
_TOKEN_SHARE = 0.75

_LOG = logging.getLogger(__name__)


class _Channel:
    """Its streams by descriptor, and its recent events."""

    __slots__ = ("ring", "streams")

    def __init__(self) -> None:
        self.streams: dict[int, Subscriber] = {}
        self.ring = ReplayRing()


class LocalHub:
    """See `hub.base.Hub`. The thread starts with the first command and ends with `close`.

    Args:
        snapshot: what a stream begins with that resumes none.
        heartbeat_s: most seconds between two heartbeats of a stream. A reader that takes nothing
            of its backlog from one heartbeat to the next is cut.
        max_streams: 0 for a share of the descriptors that the process may open.
        max_streams_per_token: 0 for a share of those.
        headers: what the head of each answer says besides.
        uniform: returns a number between its two arguments; spreads the return of readers.
    """

    def __init__(
        self,
        snapshot: SnapshotSource,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        max_streams: int = 0,
        max_streams_per_token: int = 0,
        headers: Headers = (),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._snapshot = snapshot
        self._turn_s = heartbeat_s * _EARLY / _TURNS
        if not max_streams:
            soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            max_streams = int(soft_limit * _DESCRIPTOR_SHARE)
        self._max_streams = max_streams
        self._max_streams_per_token = max_streams_per_token or math.ceil(max_streams * _TOKEN_SHARE)
        self._headers = headers
        self._uniform = uniform
        self._commands: deque[Callable[[], None]] = deque()  # append and popleft are atomic
        self._lock = (
            threading.Lock()
        )  # guards _thread, _is_closed, _wake_write and _instances; taken alone
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._instances: dict[str, Counter[str]] = {}
        # From here on the hub's thread alone, but for reading the counters.
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._channels: dict[str, _Channel] = {}
        self._turns: list[set[Subscriber]] = [set() for _ in range(_TURNS)]
        self._turn = 0
        self._dealt = 0
        self._turn_at = 0.0
        self._revoked: set[str] = set()
        self._is_done = False
        self._streams = 0
        self._by_token: Counter[str] = Counter()
        self._published = 0
        self._cut = 0

    # Any thread

    def publish(self, channel: str, sequence: int, event: bytes) -> None:
        self._submit(lambda: self._broadcast(channel, sequence, event))

    def attach(self, sock: socket.socket, subscription: Subscription) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # the peer may have gone already; the first send will tell
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
        if not self._submit(
            lambda: self._admit(
                sock, subscription, response_head(subscription.origin, self._headers)
            )
        ):
            sock.close()

    def stream(self, subscription: Subscription) -> SocketEventStream:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if not self._submit(lambda: self._admit(ours, subscription, b"")):
            ours.close()
        return SocketEventStream(theirs)

    def connected(self, channel: str) -> frozenset[str]:
        with self._lock:
            return frozenset(self._instances.get(channel, ()))

    def disconnect_token(self, token_id: str) -> None:
        self._submit(lambda: self._revoke(token_id))

    def statistics(self) -> HubStatistics:
        return HubStatistics(self._streams, self._published, self._cut)

    @property
    def is_alive(self) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            return self._thread is None or self._thread.is_alive()

    @property
    def has_room(self) -> bool:
        return self._streams < self._max_streams

    def has_room_for(self, token_id: str) -> bool:
        return self._by_token[token_id] < self._max_streams_per_token

    def close(self, timeout_s: float = 2.0) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            thread = self._thread
            if thread is not None:
                self._commands.append(lambda: self._say_farewell(timeout_s))
                self._wake()
        if thread is None:
            self._release()
        else:
            thread.join(timeout_s + 1.0)

    def _submit(self, command: Callable[[], None]) -> bool:
        """Queue a command; False where the hub is closed and the command will never run."""
        with self._lock:
            if self._is_closed:
                return False
            self._commands.append(command)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flagd-hub", daemon=True)
                self._thread.start()
            self._wake()
        return True

    def _wake(self) -> None:
        """Wake the thread. The lock is held and the hub open, so the descriptor is ours."""
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"\0")

    # The hub's thread

    def _run(self) -> None:
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._turn_at = time.monotonic() + self._turn_s
        try:
            while not self._is_done:
                try:
                    self._step()
                except Exception:
                    # A fault of ours must not end the fan-out: readers come back and are told
                    # anew, for whatever is on its way in the streams cannot be trusted now.
                    _LOG.exception("the hub failed; every stream is closed")
                    self._drop_all()
        finally:
            self._release()

    def _step(self) -> None:
        timeout = max(0.0, self._turn_at - time.monotonic()) if self._streams else None
        for key, mask in self._selector.select(timeout):
            if key.fd == self._wake_read:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            else:
                self._serve(key.data, mask)
            # After each stream, lest an event waits while a thousand readers hang up.
            while self._commands:
                self._commands.popleft()()
        now = time.monotonic()
        if now >= self._turn_at:
            self._turn_at = max(self._turn_at + self._turn_s, now)
            self._take_turn()

    def _serve(self, stream: Subscriber, mask: int) -> None:
        if stream.sock.fileno() < 0:
            return  # closed by a command earlier in this round
        if mask & selectors.EVENT_READ and stream.is_gone():
            self._drop(stream)
            return
        if mask & selectors.EVENT_WRITE:
            try:
                stream.flush()
            except OSError:
                self._drop(stream)
                return
            if not stream.backlog:
                self._selector.modify(stream.fd, selectors.EVENT_READ, stream)

    def _admit(self, sock: socket.socket, subscription: Subscription, head: bytes) -> None:
        if subscription.token_id in self._revoked:
            # The token was good when the request came and was revoked before it got here.
            sock.close()
            return
        channel = self._channel(subscription.channel)
        stream = Subscriber(
            sock, subscription.channel, subscription.token_id, subscription.instance
        )
        try:
            stream.after, start = self._start_of(channel, subscription)
        except Exception:
            _LOG.exception("nothing to begin a stream of %s with", subscription.channel)
            sock.close()
            return
        self._dealt = (self._dealt + 1) % _TURNS
        stream.beat = self._dealt
        channel.streams[stream.fd] = stream
        self._turns[stream.beat].add(stream)
        self._selector.register(stream.fd, selectors.EVENT_READ, stream)
        self._streams += 1
        self._by_token[stream.token_id] += 1
        self._count_instance(stream, 1)
        self._write(stream, head + self._retry(), start)

    def _start_of(self, channel: _Channel, subscription: Subscription) -> tuple[int, bytes]:
        """Return what a stream starts with, and the sequence it then stands at.

        The snapshot may be ahead of the ring, whose next events are still in the queue.
        """
        held = subscription.last_event_id
        sequence, whole = self._snapshot(subscription.channel)
        if held is not None:
            if held == sequence:
                return sequence, HEARTBEAT  # tells the reader that the stream is live
            missed = channel.ring.since(held)
            if missed is not None and sum(map(len, missed)) <= len(whole):
                return channel.ring.last, b"".join(missed) or HEARTBEAT
        return sequence, whole  # not joined to anything: a thousand backlogs share it

    def _broadcast(self, name: str, sequence: int, event: bytes) -> None:
        channel = self._channel(name)
        if sequence <= channel.ring.last:
            _LOG.error("event %d of %s was published out of order", sequence, name)
            return
        channel.ring.append(sequence, event)
        self._published += 1
        length = len(event)
        rest: list[tuple[Subscriber, int]] = []
        for fd, stream in channel.streams.items():
            if stream.after >= sequence:
                continue
            if stream.backlog:
                rest.append((stream, 0))
                continue
            sent = raw_send(fd, event, length, SEND_FLAGS)
            if sent != length:
                rest.append((stream, sent))
        for stream, sent in rest:
            if sent > 0:
                stream.keep(event, sent)
                self._await_room(stream)
            else:
                self._write(stream, event)

    def _write(self, stream: Subscriber, *pieces: bytes) -> None:
        had_backlog = bool(stream.backlog)
        try:
            for piece in pieces:
                stream.write(piece)
        except SlowReaderError:
            self._cut_off(stream)
        except OSError:
            self._drop(stream)
        else:
            if stream.backlog and not had_backlog:
                self._await_room(stream)

    def _await_room(self, stream: Subscriber) -> None:
        self._selector.modify(stream.fd, selectors.EVENT_READ | selectors.EVENT_WRITE, stream)

    def _take_turn(self) -> None:
        """Beat for one turn of the streams, and cut those of them that stand still."""
        for stream in tuple(self._turns[self._turn]):
            if not stream.backlog:
                # Who came first was told the least, and a server cut off says no farewell.
                self._write(stream, HEARTBEAT + self._retry())
            elif stream.is_stalled:
                self._cut_off(stream)
            else:
                stream.is_stalled = True
        self._turn = (self._turn + 1) % _TURNS

    def _revoke(self, token_id: str) -> None:
        self._revoked.add(token_id)
        for stream in self._all_streams():
            if stream.token_id == token_id:
                self._drop(stream)

    def _cut_off(self, stream: Subscriber) -> None:
        self._cut += 1
        _LOG.info("cut a reader of %s that does not keep up", stream.channel)
        self._drop(stream)

    def _drop(self, stream: Subscriber) -> None:
        self._channel(stream.channel).streams.pop(stream.fd, None)
        self._turns[stream.beat].discard(stream)
        with suppress(KeyError, ValueError, OSError):
            self._selector.unregister(stream.fd)
        stream.sock.close()
        self._streams -= 1
        self._by_token[stream.token_id] -= 1
        if not self._by_token[stream.token_id]:
            del self._by_token[stream.token_id]
        self._count_instance(stream, -1)

    def _drop_all(self) -> None:
        for stream in self._all_streams():
            self._drop(stream)

    def _all_streams(self) -> list[Subscriber]:
        return list(chain.from_iterable(c.streams.values() for c in self._channels.values()))

    def _channel(self, name: str) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
        return channel

    def _count_instance(self, stream: Subscriber, step: int) -> None:
        if stream.instance is None:
            return
        with self._lock:
            instances = self._instances.setdefault(stream.channel, Counter())
            instances[stream.instance] += step
            if not instances[stream.instance]:
                del instances[stream.instance]

    def _retry(self) -> bytes:
        """Return a wait for one reader, or for few; SDKs shorten it by chance, others wait it out.

        Drawn from the upper half, as SDKs draw from it once more: were it from the whole, most of
        them would be back early.
        """
        spread_ms = min(max(_MIN_SPREAD_MS, self._streams * _SPREAD_MS_PER_STREAM), _MAX_SPREAD_MS)
        return retry(round(self._uniform(spread_ms / 2, spread_ms)))

    def _say_farewell(self, timeout_s: float) -> None:
        """Spread the return of the readers and write what is left, for as long as allowed."""
        for stream, wait in [(stream, self._retry()) for stream in self._all_streams()]:
            self._write(stream, wait)
            if not stream.backlog and stream.sock.fileno() >= 0:
                self._drop(stream)
        deadline = time.monotonic() + timeout_s
        while self._streams and (left := deadline - time.monotonic()) > 0:
            for key, mask in self._selector.select(left):
                if key.fd == self._wake_read:
                    self._selector.unregister(self._wake_read)
                    continue
                self._serve(key.data, mask)
                if not key.data.backlog and key.data.sock.fileno() >= 0:
                    self._drop(key.data)
        self._is_done = True

    def _release(self) -> None:
        self._drop_all()
        with self._lock:
            self._is_closed = True
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
