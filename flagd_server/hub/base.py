"""What the server asks of a hub: publish to every open stream of a channel, never wait.

A channel is a name: an environment's, for its SDKs; who else hears of its changes has another.
"""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

# (channel) -> (sequence, the event that brings whoever reads it up to that sequence).
# Called from the hub's thread: an in-memory look-up that never waits for a publisher.
SnapshotSource = Callable[[str], tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one authenticated stream asks for.

    `instance` names the process behind it, where it told; `last_event_id` is the sequence it holds
    already; `origin` is the web page's that may read the answer, where one asks (CORS).
    """

    channel: str
    token_id: str
    instance: str | None = None
    last_event_id: int | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """`streams` open now; `published` events and `cut` readers (too slow) since the start."""

    streams: int
    published: int
    cut: int


class EventStream(Protocol):
    """The bytes of one stream, for a server that keeps the connection itself."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def close(self) -> None:
        """End the subscription. Servers call this when the reader has gone."""


class Hub(Protocol):
    """Every method may be called from any thread, and none waits for a reader.

    A stream starts with what its reader lacks (nothing, the missed events, or the channel's newest
    state) and goes on with the events published since: none is missing and none comes twice.
    """

    def publish(self, channel: str, sequence: int, event: bytes) -> None:
        """Send one encoded event to every stream of the channel.

        Call it after the commit, in the order of the sequences, and after the snapshot source has
        the new set.
        """

    def attach(self, sock: socket.socket, subscription: Subscription) -> None:
        """Take over a connection whose request has been read; the hub answers and closes it."""

    def stream(self, subscription: Subscription) -> EventStream:
        """Return the same stream as an iterator of bytes, without an HTTP head."""

    def connected(self, channel: str) -> frozenset[str]:
        """Return the instances that have a stream open."""

    def disconnect_token(self, token_id: str) -> None:
        """Close the streams of a revoked token, and those that were about to open with it."""

    def statistics(self) -> HubStatistics: ...

    @property
    def is_alive(self) -> bool:
        """Whether the hub can serve: it has not been closed and its thread has not died."""

    @property
    def has_room(self) -> bool:
        """Whether one more stream leaves the server the descriptors that it needs."""

    def has_room_for(self, token_id: str) -> bool:
        """Whether the token has fewer streams than one token may have."""

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what is queued, tell each stream when to come back, and close them all."""
