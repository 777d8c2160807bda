"""Sends the visits to the shops over HTTP at a steady rate, and notes what came back."""

import http.client
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from examples.demo.faulty_shop import FAULT_HEADER, RECORDED_STATUS_HEADER
from examples.demo.traffic import Visit

_SENDERS = 6
_TIMEOUT_S = 20.0
# Behind by more than this the schedule is shifted: catching up would be a burst of our own making.
_MOST_BEHIND_S = 0.25
# What the closing figures are made of: minutes of answers, so that a demo left alone stays small.
_ANSWERS_KEPT = 60_000


@dataclass(frozen=True, slots=True)
class Answer:
    """How a shop answered one visit.

    Attributes:
        sent_at, answered_at: Unix time in seconds.
        checkout: "old" or "new"; "" where no shop answered.
        fault: class of the error that the new checkout raised because it was made to; else "".
        has_failed_before: the visit had failed in the log, flag or no flag.
    """

    sent_at: float
    answered_at: float
    checkout: str
    fault: str
    has_failed_before: bool

    @property
    def is_failed_by_flag(self) -> bool:
        return bool(self.fault) and not self.has_failed_before


class Replay:
    """A few threads that share one schedule. Leaving the context ends them."""

    def __init__(self, visits: Iterator[Visit], shops: Sequence[str], rate: float) -> None:
        """Prepare; the visits go round the shops, so that no visitor sticks to one process.

        Args:
            rate: requests a second, at most.
        """
        self._visits = visits
        self._shops = shops
        self._interval_s = 1.0 / rate
        self._stopping = threading.Event()
        self._turn = threading.Lock()  # guards the next three
        self._next_at = 0.0
        self._sent = 0
        self._threads: list[threading.Thread] = []
        self._noting = threading.Lock()  # guards the next two
        self._answers: deque[Answer] = deque(maxlen=_ANSWERS_KEPT)
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._next_at = time.monotonic()
        for number in range(_SENDERS):
            thread = threading.Thread(target=self._send_all, name=f"visitors-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    @property
    def answered(self) -> int:
        """How many visits got an answer so far."""
        with self._noting:
            return self._counts["old"] + self._counts["new"]

    @property
    def answered_by(self) -> Mapping[str, int]:
        """Checkout → how many visits it has answered so far."""
        with self._noting:
            return {name: self._counts[name] for name in ("old", "new")}

    @property
    def unanswered(self) -> int:
        with self._noting:
            return self._counts[""]

    def answers(self) -> list[Answer]:
        """Return the latest answers, oldest first, by the time of their arrival."""
        with self._noting:
            return list(self._answers)

    def _send_all(self) -> None:
        addresses = [urlsplit(shop) for shop in self._shops]
        connections = [
            http.client.HTTPConnection(str(address.hostname), address.port, timeout=_TIMEOUT_S)
            for address in addresses
        ]
        while (turn := self._take_turn()) is not None:
            number, due_at, visit = turn
            if self._stopping.wait(max(0.0, due_at - time.monotonic())):
                break
            self._note(_send(connections[number % len(connections)], visit))
        for connection in connections:
            connection.close()

    def _take_turn(self) -> tuple[int, float, Visit] | None:
        if self._stopping.is_set():
            return None
        with self._turn:
            now = time.monotonic()
            due_at = self._next_at if now - self._next_at < _MOST_BEHIND_S else now
            self._next_at = due_at + self._interval_s
            self._sent += 1
            return self._sent, due_at, next(self._visits)

    def _note(self, answer: Answer) -> None:
        with self._noting:
            self._answers.append(answer)
            self._counts[answer.checkout] += 1


def _send(connection: http.client.HTTPConnection, visit: Visit) -> Answer:
    body = json.dumps({"article": visit.article, "price_cents": visit.price_cents})
    headers = {
        "Content-Type": "application/json",
        "X-Visitor": visit.visitor,
        RECORDED_STATUS_HEADER: str(visit.status),
    }
    sent_at = time.time()
    checkout, fault = "", ""
    try:
        connection.request("POST", "/checkout", body, headers)
        response = connection.getresponse()
        content = response.read()
        fault = response.headers.get(FAULT_HEADER, "")
        checkout = "new" if fault else json.loads(content)["checkout"]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        connection.close()  # opened again by the next request
    return Answer(sent_at, time.time(), checkout, fault, visit.has_failed)
