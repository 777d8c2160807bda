"""Takes telemetry in: durable before it is acknowledged, counted once, judged as it arrives.

One writer thread stores whatever summaries are waiting in one transaction, so that the price of a
durable commit is shared by all of them. The guard runs inside that transaction.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cachetools import LRUCache

from flagd_server.clock import Clock
from flagd_server.domain.faults import Fault
from flagd_server.domain.guard import records
from flagd_server.domain.telemetry import Cell, Summary
from flagd_server.errors import NotFoundError, StorageError, StorageUnavailableError
from flagd_server.services.admission import OTHER, Admission
from flagd_server.services.guarding import Guarding
from flagd_server.services.receipts import Receipts
from flagd_server.services.served_versions import BelievableCell, ServedVersions
from flagd_server.services.thresholds import Thresholds, oldest_minute
from flagd_server.storage.base import Storage, Transaction
from flagd_server.storage.records import CountRow, ErrorKindRow, LatencyRow, Token

logger = logging.getLogger(__name__)

CLIENT_KIND = "client"
_MAX_BATCH = 256
_MAX_WAITING = 4_096
# A summary waits for its turn and one commit; longer means that the disk has stopped.
_ACKNOWLEDGE_WITHIN_S = 20.0
_PRUNE_EVERY = timedelta(hours=1)
_INSTANCES_REMEMBERED = 100_000
_HASH_SPACE = 1 << 64
# Of the units, whichever side they are on: enough for the sample ratio, and few enough to send.
EXPOSED_BELOW = _HASH_SPACE // 4


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a summary.

    Attributes:
        accepted: how many of its cells were counted.
        duplicate: it had been counted before; nothing was counted now.
        refused: what is wrong with the cells and error kinds that were not counted.
        processes: how many processes report in the environment.
        slow_over_s: latency thresholds of the reporting service, in seconds by quantile; empty
            while none is known.
        exposed_below: units whose hash is below it are to be reported when they are first exposed.
    """

    accepted: int
    duplicate: bool
    refused: tuple[Fault, ...]
    processes: int
    slow_over_s: Mapping[str, float]
    exposed_below: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    environment: str
    token: Token
    summary: Summary
    done: Future[Accepted]


@dataclass(slots=True)
class _Batch:
    """What one transaction adds up before it writes."""

    counts: list[CountRow] = field(default_factory=list)
    error_kinds: list[ErrorKindRow] = field(default_factory=list)
    latencies: list[LatencyRow] = field(default_factory=list)
    newest: dict[tuple[str, str], Summary] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)  # environments that the guard has looked at
    answers: list[tuple[_Waiting, Accepted]] = field(default_factory=list)


