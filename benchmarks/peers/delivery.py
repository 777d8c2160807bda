"""Takes events to the sink, for contenders that leave this to the application.

As the clients do that bring such a queue with them, it holds a bounded number of events, sends what
it has each second from a thread of its own, and drops what does not fit.
"""

import json
from collections import deque
from threading import Event, Thread
from typing import Any

import requests

_MAX_EVENTS = 10_000
_INTERVAL_S = 1.0


class Delivery:
    """Events on their way; `add` is what the evaluating thread pays."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self._events: deque[Any] = deque(maxlen=_MAX_EVENTS)
        self.add = self._events.append
        self._closing = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._closing.wait(_INTERVAL_S):
                batch = [self._events.popleft() for _ in range(len(self._events))]
                if batch:
                    body = json.dumps(batch, default=vars).encode()
                    session.post(f"{self._sink}/events", data=body, timeout=10.0)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
