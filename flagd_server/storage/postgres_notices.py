"""Notices between the servers on one Postgres: LISTEN on a connection and a thread of their own.

- NOTIFY is part of the transaction that announces: what is rolled back nobody hears of, and what
  is committed everybody hears in the order of the commits, this process too.
- A connection that is lost is made again, with growing pauses. Whatever was announced meanwhile
  is lost: once LISTEN is in force again, `on_gap` reads everything anew.
- A connection that died without a word is noticed within three seconds, by a heartbeat.
- A pooler between has to keep sessions: LISTEN means nothing in one that is shared.
"""

import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count

from flagd_server.domain.configuration import JsonObject
from flagd_server.errors import StorageError, StorageUnavailableError
from flagd_server.storage.base import OnNotice
from flagd_server.storage.notices import decode_notice, encode_notice
from flagd_server.storage.postgres_session import Session, Waker

_log = logging.getLogger(__name__)

CHANNEL = "flagd"

_SESSION_NAME = "flagd notices"
_CONNECT_S = 2.0
# Silence after which the connection is tried, and how long the answer may take.
_BEAT_S = 1.0
_BEAT_ANSWER_S = 2.0
# The last one goes on: whoever was cut off has caught up a second after the database is back.
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_FIRST_WITHIN_S = 10.0
_CLOSE_S = 5.0


class PostgresNotices:
    """Composes notices for transactions to send, and hears those of all processes.

    The hearer is called by one thread, one notice after the other. Where it raises, it has missed
    something: that is logged, and `on_gap` is called, again if need be, until it succeeds.
    """

    def __init__(
        self, url: str, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        """Args:
        uniform: returns a number between its two arguments; spreads the return of the servers.
        """
        self._url = url
        self._uniform = uniform
        self._origin = secrets.token_hex(8)
        self._marks = count(1)
        self._stopping = threading.Event()
        self._waker = Waker()
        self._thread: threading.Thread | None = None
        self._hearer = _Hearer(lambda topic, document: None, lambda: None)
        # Guards the two below; nothing is called and no other lock taken while it is held.
        self._state = threading.Condition()
        self._is_listening = False
        self._delivered = 0

    @property
    def is_listening(self) -> bool:
        """Whether what is announced now will be heard without a gap."""
        return self._is_listening

    def compose(self, topic: str, document: JsonObject) -> tuple[int, str]:
        """Return a mark to wait for, and the payload to `pg_notify(CHANNEL, …)`.

        Marks grow. Each payload is another one: Postgres would drop the second of two that are
        the same in one transaction.

        Raises:
            StorageError: the notice is too long.
        """
        notice = encode_notice(topic, document)
        mark = next(self._marks)
        return mark, f"{self._origin} {mark} {notice}"

    def listen(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        """Hear from now on; returns when LISTEN is in force, so that nothing after is missed.

        Both must be quick, and must not write: the notices behind wait.

        Raises:
            StorageUnavailableError: the database can't be reached.
        """
        if self._thread is not None:
            raise StorageError("notices are listened to already")
        self._hearer = _Hearer(on_notice, on_gap)
        self._thread = threading.Thread(target=self._run, name="flagd-notices", daemon=True)
        self._thread.start()
        with self._state:
            if not self._state.wait_for(lambda: self._is_listening, _FIRST_WITHIN_S):
                raise StorageUnavailableError(
                    f"can't listen to the database: it took more than {_FIRST_WITHIN_S:g} s"
                )

    def wait(self, mark: int, within_s: float = 1.0) -> bool:
        """Return whether the notice of this mark was delivered here, waiting for it if need be.

        Not waited for is one that will not come: while the connection is down (`on_gap` follows),
        and in the thread that delivers.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._state:
            self._state.wait_for(
                lambda: self._delivered >= mark or not self._is_listening, within_s
            )
            return self._delivered >= mark

    def close(self) -> None:
        """Hear no more. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._waker.wake()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():
                return  # it is in a hearer, and looks at the waker once more
        self._waker.close()

    def _run(self) -> None:
        failures = 0
        heard_before = False
        while not self._stopping.is_set():
            try:
                with closing(self._subscribe()) as session:
                    if heard_before:
                        self._hearer.miss()
                        _log.warning("hears from the other servers again")
                    heard_before, failures = True, 0
                    self._set_listening(True)
                    self._hear(session)
            except StorageError as error:
                if failures == 0:
                    _log.warning("can't hear from the other servers now: %s", error)
            except Exception:  # the thread's edge: it subscribes again
                _log.exception("what other servers announce could not be heard")
            finally:
                self._set_listening(False)
            pause_s = _pause_s(failures)
            failures += 1
            # Many lose a database in the same instant, and shall not come back in the same one.
            self._stopping.wait(self._uniform(pause_s / 2, pause_s))

    def _subscribe(self) -> Session:
        session = Session(self._url, _SESSION_NAME, self._waker, within_s=_CONNECT_S)
        try:
            session.query(f"LISTEN {CHANNEL}", within_s=_BEAT_ANSWER_S)
        except BaseException:
            session.close()
            raise
        return session

    def _hear(self, session: Session) -> None:
        beat_at = time.monotonic() + _BEAT_S
        while not self._stopping.is_set():
            self._hearer.catch_up()
            wake_at = min(beat_at, self._hearer.catches_up_at)
            for payload in session.idle(max(0.0, wake_at - time.monotonic())):
                self._deliver(payload)
            if time.monotonic() >= beat_at:
                session.query("SELECT 1", within_s=_BEAT_ANSWER_S)
                beat_at = time.monotonic() + _BEAT_S

    def _deliver(self, payload: str) -> None:
        try:
            origin, mark, notice = payload.split(" ", 2)
            number = int(mark)
            topic, document = decode_notice(notice)
        except ValueError:
            _log.warning("a notice on the channel %s is not of ours: %.100r", CHANNEL, payload)
            return
        self._hearer.hear(topic, document)
        if origin == self._origin:
            with self._state:
                self._delivered = number
                self._state.notify_all()

    def _set_listening(self, is_listening: bool) -> None:
        with self._state:
            self._is_listening = is_listening
            self._state.notify_all()


class _Hearer:
    """Who is told, and whether it has missed something. Used by one thread."""

    def __init__(self, on_notice: OnNotice, on_gap: Callable[[], None]) -> None:
        self._on_notice = on_notice
        self._on_gap = on_gap
        self._failures = 0
        self.catches_up_at = math.inf
        """When `on_gap` is due, in monotonic seconds."""

    def hear(self, topic: str, document: JsonObject) -> None:
        try:
            self._on_notice(topic, document)
        except Exception:  # the caller's edge: it is read again, with everything
            _log.exception("a notice of %r could not be followed", topic)
            self.miss()

    def miss(self) -> None:
        """Note that something was missed."""
        self.catches_up_at = time.monotonic()
        self._failures = 0

    def catch_up(self) -> None:
        """Have everything read again, if that is due."""
        if time.monotonic() < self.catches_up_at:
            return
        try:
            self._on_gap()
        except Exception:  # the caller's edge
            _log.exception("what was missed could not be read; it is tried again")
            self.catches_up_at = time.monotonic() + _pause_s(self._failures)
            self._failures += 1
        else:
            self.catches_up_at = math.inf


def _pause_s(failures: int) -> float:
    return _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