class Ingestion:
    """`submit` may be called by any thread; one thread of its own writes.

    Args:
        retention: how long counts and the events of ended lives are kept.
        exposed_below: (environment) → see `Accepted`.
    """

    def __init__(
        self,
        storage: Storage,
        guarding: Guarding,
        receipts: Receipts,
        admission: Admission,
        clock: Clock,
        retention: timedelta = timedelta(days=30),
        exposed_below: Callable[[str], int] = lambda environment: EXPOSED_BELOW,
    ) -> None:
        self._storage = storage
        self._guarding = guarding
        self._receipts = receipts
        self._admission = admission
        self._exposed_below = exposed_below
        self._clock = clock
        self._retention = retention
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        # Touched by the writer thread only.
        self._pruned_at: datetime | None = None
        self._counted: LRUCache[tuple[str, str], int] = LRUCache(_INSTANCES_REMEMBERED)
        self._first_seen: LRUCache[tuple[str, str], float] = LRUCache(_INSTANCES_REMEMBERED)
        self._versions = ServedVersions()
        self._thresholds = Thresholds()
        # Tells an environment from one that was deleted and had the same key.
        self._unit_keys: dict[str, bytes] = {}

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
            self._waiting.put(None)
            self._thread.join(timeout_s)
            self._thread = None

    def submit(self, environment: str, token: Token, summary: Summary) -> Accepted:
        """Store one summary; returns when it is durable.

        Raises:
            TooManyReportsError: its sender has sent too many.
            StorageUnavailableError: it could not be stored, or not in time, or too much is
                waiting. It may be sent again: should it have been counted, it is a duplicate.
            NotFoundError: the environment was deleted.
        """
        self._admission.require_turn(environment, token, summary.instance)
        self._receipts.applied(environment, summary.instance, summary.applied_sequence)
        done: Future[Accepted] = Future()
        try:
            self._waiting.put_nowait(_Waiting(environment, token, summary, done))
        except queue.Full:
            raise StorageUnavailableError("too many summaries are waiting to be stored") from None
        try:
            return done.result(_ACKNOWLEDGE_WITHIN_S)
        except TimeoutError:
            raise StorageUnavailableError("the summary was not stored in time") from None

    def _run(self) -> None:
        for batch in self._batches():
            try:
                self._store(batch)
            except Exception as error:
                self._start_over(error)
                self._one_by_one(batch, error)
            self._prune()

    def _batches(self) -> Iterator[list[_Waiting]]:
        """Yield whatever is waiting, at least one, until the end marker."""
        while (first := self._waiting.get()) is not None:
            batch = [first]
            try:
                while len(batch) < _MAX_BATCH:
                    following = self._waiting.get_nowait()
                    if following is None:
                        yield batch
                        return
                    batch.append(following)
            except queue.Empty:
                pass
            yield batch

    def _one_by_one(self, batch: list[_Waiting], error: Exception) -> None:
        """Keep one summary that can't be stored from taking the others down with it."""
        if len(batch) == 1:
            batch[0].done.set_exception(error)
            return
        for waiting in batch:
            try:
                self._store([waiting])
            except Exception as own_error:
                self._start_over(own_error)
                waiting.done.set_exception(own_error)

    def _prune(self) -> None:
        now = self._clock.now()
        if self._pruned_at is not None and now - self._pruned_at < _PRUNE_EVERY:
            return
        self._pruned_at = now
        try:
            with self._storage.transaction() as tx:
                tx.prune_telemetry(now - self._retention)
                tx.prune_control_latencies(oldest_minute(int(now.timestamp() // 60)))
        except StorageError:
            logger.exception("old telemetry could not be deleted; tried again in an hour")

    def _start_over(self, error: Exception) -> None:
        """Forget what a failed transaction may have left in memory; the storage is the truth."""
        if not isinstance(error, StorageUnavailableError):
            logger.error("a batch of summaries failed and is tried one by one", exc_info=error)
        self._counted.clear()
        self._thresholds.forget()
        self._guarding.forget()

    def _store(self, waiting: list[_Waiting]) -> None:
        now = self._clock.now()
        at = now.timestamp()
        batch = _Batch()
        with self._storage.transaction() as tx:
            known = {name: self._knows(tx, name) for name in {one.environment for one in waiting}}
            for one in waiting:
                if known[one.environment]:
                    batch.answers.append((one, self._count(tx, batch, one, at)))
                else:
                    one.done.set_exception(NotFoundError("environment", one.environment))
            tx.add_counts(batch.counts)
            tx.add_error_kinds(batch.error_kinds)
            tx.add_control_latencies(batch.latencies)
            for (environment, instance), summary in batch.newest.items():
                tx.upsert_instance(
                    environment,
                    instance,
                    summary.sequence,
                    summary.service,
                    summary.service_version,
                    summary.applied_sequence,
                    now,
                )
        for one, accepted in batch.answers:
            one.done.set_result(accepted)

    def _knows(self, tx: Transaction, environment: str) -> bool:
        """Return whether it exists; what was known of one that it replaces is forgotten."""
        record = tx.environment(environment)
        if record is None:
            return False
        if self._unit_keys.setdefault(environment, record.unit_key) != record.unit_key:
            self._unit_keys[environment] = record.unit_key
            for cache in (self._counted, self._first_seen):
                cache.clear()
            for remembered in (self._versions, self._thresholds):
                remembered.forget()
            self._guarding.forget()
        return True

    def _count(self, tx: Transaction, batch: _Batch, waiting: _Waiting, at: float) -> Accepted:
        environment, summary = waiting.environment, waiting.summary
        key = (environment, summary.instance)
        last = self._counted.get(key)
        if last is None:
            last = tx.last_sequence(environment, summary.instance) or 0
        since = self._first_seen.setdefault(key, at)
        is_duplicate = summary.sequence <= last
        accepted = 0
        refused: tuple[Fault, ...] = ()
        if is_duplicate:
            self._counted[key] = last
        else:
            self._counted[key] = summary.sequence
            batch.newest[key] = summary
            accepted, refused = self._count_cells(tx, batch, waiting, at, since)
        return Accepted(
            accepted,
            is_duplicate,
            refused,
            self._receipts.processes(environment),
            self._thresholds.slow_over_s(tx, environment, summary.service, int(at // 60)),
            self._exposed_below(environment),
        )

    def _count_cells(
        self, tx: Transaction, batch: _Batch, waiting: _Waiting, at: float, since: float
    ) -> tuple[int, tuple[Fault, ...]]:
        """Count what can be believed; return how many cells that is, and all that is refused."""
        environment, summary, token = waiting.environment, waiting.summary, waiting.token
        believable, unknown = self._versions.sort_out(tx, environment, summary)
        good, too_many = self._admission.within_exposures(
            tx, environment, token, summary, believable
        )
        minute = int(at // 60)
        is_heard = token.kind != CLIENT_KIND
        by_flag: dict[str, list[records.Cell]] = {}
        for each in good:
            cell = each.cell
            release = self._admission.release(tx, environment, cell.flag, summary)
            batch.counts.append(_count_row(environment, release, cell, minute))
            if is_heard and each.split is not None:
                self._measure(tx, batch, environment, release[0], each, minute)
                units = self._admission.units(tx, environment, cell.flag, cell.units)
                by_flag.setdefault(cell.flag, []).append(
                    records.Cell(
                        split=cell.split,
                        variant=cell.variant,
                        weights=each.split.weights,
                        config_version=cell.config_version,
                        instance=summary.instance,
                        exposures=cell.exposures,
                        errors=cell.errors,
                        units=units,
                        service=release[0],
                        service_version=release[1],
                        instance_since=since,
                        token=token.id,
                    )
                )
        # Error kinds are for people; they are kept for the flags that the summary counts as well.
        counted_flags = {each.cell.flag for each in good}
        batch.error_kinds += [
            ErrorKindRow(
                environment, row.flag, row.variant, row.kind, row.where, row.count, row.sample
            )
            for row in summary.error_kinds
            if row is not None and row.flag in counted_flags
        ]
        if is_heard:
            if environment not in batch.guarded:
                batch.guarded.add(environment)
                self._guarding.take_notice(tx, environment, at)
            self._guarding.observe(tx, environment, at, by_flag)
        return len(good), (*summary.refused, *unknown, *too_many)

    def _measure(
        self,
        tx: Transaction,
        batch: _Batch,
        environment: str,
        service: str,
        each: BelievableCell,
        minute: int,
    ) -> None:
        """Note how long the control's exposures took."""
        cell, split = each.cell, each.split
        if split is None or cell.variant != split.measured or not cell.latency or service == OTHER:
            return
        if self._thresholds.add(tx, environment, service, minute, cell.latency):
            batch.latencies.append(LatencyRow(environment, service, minute, cell.latency))
        else:
            self._admission.cap_services(tx, environment, service)


def _count_row(environment: str, release: tuple[str, str], cell: Cell, minute: int) -> CountRow:
    return CountRow(
        environment,
        cell.flag,
        cell.split,
        cell.variant,
        cell.config_version,
        *release,
        minute,
        cell.exposures,
        cell.errors,
        cell.latency,
    )
