"""Counts units of work, and one thread reports the counts: in order, one at a time, each summary
again with the same sequence until the server says that it has it.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from flagd_sdk.config import ClientConfig
from flagd_sdk.core.counts import Counts
from flagd_sdk.core.instants import rfc3339
from flagd_sdk.core.local_kill import Evidence
from flagd_sdk.core.looking import NOTHING, Finished, Watch
from flagd_sdk.core.summary import Tally
from flagd_sdk.errors import StatusError, TransportError
from flagd_sdk.local_breaker import LocalBreaker
from flagd_sdk.notices import Notices
from flagd_sdk.scope import Scope
from flagd_sdk.transport import Transport
from flagd_sdk.worker import ReentrantEvent, Worker

MAX_QUEUED_SUMMARIES = 60
MAX_QUEUED_BYTES = 4 * 1024 * 1024
# Units of work that are counted together, for the lock costs as much as counting one.
_BATCH = 64
# Requests in any one second, however urgent the news or long the queue. More than one, so that a
# process can confirm a kill right behind the summary that led to it.
_MAX_SENDS_A_SECOND = 3
# An outage of ten minutes fits into the queue; a longer one goes on in one growing summary.
_QUEUE_INTERVAL_S = 10.0
# The statuses of the server's contract that speak of the summary itself. Any other, a 404 of a
# proxy that knows no way to the server among them, passes.
_REFUSED_SUMMARY = (400, 413, 415, 422)


class Reporter(Worker):
    """Holds the tally of this process and sends it.

    `step` does what is due and returns how long to wait; the thread does nothing but call it.
    Scopes of all threads meet at one short lock, taken once for many units of work.
    """

    thread_name = "flagd-report"

    def __init__(
        self,
        transport: Transport,
        config: ClientConfig,
        notices: Notices,
        instance: Callable[[], str],
        applied_sequence: Callable[[], int],
        clock: Callable[[], float],
        now: Callable[[], datetime],
        random: Callable[[], float],
        wake_up: Callable[[], None] = lambda: None,
        housekeeping: Callable[[], None] = lambda: None,
        asked_s: Callable[[], float] = lambda: 0.0,
        breaker: LocalBreaker | None = None,
    ) -> None:
        """Begin with empty counts.

        Args:
            instance: this process's name to the server.
            applied_sequence: of the flag set in use.
            clock: monotonic seconds; `now` is the wall clock, which only labels.
            wake_up: called while there is no thread, as in a forked child, to have it started.
            housekeeping: called at each step, for what may be slow but must not delay a kill.
            asked_s: for how long the server asks those to wait who have lost it.
            breaker: judges what fails; None for no judgement but the server's.
        """
        self._transport = transport
        self._config = config
        self._notices = notices
        self._instance = instance
        self._applied_sequence = applied_sequence
        self._clock = clock
        self._now = now
        self._random = random
        self._wake_up = wake_up
        self._housekeeping = housekeeping
        self._asked_s = asked_s
        self._watch = NOTHING
        self._breaker = breaker
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        # Guards _tally and what the breaker hears; nothing else is taken while it is held, but by
        # a signal handler that interrupts its owner and uses flags: so it can be taken again.
        self._lock = threading.RLock()
        if self._breaker is not None:
            self._breaker.reset()
        # A child looks for what its parent was told to, but remembers nobody.
        self._tally = Tally(self._watch)
        self.witnessed = self._tally.witnessed
        # Units of work that nobody has counted yet. Appending needs no lock; whoever holds the
        # lock may take from it.
        self.finished: deque[Finished] = deque()
        self.batch = 1  # without a thread every unit of work calls, which starts it
        self._wake = ReentrantEvent()  # set for whatever can't wait for the next second
        self._settled = threading.Condition()  # guards _settled_sequence
        self._settled_sequence = 0
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued_bytes = 0
        self._sequence = 0  # of the last summary made
        self._is_urgent = False
        now_s = self._clock()
        self._began_at = self._now()
        self._made_at = now_s
        self._sent_at = deque([now_s - 1.0] * _MAX_SENDS_A_SECOND, _MAX_SENDS_A_SECOND)
        self._retry_at = self._give_up_at = now_s
        self._failures = 0

    # --- called by the application's threads -----------------------------------------------

    def count_finished(self) -> None:
        """Count the units of work that wait. Never raises."""
        try:
            with self._lock:
                self._count_queue()
            if self._thread is None:
                self._wake_up()
        except Exception as error:  # the host's edge
            self._notices.tell("counting", "Units of work could not be counted: %r", error)

    def count_failed(self, scope: Scope, ended_ns: int) -> None:
        """Count a unit of work that failed. Never raises.

        Exposures and failures under one lock: a summary made between them would part them.
        """
        try:
            # A copy, as a thread that the scope has left behind may still add to it.
            served = dict(scope.served)
            duration_us = (ended_ns - scope.began_ns) // 1_000
            decided: Sequence[Evidence] = ()
            with self._lock:
                # They came first, which is what looking at units goes by. A stray thread that
                # still adds to a scope may spoil that one's count, but not this failure's.
                with suppress(RuntimeError):
                    self._count_queue()
                is_worth_telling = self._tally.record(
                    served,
                    scope.context,
                    scope.flag_set.unit_key,
                    duration_us,
                    scope.failures,
                    ended_ns / 1e9,
                )
                if self._breaker is not None:
                    decided = self._breaker.hear(scope.flag_set, self._tally, self._clock())
            if decided and self._breaker is not None:
                self._breaker.act(decided)
            if is_worth_telling or decided:
                self.hurry()
            if self._thread is None:
                self._wake_up()
        except Exception as error:  # the host's edge: reading the context may run any code
            self._notices.tell("counting", "A unit of work could not be counted: %r", error)

    def _count_queue(self) -> None:
        """Count what waits; the caller holds the lock."""
        self._tally.count_all(self.finished)
        self.witnessed = self._tally.witnessed

    def unscoped(self, flag: str) -> None:
        """Count an evaluation outside any scope; takes no lock, as `Tally.unscoped` needs none."""
        self._tally.unscoped(flag)
        if self._thread is None:
            self._wake_up()

    def hurry(self) -> None:
        """Ask for a summary at once. Never blocks."""
        self._is_urgent = True
        self._wake.set()

    def flush(self, timeout_s: float) -> bool:
        """Send what was counted up to now; return whether the server has answered all of it."""
        with self._lock:
            self._count_queue()
            target = self._sequence + self._tally.has_news
        self.hurry()
        with self._settled:
            return self._settled.wait_for(lambda: self._settled_sequence >= target, timeout_s)

    # --- the thread -------------------------------------------------------------------------

    def start(self) -> None:
        """See `Worker.start`."""
        super().start()
        self.batch = _BATCH

    def stop(self, patience_s: float = 0.0) -> None:
        """Tell the thread to send what it has and to end. Does not wait.

        Args:
            patience_s: for so long it may try again, where the server was there before: that it
                restarts in this moment must not cost the last counts.
        """
        if self._applied_sequence():
            self._give_up_at = self._clock() + patience_s
        self._stopping.set()
        self._wake.set()

    def _run(self) -> None:
        stopping = self._stopping
        while not self._is_over(stopping):
            delay_s = self._guarded(self.step)
            self._wake.wait(delay_s)
            self._wake.clear()
        if stopping is self._stopping:
            self._guarded(self.finish)

    def _guarded(self, work: Callable[[], float]) -> float:
        try:
            return work()
        except Exception as error:  # the thread's edge: it must outlive any fault of ours
            self._notices.crash("report:internal", "Reporting failed: %r", error)
            return self._config.heartbeat_interval_s

    def step(self) -> float:
        """Make and send at most one summary, where due; return the seconds until the next step."""
        self._housekeeping()
        now_s = self._clock()
        if self._is_due(now_s):
            self._make_summary(now_s)
        if self._queue and now_s >= self._can_send_at:
            self._send()
        delay_s = self._config.report_interval_s
        if self._queue or self._is_urgent:
            delay_s = min(delay_s, self._can_send_at - self._clock())
        return max(0.0, delay_s)

    def finish(self) -> float:
        """Send everything, without waiting between; what fails to the end is lost."""
        self._housekeeping()
        if self._has_news:
            self._make_summary(self._clock())
        while self._queue and (self._send() or self._is_worth_waiting()):
            pass
        return 0.0

    def _is_worth_waiting(self) -> bool:
        """Wait for the next attempt, unless that comes too late, as in an outage of some time."""
        if self._retry_at >= self._give_up_at:
            return False
        self._failures = 0
        self._wake.clear()
        self._wake.wait(max(0.0, self._retry_at - self._clock()))
        return True

    def _is_due(self, now_s: float) -> bool:
        if self._is_full:
            return False  # nothing is lost: the tally goes on counting
        age_s = now_s - self._made_at
        if self._queue:
            return self._has_news and age_s >= _QUEUE_INTERVAL_S
        if self._is_urgent:
            return now_s >= self._can_send_at
        if self._has_news:
            return age_s >= self._config.report_interval_s
        return age_s >= self._config.heartbeat_interval_s

    @property
    def _can_send_at(self) -> float:
        return max(self._retry_at, self._sent_at[0] + 1.0)

    @property
    def _has_news(self) -> bool:
        return bool(self.finished) or self._tally.has_news

    @property
    def _is_full(self) -> bool:
        return len(self._queue) >= MAX_QUEUED_SUMMARIES or self._queued_bytes >= MAX_QUEUED_BYTES

    def _make_summary(self, now_s: float) -> None:
        self._is_urgent = False
        with self._lock:
            self._count_queue()
            counts = self._tally.take()
            self._sequence += 1
            if self._breaker is not None:
                self._breaker.note(counts.cells, now_s)
        ended_at = self._now()
        text = json.dumps(
            self._document(counts, ended_at), ensure_ascii=False, separators=(",", ":")
        )
        body = text.encode("utf-8", "replace")
        self._began_at, self._made_at = ended_at, now_s
        self._queue.append((self._sequence, body))
        self._queued_bytes += len(body)

    def _document(self, counts: Counts, ended_at: datetime) -> dict[str, object]:
        return {
            "instance": self._instance(),
            "sequence": self._sequence,
            "service": self._config.service,
            "service_version": self._config.service_version,
            "applied_sequence": self._applied_sequence(),
            "started_at": rfc3339(self._began_at),
            "ended_at": rfc3339(ended_at),
            **counts.document(),
            "local_kills": [] if self._breaker is None else self._breaker.report(),
        }

    def _send(self) -> bool:
        """Send the oldest summary; return whether it is off the queue."""
        sequence, body = self._queue[0]
        try:
            reply = self._transport.send_summary(body)
        except TransportError as error:
            self._sent_at.append(self._clock())
            if not _is_refusal(error):
                self._failures += 1
                self._retry_at = self._clock() + self._delay_s(error)
                self._tell(error)
                return False
            # It will never be taken, and must not keep the ones behind it.
            self._notices.tell(
                "report:refused", "The flag server refused a summary (%s); it is dropped", error
            )
            with self._lock:
                self._tally.drop("summaries")
        else:
            self._sent_at.append(self._clock())
            self._notices.settle("report", "Reporting to the flag server works again")
            self._look_for(self._watch.after(reply))
            if self._breaker is not None and self._breaker.take_reply(reply):
                self.hurry()
            refused = reply.get("refused")
            if refused:
                self._notices.tell(
                    "refused", "The flag server did not count all of a summary: %.500s", refused
                )
        self._failures = 0
        self._queue.popleft()
        self._queued_bytes -= len(body)
        with self._settled:
            self._settled_sequence = sequence
            self._settled.notify_all()
        return True

    def _look_for(self, watch: Watch) -> None:
        if watch != self._watch:
            self._watch = watch
            with self._lock:
                self._tally.watch(watch)
                self.witnessed = self._tally.witnessed

    def _delay_s(self, error: TransportError) -> float:
        backoff = self._config.backoff
        return backoff.delay_after_s(error, self._failures, self._random(), self._asked_s())

    def _tell(self, error: TransportError) -> None:
        self._notices.tell(
            f"report:{type(error).__name__}{getattr(error, 'status', '')}",
            "Counts can't be reported (%s); they are kept and sent again",
            error,
        )


def _is_refusal(error: TransportError) -> bool:
    """Whether this summary, and not the server's state or the token, is at fault."""
    return isinstance(error, StatusError) and error.status in _REFUSED_SUMMARY
