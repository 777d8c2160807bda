"""Asks others in the background, so that nobody here ever waits for them.

`ask` answers from memory. What was asked for lately is asked again every few seconds by a few
threads, which do the waiting. Of one host at most one question is under way, and a host that let
one hang is left alone for a while: what hangs costs its own timeout, and others nothing.
"""

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from flagd_server.domain.answers import Answer, Question, Unknown, read_answer
from flagd_server.errors import OutgoingError, OutgoingTimeoutError

logger = logging.getLogger(__name__)

EVERY_S = 10.0
TIMEOUT_S = 5.0
_WORKERS = 4
_REST_S = 15.0
# Longer than the pause between two looks of a pipeline, or two scrapes of `/metrics`.
_INTEREST_S = 300.0
_LEEWAY_S = 0.5
_MAX_QUESTIONS = 5_000


class Http(Protocol):
    """See `flagd_server.outgoing`."""

    def get(self, url: str, timeout_s: float) -> tuple[int, bytes]: ...


class Answering(Protocol):
    """What others need of `Asking`."""

    def ask(self, question: Question) -> Answer | None:
        """Return the answer, None while there is none yet. Never blocks."""
        ...


@dataclass(slots=True)
class _Entry:
    asked_for_at: float
    answer: Answer | None = None
    answered_at: float = 0.0


class Asking:
    """Thread-safe. Starts its threads with the first question.

    Args:
        max_waiting: how many may `wait` at once.
        every_s: how long after an answer the question is asked again.
        timeout_s: of one question.
        rest_s: how long a host is left alone after a timeout.
        interest_s: how long a question is asked again after the last who asked for its answer.
    """

    def __init__(
        self,
        http: Http,
        *,
        max_waiting: int = 4,
        every_s: float = EVERY_S,
        timeout_s: float = TIMEOUT_S,
        rest_s: float = _REST_S,
        interest_s: float = _INTEREST_S,
    ) -> None:
        self._http = http
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._rest_s = rest_s
        self._interest_s = interest_s
        # An answer that is older is none: the threads don't keep up.
        self._stale_s = 3 * every_s + timeout_s
        self._turns = threading.BoundedSemaphore(max_waiting)
        self._changed = threading.Condition()  # guards all below
        self._entries: dict[Question, _Entry] = {}
        self._waiting: deque[Question] = deque()
        self._due: list[tuple[float, int, Question]] = []
        self._order = itertools.count()
        self._busy: set[str] = set()
        self._resting: dict[str, tuple[float, Unknown]] = {}
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def ask(self, question: Question) -> Answer | None:
        """Return the answer, None while there is none yet. Never blocks."""
        now = time.monotonic()
        with self._changed:
            entry = self._entries.get(question)
            if entry is None:
                if len(self._entries) >= _MAX_QUESTIONS:
                    return Unknown(f"this server asks {_MAX_QUESTIONS} questions already")
                if self._is_closed:
                    return None
                entry = self._entries[question] = _Entry(now)
                self._waiting.append(question)
                self._start()
                self._changed.notify_all()
            entry.asked_for_at = now
            age_s = now - entry.answered_at
            if entry.answer is not None and age_s > self._stale_s:
                return Unknown(f"the last answer is {age_s:.0f} s old: too many others are waiting")
            return entry.answer

    def wait(self, questions: Iterable[Question]) -> None:
        """Return when all have been answered once, or would have been: a timeout later.

        Where too many wait already it returns at once: who waits holds a thread of the server.
        """
        wanted = list(questions)
        for question in wanted:
            self.ask(question)
        if self._turns.acquire(blocking=False):
            try:
                with self._changed:
                    self._changed.wait_for(
                        lambda: all(map(self._is_answered, wanted)), self._timeout_s + _LEEWAY_S
                    )
            finally:
                self._turns.release()

    def stop_waiting(self) -> None:
        """Release who waits; nothing is asked any more. Never blocks."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def close(self, timeout_s: float = 1.0) -> None:
        """End the threads; one that waits for an answer is left to its timeout. Idempotent."""
        self.stop_waiting()
        ends_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))

    def _is_answered(self, question: Question) -> bool:
        entry = self._entries.get(question)
        return self._is_closed or entry is None or entry.answer is not None

    def _start(self) -> None:
        if not self._threads:
            for number in range(_WORKERS):
                name = f"flagd-asking-{number}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            for thread in self._threads:
                thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (question := self._next()) is None and not self._is_closed:
                    now = time.monotonic()
                    self._changed.wait(max(0.0, self._due[0][0] - now) if self._due else None)
                if question is None or self._is_closed:
                    return
                host = _host(question)
                self._busy.add(host)
                answer = self._rest(host)
            if answer is None:
                answer = self._answer(question, host)
            with self._changed:
                now = time.monotonic()
                self._busy.discard(host)
                entry = self._entries[question]
                entry.answer, entry.answered_at = answer, now
                heapq.heappush(self._due, (now + self._every_s, next(self._order), question))
                self._changed.notify_all()

    def _next(self) -> Question | None:
        """Return the first question whose host is free, and take it off the queue."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, question = heapq.heappop(self._due)
            if now - self._entries[question].asked_for_at < self._interest_s:
                self._waiting.append(question)
            else:
                del self._entries[question]
        for place, question in enumerate(self._waiting):
            if _host(question) not in self._busy:
                del self._waiting[place]
                return question
        return None

    def _rest(self, host: str) -> Answer | None:
        """Return what is said for a host while it is left alone."""
        until_s, answer = self._resting.get(host, (0.0, None))
        if answer is not None and time.monotonic() >= until_s:
            del self._resting[host]
            return None
        return answer

    def _answer(self, question: Question, host: str) -> Answer:
        try:
            status, body = self._http.get(question.url, self._timeout_s)
        except OutgoingTimeoutError as error:
            answer = Unknown(str(error))
            with self._changed:
                self._resting[host] = (time.monotonic() + self._rest_s, answer)
            return answer
        except OutgoingError as error:
            return Unknown(str(error))
        except Exception:
            # The edge of the thread: a mistake here must not end it.
            logger.exception("a question could not be asked")
            return Unknown("this server made a mistake in asking; its log says which")
        with self._changed:
            self._resting.pop(host, None)
        return read_answer(question.kind, status, body)


def _host(question: Question) -> str:
    return urlsplit(question.url).netloc.lower()
