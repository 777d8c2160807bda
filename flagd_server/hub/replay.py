"""The recent events of one environment, for streams that come back. Pure."""

from collections import deque

# A reader that was away for longer than this gets the whole set, which is then the shorter way.
MAX_EVENTS = 1024
MAX_BYTES = 8 * 1024 * 1024


class ReplayRing:
    """Holds every event after a floor that rises as old events leave. Not thread-safe."""

    __slots__ = ("_bytes", "_events", "_floor", "_max_bytes", "_max_events", "last")

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._events: deque[tuple[int, bytes]] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._floor = 0
        self.last = 0  # sequence of the newest event; 0 before the first

    def append(self, sequence: int, event: bytes) -> None:
        """Add the newest event; `sequence` is above `last`."""
        if self.last == 0:
            # What came before the first event is unknown; nothing can be numbered in between.
            self._floor = sequence - 1
        self.last = sequence
        self._events.append((sequence, event))
        self._bytes += len(event)
        while len(self._events) > self._max_events or self._bytes > self._max_bytes:
            self._floor, dropped = self._events.popleft()
            self._bytes -= len(dropped)

    def since(self, sequence: int) -> list[bytes] | None:
        """Return the events after `sequence`, oldest first; None where the ring cannot tell."""
        if not self._floor <= sequence <= self.last:
            return None
        missed = []
        for number, event in reversed(self._events):
            if number <= sequence:
                break
            missed.append(event)
        missed.reverse()
        return missed
