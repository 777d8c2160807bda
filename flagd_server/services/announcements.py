"""When each environment was last told something: what a report says of its own kill's way."""

from dataclasses import dataclass
from datetime import datetime

from flagd_server.clock import Clock
from flagd_server.services.publishing import Announcer


@dataclass(frozen=True, slots=True)
class Announcement:
    """One event to an environment's streams.

    Attributes:
        committed_at: the change was durable; announcing is the first that follows.
        sent_at: it was handed to every stream.
    """

    sequence: int
    committed_at: datetime
    sent_at: datetime


class Announcements:
    """An announcer in front of another, which takes the time."""

    def __init__(self, announcer: Announcer, clock: Clock) -> None:
        self._announcer = announcer
        self._clock = clock
        # Written in the turn of one writer after the other; each write is one assignment.
        self._latest: dict[str, Announcement] = {}

    def publish(self, environment: str, sequence: int, event: bytes) -> None:
        committed_at = self._clock.now()
        self._announcer.publish(environment, sequence, event)
        self._latest[environment] = Announcement(sequence, committed_at, self._clock.now())

    def latest(self, environment: str) -> Announcement | None:
        """Return the newest since the server's start."""
        return self._latest.get(environment)
