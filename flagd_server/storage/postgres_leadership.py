"""Which of the servers on one Postgres leads: a lock of a session, and a term.

- The leader's session holds an advisory lock and is never silent for long. If the process dies or
  its connection breaks, Postgres frees the lock at once; if it stops, or is cut off, after
  `IDLE_TIMEOUT_S` (`idle_session_timeout`). Another takes it within `_TRY_EVERY_S`.
- A leader counts on it for `LEASE_S` from when it sent its last heartbeat that was answered, which
  is less: by its own clock it has stopped before Postgres lets another one in.
- What it writes is fenced exactly, whatever clocks and networks do: a new leader begins a term, in
  a turn of the writers, and `require_lead` compares terms within a turn.
"""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from flagd_server.errors import StorageError
from flagd_server.storage.postgres_connections import LEAD_LOCK, TURN_LOCK
from flagd_server.storage.postgres_session import Session, Waker

_log = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 3.5
LEASE_S = 2.5
_BEAT_S = 1.0
_TRY_EVERY_S = 0.25
_ANSWER_S = 2.0
_CONNECT_S = 2.0
# A new leader waits for the turn of writers, as each of them does.
_TERM_S = 10.0
# So long does a new leader hold back: one whose session was ended hears of it within milliseconds.
_SETTLE_S = 0.25
_PAUSES_S = (0.1, 0.2, 0.5, 1.0)
_CLOSE_S = 5.0

_SESSION_NAME = "flagd leadership"
_TRY = f"SELECT pg_try_advisory_lock({LEAD_LOCK})"
_TAKE_TURN = f"SELECT pg_advisory_xact_lock({TURN_LOCK})"

OnChange = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class _Lease:
    """The right to lead in one term, until a time of `_clock`."""

    term: int
    until: float


def _clock() -> float:
    """Return seconds that go on while the machine sleeps, which is when others take over."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PostgresLeadership:
    """Stands for leadership from `start` to `close`. `term` and `is_leading` cost nothing."""

    def __init__(
        self,
        url: str,
        on_change: OnChange,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Args:
        on_change: called with True and False by turns, by one thread. It may take its time;
            `is_leading` does not wait for it.
        uniform: returns a number between its two arguments; spreads what many servers do.
        """
        self._url = url
        self._on_change = on_change
        self._uniform = uniform
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = threading.Event()
        self._waker = Waker()
        self._thread: threading.Thread | None = None
        # Swapped whole, by the thread alone.
        self._lease: _Lease | None = None
        # Heartbeats go on while a new leader reads what it needs.
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="flagd-lead-change")

    @property
    def term(self) -> int | None:
        """The term in which this process leads, None where it does not."""
        lease = self._lease
        return lease.term if lease is not None and _clock() < lease.until else None

    @property
    def is_leading(self) -> bool:
        return self.term is not None

    def start(self) -> None:
        """Stand for leadership; returns at once."""
        self._thread = threading.Thread(target=self._run, name="flagd-leadership", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Lead no more; another may at once. Returns when `on_change` is through. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._waker.wake()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._callbacks.shutdown()
        if self._thread is None or not self._thread.is_alive():
            self._waker.close()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with closing(
                    Session(self._url, _SESSION_NAME, self._waker, within_s=_CONNECT_S)
                ) as session:
                    self._win(session)
                    failures = 0
                    if not self._stopping.is_set():
                        self._lead(session)
            except StorageError as error:
                if failures == 0:
                    _log.warning("can't stand for leadership now: %s", error)
            except Exception:  # the thread's edge: it stands again
                _log.exception("leadership failed")
            pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            failures += 1
            self._stopping.wait(self._uniform(pause_s / 2, pause_s))

    def _win(self, session: Session) -> None:
        """Return when the session holds the lock, or when this process is stopping."""
        milliseconds = round(1000 * IDLE_TIMEOUT_S)
        session.query(f"SET idle_session_timeout = {milliseconds}", within_s=_ANSWER_S)
        while session.query(_TRY, within_s=_ANSWER_S) != [("t",)]:
            session.idle(self._uniform(_TRY_EVERY_S / 2, _TRY_EVERY_S))
            if self._stopping.is_set():
                return

    def _lead(self, session: Session) -> None:
        """Begin a term, and lead until the process stops or the lease can't be renewed."""
        term = self._begin_term(session)
        session.idle(_SETTLE_S)
        try:
            self._renew(session, term)
            _log.info("%s leads, in term %d", self._holder, term)
            self._callbacks.submit(self._tell, True)
            while not self._stopping.is_set():
                session.idle(_BEAT_S)
                self._renew(session, term)
        finally:
            # Before the session ends, which lets the next one in.
            was_leading, self._lease = self._lease is not None, None
            if was_leading:
                _log.log(
                    logging.INFO if self._stopping.is_set() else logging.WARNING,
                    "%s leads no more, after term %d",
                    self._holder,
                    term,
                )
                self._callbacks.submit(self._tell, False)

    def _begin_term(self, session: Session) -> int:
        """Increment the term in a turn of the writers: the writes of an old leader end here."""
        session.query("BEGIN", within_s=_ANSWER_S)
        session.query(_TAKE_TURN, within_s=_TERM_S)
        [(term,)] = session.query(
            "UPDATE leadership SET term = term + 1, holder = $1 RETURNING term",
            [self._holder],
            within_s=_ANSWER_S,
        )
        session.query("COMMIT", within_s=_ANSWER_S)
        assert term is not None
        return int(term)

    def _renew(self, session: Session, term: int) -> None:
        """Send a heartbeat, and extend the lease once it is answered."""
        sent_at = _clock()
        session.query("SELECT 1", within_s=_ANSWER_S)
        if self._lease is not None and _clock() >= self._lease.until:
            # It had run out, and whoever asked was told so: another may have led meanwhile.
            raise StorageError("the lease ran out before it was renewed")
        self._lease = _Lease(term, sent_at + LEASE_S)

    def _tell(self, is_leading: bool) -> None:
        try:
            self._on_change(is_leading)
        except Exception:  # the thread's edge
            _log.exception("a change of leadership could not be followed")
