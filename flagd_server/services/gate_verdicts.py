"""The verdicts of gates, kept fresh in the background for whoever asks.

A verdict in memory never waits, so that a rollout's step may ask within a transaction. A person or
a pipeline that asks for one is given the first answers' time.
"""

import logging
import threading
import time
from datetime import datetime

from flagd_server.clock import Clock
from flagd_server.domain.gate_verdicts import Verdict, judge
from flagd_server.domain.health import Health, Reason
from flagd_server.errors import StorageError
from flagd_server.services.asking import Asking
from flagd_server.services.gate_facts import GateFacts
from flagd_server.services.gates import require_gate
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.release_records import Gate

logger = logging.getLogger(__name__)

_EVERY_S = 2.0
# A verdict that is older says nothing: the thread has ended, or the machine slept.
_STALE_S = 15.0
# So long a gate is looked at after the last who asked.
_INTEREST_S = 300.0


class _Watched:
    """Attributes:
    changes: how often the gate was changed; a verdict on what it was before counts no more.
    """

    __slots__ = ("asked_for_at", "changes", "judged_at", "verdict")

    def __init__(self, now_s: float) -> None:
        self.asked_for_at = now_s
        self.changes = 0
        self.verdict: Verdict | None = None
        self.judged_at = now_s


class GateVerdicts:
    """Thread-safe. Starts its thread with the first gate that is asked about."""

    def __init__(
        self,
        storage: Storage,
        facts: GateFacts,
        asking: Asking,
        clock: Clock,
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._storage = storage
        self._facts = facts
        self._asking = asking
        self._clock = clock
        self._every_s = every_s
        self._wake = threading.Condition()  # guards all below
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._is_woken = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def exists(self, reader: Reader, environment: str, key: str) -> bool:
        return reader.gate(environment, key) is not None

    def verdict(self, environment: str, key: str) -> Verdict:
        """Return what the gate says, from memory; inconclusive until it was looked at."""
        now = time.monotonic()
        with self._wake:
            watched = self._watch(environment, key, now)
            if watched.verdict is None:
                return _nothing_known("the gate is being looked at; ask again in a few seconds")
            age_s = now - watched.judged_at
            if age_s > _STALE_S:
                return _nothing_known(f"the gate was last looked at {age_s:.0f} s ago")
            return watched.verdict

    def is_green(self, environment: str, key: str) -> tuple[bool, str]:
        """Return whether the gate is healthy, and why not where it is not. Never blocks."""
        verdict = self.verdict(environment, key)
        return verdict.is_green, verdict.against()

    def get(self, environment: str, key: str) -> tuple[Verdict, datetime]:
        """Return what the gate says now, and when that was.

        What has not been asked before is waited for, 5.5 s at most.

        Raises:
            NotFoundError: there is no such gate.
        """
        with self._storage.read() as reader:
            questions = self._facts.questions(reader, require_gate(reader, environment, key))
        self._asking.wait(questions)
        with self._storage.read() as reader:
            gate = require_gate(reader, environment, key)
            verdict = judge(gate.definition, self._facts.gather(reader, gate))
        with self._wake:
            # From now on the thread keeps it fresh.
            self._watch(environment, key, time.monotonic())
        return verdict, self._clock.now()

    def note_change(self, environment: str | None = None, gate: str | None = None) -> None:
        """Forget what the gate said, and look at it again at once if anybody asks for it.

        All of them where none is named.
        """
        with self._wake:
            for key, watched in self._watched.items():
                if environment is None or key == (environment, gate):
                    watched.verdict = None
                    watched.changes += 1
                    self._is_woken = True
                    self._wake.notify_all()

    def close(self) -> None:
        """End the thread. Idempotent."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(5.0)

    def _watch(self, environment: str, key: str, now: float) -> _Watched:
        watched = self._watched.get((environment, key))
        if watched is None:
            watched = self._watched[environment, key] = _Watched(now)
            self._is_woken = True
            self._wake.notify_all()
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="flagd-gates", daemon=True)
                self._thread.start()
        watched.asked_for_at = now
        return watched

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._is_woken or self._is_closed, self._every_s)
                if self._is_closed:
                    return
                self._is_woken = False
                since = time.monotonic() - _INTEREST_S
                self._watched = {k: w for k, w in self._watched.items() if w.asked_for_at > since}
                wanted = [(key, watched, watched.changes) for key, watched in self._watched.items()]
            for key, watched, changes in wanted:
                verdict = self._look(*key)
                with self._wake:
                    if watched.changes == changes:
                        watched.verdict, watched.judged_at = verdict, time.monotonic()

    def _look(self, environment: str, key: str) -> Verdict:
        try:
            with self._storage.read() as reader:
                gate: Gate | None = reader.gate(environment, key)
                if gate is None:
                    return _nothing_known(f"there is no gate {key} in {environment}")
                return judge(gate.definition, self._facts.gather(reader, gate))
        except StorageError as error:
            return _nothing_known(str(error))
        except Exception:
            # The edge of the thread: one gate's trouble must not keep the others from being seen.
            logger.exception("gate %r of %r could not be judged", key, environment)
            return _nothing_known("this server made a mistake in judging; its log says which")


def _nothing_known(why: str) -> Verdict:
    return Verdict(Health.INCONCLUSIVE, (Reason("gate", Health.INCONCLUSIVE, why),))
