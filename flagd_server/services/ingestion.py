"""Takes telemetry in: durable before it is acknowledged, counted once, judged as it arrives.

One writer thread stores whatever summaries are waiting in one transaction, so that the price of a
durable commit is shared by all of them. Where this server leads, the guard runs inside that
transaction, and what other servers have left in the inbox is worked off first; where it does not,
the summaries are left there for the one that does.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum

from flagd_server.clock import Clock
from flagd_server.domain.telemetry import Summary
from flagd_server.errors import NotLeadingError, StorageError, StorageUnavailableError
from flagd_server.services.counting import Counting
from flagd_server.services.inbox import SUMMARY, Inbox, waiting_of
from flagd_server.services.leader_requests import LeaderRequests
from flagd_server.services.receipts import Receipts
from flagd_server.services.reports import Accepted, Batch, Receipt, Waiting
from flagd_server.services.turns import Turns
from flagd_server.storage.base import Ledger, Transaction
from flagd_server.storage.records import Token
from flagd_server.storage.replicas import InboxItem

logger = logging.getLogger(__name__)

_MAX_BATCH = 256
_MAX_WAITING = 4_096
ACKNOWLEDGE_WITHIN_S = 20.0
"""A summary waits for its turn and one commit; longer means that the disk has stopped."""
_PRUNE_EVERY = timedelta(hours=1)
# When the inbox could not be worked off, nothing needs to come for another try.
_RETRY_S = 1.0


class _Signal(Enum):
    LOOK = "look whether this server leads, and into the inbox"
    STOP = "stop"


class Ingestion:
    """`submit` and `look` may be called by any thread; one thread of its own writes.

    Args:
        storage: the leader's, where there are several servers.
        leads: whether this server counts, or leaves it to another.
        retention: how long counts and the events of ended lives are kept.
    """

    def __init__(
        self,
        storage: Ledger,
        counting: Counting,
        inbox: Inbox,
        requests: LeaderRequests,
        receipts: Receipts,
        turns: Turns,
        clock: Clock,
        leads: Callable[[], bool] = lambda: True,
        retention: timedelta = timedelta(days=30),
    ) -> None:
        self._storage = storage
        self._counting = counting
        self._inbox = inbox
        self._requests = requests
        self._receipts = receipts
        self._turns = turns
        self._clock = clock
        self._leads = leads
        self._retention = retention
        self._waiting: queue.Queue[Waiting | _Signal] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        # Touched by the writer thread only.
        self._pruned_at: datetime | None = None
        self._owes_a_look = True

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many summaries wait for the writer."""
        return self._waiting.qsize()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flagd-ingestion", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Store what is waiting, then end the thread. Idempotent."""
        if self._thread is not None:
            self._waiting.put(_Signal.STOP)
            self._thread.join(timeout_s)
            self._thread = None

    def look(self) -> None:
        """Have the writer look whether this server leads now, and into the inbox."""
        with suppress(queue.Full):  # then it looks with the summaries that are waiting
            self._waiting.put_nowait(_Signal.LOOK)

    def submit(self, environment: str, token: Token, summary: Summary) -> Accepted:
        """Store one summary; returns when it is durable.

        Raises:
            ServerError: as `begin` and `settled`.
        """
        return self.settled(self.begin(environment, token, summary), ACKNOWLEDGE_WITHIN_S)

    def begin(
        self,
        environment: str,
        token: Token,
        summary: Summary,
        on_settled: Callable[[], None] | None = None,
    ) -> Receipt:
        """Have one summary stored.

        Args:
            on_settled: told by the writer when it is durable, or can't be stored.

        Raises:
            TooManyReportsError: its sender has sent too many.
            StorageUnavailableError: too much is waiting.
        """
        self._turns.require(environment, token, summary.instance)
        self._receipts.applied(environment, summary.instance, summary.applied_sequence)
        receipt = Receipt(on_settled)
        try:
            self._waiting.put_nowait(Waiting(environment, token, summary, receipt))
        except queue.Full:
            raise StorageUnavailableError("too many summaries are waiting to be stored") from None
        return receipt

    def settled(self, receipt: Receipt, timeout_s: float = 0.0) -> Accepted:
        """Return what became of a summary.

        Raises:
            StorageUnavailableError: it could not be stored, or not in time. It may be sent again:
                should it have been counted, it is a duplicate.
            NotFoundError: the environment was deleted.
        """
        try:
            return receipt.result(timeout_s)
        except TimeoutError:
            raise StorageUnavailableError("the summary was not stored in time") from None

    def _run(self) -> None:
        for batch in self._batches():
            if self._leads():
                self._take_in(batch)
                self._prune()
            else:
                self._shelve(batch)

    def _batches(self) -> Iterator[list[Waiting]]:
        """Yield whatever is waiting, or nothing where only a look is due, until the end marker."""
        is_stopped = False
        while not is_stopped:
            batch: list[Waiting] = []
            for each in self._arrived():
                if isinstance(each, Waiting):
                    batch.append(each)
                elif each is _Signal.LOOK:
                    self._owes_a_look = True
                else:
                    is_stopped = True
                    break
            if batch or not is_stopped:
                yield batch

    def _arrived(self) -> Iterator[Waiting | _Signal]:
        """Yield the first that comes and whatever is there by then; nothing once a look is due."""
        try:
            yield self._waiting.get(timeout=_RETRY_S if self._owes_a_look else None)
            for _ in range(_MAX_BATCH - 1):
                yield self._waiting.get_nowait()
        except queue.Empty:
            return

    def _take_in(self, waiting: list[Waiting]) -> None:
        """Count what is in the inbox, then what is waiting here."""
        try:
            while self._store_with_inbox(waiting):
                pass
            self._owes_a_look = False
        except NotLeadingError:
            self._shelve(waiting)
        except StorageUnavailableError as error:
            self._counting.forget()
            _fail(waiting, error)
        except Exception as error:
            logger.error("a batch of summaries failed and is tried one by one", exc_info=error)
            self._counting.forget()
            self._one_by_one(waiting)

    def _store_with_inbox(self, waiting: list[Waiting]) -> bool:
        """Store in one transaction; where more is left in the inbox, return True.

        What is waiting here has to wait on then: it may follow on what was left there.
        """
        now = self._clock.now()
        with self._storage.transaction() as tx:
            items = tx.inbox(_MAX_BATCH)
            is_more = len(items) == _MAX_BATCH
            batch = self._work_off(tx, items, [] if is_more else waiting, now)
        self._answer(batch, now)
        return is_more

    def _work_off(
        self, tx: Transaction, items: Sequence[InboxItem], waiting: list[Waiting], now: datetime
    ) -> Batch:
        shelved = [waiting_of(tx, item) for item in items if item.kind == SUMMARY]
        batch = self._counting.count(tx, shelved + waiting, now)
        for item in items:
            if item.kind != SUMMARY:
                self._requests.do(tx, item)
        if items:
            tx.delete_inbox([item.key for item in items])
        return batch

    def _answer(self, batch: Batch, now: datetime) -> None:
        self._counting.counted(batch, now)
        for one, answer in batch.answers:
            one.answer(answer)

    def _one_by_one(self, waiting: list[Waiting]) -> None:
        """Keep one that can't be stored from taking the others down with it."""
        try:
            while self._settle_inbox():
                pass
        except StorageUnavailableError as error:
            _fail(waiting, error)
            return
        except NotLeadingError:
            self._shelve(waiting)
            return
        for one in waiting:
            now = self._clock.now()
            try:
                with self._storage.transaction() as tx:
                    batch = self._work_off(tx, (), [one], now)
                self._answer(batch, now)
            except NotLeadingError:
                self._shelve([one])
            except Exception as error:
                self._counting.forget()
                one.answer(error)

    def _settle_inbox(self) -> bool:
        """Work the inbox off item by item; return whether more is left.

        What can't be worked off is kept where it stands in nobody's way.
        """
        with self._storage.read() as reader:
            items = reader.inbox(_MAX_BATCH)
        for item in items:
            now = self._clock.now()
            try:
                with self._storage.transaction() as tx:
                    batch = self._work_off(tx, [item], [], now)
                self._answer(batch, now)
            except (NotLeadingError, StorageUnavailableError):
                self._counting.forget()
                raise
            except Exception:
                self._counting.forget()
                logger.exception("%s of the inbox can't be worked off and is set aside", item.key)
                with self._storage.transaction() as tx:
                    tx.set_inbox_aside(item.key)
        return len(items) == _MAX_BATCH

    def _shelve(self, waiting: list[Waiting]) -> None:
        """Leave the summaries to the server that leads."""
        self._owes_a_look = False
        if not waiting:
            return
        try:
            self._inbox.shelve(waiting)
        except Exception as error:
            if not isinstance(error, StorageUnavailableError):
                logger.exception("a batch of summaries could not be kept for the leader")
            _fail(waiting, error)

    def _prune(self) -> None:
        now = self._clock.now()
        if self._pruned_at is not None and now - self._pruned_at < _PRUNE_EVERY:
            return
        self._pruned_at = now
        try:
            with self._storage.transaction() as tx:
                self._counting.prune(tx, int(now.timestamp() // 60), now - self._retention)
        except StorageError:
            logger.exception("old telemetry could not be deleted; tried again in an hour")


def _fail(waiting: Sequence[Waiting], error: Exception) -> None:
    for one in waiting:
        one.answer(error)
