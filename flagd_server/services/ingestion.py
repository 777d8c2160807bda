"""Takes telemetry in: durable before it is acknowledged, counted once, judged as it arrives.

One writer thread stores whatever summaries are waiting in one transaction, so that the price of a
durable commit is shared by all of them. The guard runs inside that transaction.
"""

import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cachetools import LRUCache

from flagd_server.clock import Clock
from flagd_server.domain.allowance import EXPOSURES_OF_INSTANCE, Allowance
from flagd_server.domain.faults import Fault
from flagd_server.domain.guard import records
from flagd_server.domain.telemetry import Cell, Summary
from flagd_server.errors import NotFoundError, StorageError, StorageUnavailableError
from flagd_server.services.claims import OTHER, Claims
from flagd_server.services.guarding import Guarding
from flagd_server.services.receipts import Receipts
from flagd_server.services.served_versions import ServedSplit, ServedVersions
from flagd_server.services.thresholds import Thresholds, oldest_minute
from flagd_server.services.turns import Turns
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
_LARGEST_HASH = (1 << 64) - 1


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
        exposed_below: units whose hash is below it are to be reported when they are first exposed;
            64 bits.
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


class _Process:
    """What the writer thread knows of an instance.

    Attributes:
        last: number of its last summary; None where only the storage knows.
        since: when it was first heard of.
    """

    __slots__ = ("exposures", "last", "since")

    def __init__(self, at: float) -> None:
        self.last: int | None = None
        self.since = at
        self.exposures = Allowance(EXPOSURES_OF_INSTANCE, at)


@dataclass(slots=True)
class _Batch:
    """What one transaction adds up before it writes."""

    counts: list[CountRow] = field(default_factory=list)
    error_kinds: list[ErrorKindRow] = field(default_factory=list)
    latencies: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    newest: dict[tuple[str, str], Summary] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)  # environments that the guard has looked at
    answers: list[tuple[_Waiting, Accepted]] = field(default_factory=list)


class Ingestion:
    """`submit` may be called by any thread; one thread of its own writes.

    Args:
        retention: how long counts and the events of ended lives are kept.
    """

    def __init__(
        self,
        storage: Storage,
        guarding: Guarding,
        receipts: Receipts,
        turns: Turns,
        claims: Claims,
        clock: Clock,
        retention: timedelta = timedelta(days=30),
    ) -> None:
        self._storage = storage
        self._guarding = guarding
        self._receipts = receipts
        self._turns = turns
        self._claims = claims
        self._clock = clock
        self._retention = retention
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        # Touched by the writer thread only.
        self._pruned_at: datetime | None = None
        self._processes: LRUCache[tuple[str, str], _Process] = LRUCache(_INSTANCES_REMEMBERED)
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
        self._turns.require(environment, token, summary.instance)
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
        for process in self._processes.values():
            process.last = None
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
            tx.add_control_latencies(self._measured(tx, batch, int(at // 60)))
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
            self._processes.clear()
            for remembered in (self._versions, self._thresholds):
                remembered.forget()
            self._guarding.forget()
        return True

    def _count(self, tx: Transaction, batch: _Batch, waiting: _Waiting, at: float) -> Accepted:
        environment, summary = waiting.environment, waiting.summary
        key = (environment, summary.instance)
        try:
            process = self._processes[key]
        except KeyError:
            process = self._processes[key] = _Process(at)
        if process.last is None:
            process.last = tx.last_sequence(environment, summary.instance) or 0
        is_duplicate = summary.sequence <= process.last
        accepted = 0
        refused: tuple[Fault, ...] = ()
        if not is_duplicate:
            process.last = summary.sequence
            batch.newest[key] = summary
            accepted, refused = self._count_cells(tx, batch, waiting, at, process)
        return Accepted(
            accepted,
            is_duplicate,
            refused,
            self._receipts.processes(environment),
            self._thresholds.slow_over_s(tx, environment, summary.service, int(at // 60)),
            min(self._guarding.exposed_below(environment), _LARGEST_HASH),
        )

    def _count_cells(
        self, tx: Transaction, batch: _Batch, waiting: _Waiting, at: float, process: _Process
    ) -> tuple[int, tuple[Fault, ...]]:
        """Count what can be believed; return how many cells that is, and all that is refused."""
        environment, summary, token = waiting.environment, waiting.summary, waiting.token
        believable, unknown = self._versions.sort_out(tx, environment, summary)
        good, too_many = self._claims.within_exposures(
            tx, environment, token, summary.instance, believable, process.exposures, at
        )
        minute = int(at // 60)
        hour = minute // 60
        is_heard = token.kind != CLIENT_KIND
        if is_heard and environment not in batch.guarded:
            batch.guarded.add(environment)
            self._guarding.take_notice(tx, environment, at)
        by_flag: dict[str, list[records.Cell]] = {}
        for flag, cells in good.items():
            release = self._claims.release(tx, environment, token, flag, summary, hour)
            batch.counts += [_count_row(environment, release, each.cell, minute) for each in cells]
            in_split = [(each.cell, each.split) for each in cells if each.split is not None]
            if not is_heard:
                continue
            _measure(batch, environment, release[0], in_split)
            if self._guarding.is_guarded(environment, flag):
                by_flag[flag] = [
                    records.Cell(
                        split=each.cell.split,
                        variant=each.cell.variant,
                        weights={} if each.split is None else each.split.weights,
                        config_version=each.cell.config_version,
                        instance=summary.instance,
                        exposures=each.cell.exposures,
                        errors=each.cell.errors,
                        units=self._claims.units(
                            tx, environment, token, flag, each.cell.units, hour
                        ),
                        service=release[0],
                        service_version=release[1],
                        instance_since=process.since,
                        token=token.id,
                    )
                    for each in cells
                ]
        # Error kinds are for people, who read them beside the guard's evidence: so they are kept of
        # those only whom the guard hears, and for the flags that the summary counts as well.
        batch.error_kinds += [
            ErrorKindRow(
                environment, row.flag, row.variant, row.kind, row.where, row.count, row.sample
            )
            for row in (summary.error_kinds if is_heard else ())
            if row is not None and row.flag in good
        ]
        if is_heard:
            self._guarding.observe(tx, environment, at, by_flag)
        accepted = sum([len(cells) for cells in good.values()])
        return accepted, (*summary.refused, *unknown, *too_many)

    def _measured(self, tx: Transaction, batch: _Batch, minute: int) -> list[LatencyRow]:
        """Add the batch's latencies to those behind the thresholds; return what is to be stored."""
        rows = []
        for (environment, service), latency in batch.latencies.items():
            if self._thresholds.add(tx, environment, service, minute, latency):
                rows.append(LatencyRow(environment, service, minute, latency))
            else:
                self._claims.cap_services(tx, environment, service)
        return rows


def _measure(
    batch: _Batch, environment: str, service: str, in_split: Sequence[tuple[Cell, ServedSplit]]
) -> None:
    """Note how long the controls' exposures took."""
    for cell, split in in_split:
        if cell.variant == split.measured and cell.latency and service != OTHER:
            buckets = batch.latencies.setdefault((environment, service), {})
            for bucket, count in cell.latency.items():
                buckets[bucket] = buckets.get(bucket, 0) + count


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
