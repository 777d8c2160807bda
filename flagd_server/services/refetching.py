"""What OFREP clients hear of a change: that there is one (OFREP 0.3.0, ADR 0008).

They evaluate nothing themselves, so the event carries no flag; whoever gets it asks again. They
have a channel of the hub beside that of the environment's SDKs, and an encoding of their own, made
once for each change.
"""

from flagd_sdk.core import sse
from flagd_server.services.publishing import Announcer
from flagd_server.services.snapshots import Snapshots, encode

# No environment's key holds a slash.
_PREFIX = "ofrep/"
_MS_PER_S = 1_000


def refetch_channel(environment: str) -> str:
    """Return the channel on which the environment's OFREP clients listen."""
    return _PREFIX + environment


def refetch_event(environment: str, sequence: int) -> bytes:
    """Return the event that has its readers ask again.

    A sequence is at least the Unix time in milliseconds at which it was made.
    """
    data = {
        "type": "refetchEvaluation",
        "etag": f'"{environment}-{sequence}"',
        "lastModified": sequence // _MS_PER_S,
    }
    # Browsers hand an event of this name to the general handler, as the protocol wants it.
    return sse.encode("message", encode(data), str(sequence))


class BothAudiences:
    """An announcer in front of a hub: SDKs get the event itself, then OFREP clients theirs."""

    def __init__(self, hub: Announcer) -> None:
        self._hub = hub

    def publish(self, environment: str, sequence: int, event: bytes) -> None:
        self._hub.publish(environment, sequence, event)
        self._hub.publish(
            refetch_channel(environment), sequence, refetch_event(environment, sequence)
        )


def newest_of(snapshots: Snapshots, channel: str) -> tuple[int, bytes]:
    """Return a channel's sequence, and the event that brings its readers up to that.

    Raises:
        NotFoundError: there is no such environment.
    """
    if channel.startswith(_PREFIX):
        environment = channel.removeprefix(_PREFIX)
        # An OFREP client that begins to listen may have missed a change since it last asked.
        sequence = snapshots.parts(environment).sequence
        return sequence, refetch_event(environment, sequence)
    snapshot = snapshots.current(channel)
    return snapshot.sequence, snapshot.event
