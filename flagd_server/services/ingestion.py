"""Takes telemetry in: durable before it is acknowledged, counted once, judged as it arrives.

One writer thread stores whatever summaries are waiting in one transaction, so that the price of a
durable commit is shared by all of them. The guard runs inside that transaction.
"""

import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cachetools import LRUCache

from flagd_server.clock import Clock
from flagd_server.domain.faults import Fault
from flagd_server.domain.guard import records
from flagd_server.domain.telemetry import Cell, Summary
from flagd_server.errors import NotFoundError, StorageError, StorageUnavailableError
from flagd_server.services.guarding import Guarding
from flagd_server.services.receipts import Receipts
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.records import CountRow, ErrorKindRow, Token

logger = logging.getLogger(__name__)

CLIENT_KIND = "client"
_MAX_BATCH = 256
_MAX_WAITING = 4_096
# A summary waits for its turn and one commit; longer means that the disk has stopped.
_ACKNOWLEDGE_WITHIN_S = 20.0
_PRUNE_EVERY = timedelta(hours=1)
_INSTANCES_REMEMBERED = 100_000
_VERSIONS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a summary.

    Attributes:
        accepted: how many of its cells were counted.
        duplicate: it had been counted before; nothing was counted now.
        refused: cells that name something the server does not know, one fault each.
        processes: how many processes report in the environment.
        slow_over_s: latency thresholds in seconds by kind; empty while none is set.
    """

    accepted: int
    duplicate: bool
    refused: tuple[Fault, ...]
    processes: int
    slow_over_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Waiting:
    environment: str
    token: Token
    summary: Summary
    done: Future[Accepted]


@dataclass(frozen=True, slots=True)
class _Version:
    """What a cell may name of one configuration version."""

    variants: frozenset[str]
    splits: Mapping[str, Mapping[str, int]]

    def refuse(self, cell: Cell) -> tuple[str, str] | None:
        """Return (field, message) for a cell that this version cannot have served."""
        if cell.variant not in self.variants:
            return "variant", f"expected a variant of that version, got {cell.variant!r}"
        if cell.split is None:
            return None
        weights = self.splits.get(cell.split)
        if weights is None:
            return "split", f"expected a split of that version, got {cell.split!r}"
        if not weights.get(cell.variant):
            return "variant", f"expected one with weight in {cell.split!r}, got {cell.variant!r}"
        return None


@dataclass(slots=True)
class _Batch:
    """What one transaction adds up before it writes."""

    counts: list[CountRow] = field(default_factory=list)
    error_kinds: list[ErrorKindRow] = field(default_factory=list)
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
        clock: Clock,
        retention: timedelta = timedelta(days=30),
    ) -> None:
        self._storage = storage
        self._guarding = guarding
        self._receipts = receipts
        self._clock = clock
        self._retention = retention
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        # Touched by the writer thread only.
        self._pruned_at: datetime | None = None
        self._counted: LRUCache[tuple[str, str], int] = LRUCache(_INSTANCES_REMEMBERED)
        self._first_seen: LRUCache[tuple[str, str], float] = LRUCache(_INSTANCES_REMEMBERED)
        self._versions: LRUCache[tuple[str, str, int], _Version] = LRUCache(_VERSIONS_REMEMBERED)
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
            StorageUnavailableError: it could not be stored, or not in time, or too much is
                waiting. It may be sent again: should it have been counted, it is a duplicate.
            NotFoundError: the environment was deleted.
        """
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
        except StorageError:
            logger.exception("old telemetry could not be deleted; tried again in an hour")

    def _start_over(self, error: Exception) -> None:
        """Forget what a failed transaction may have left in memory; the storage is the truth."""
        if not isinstance(error, StorageUnavailableError):
            logger.error("a batch of summaries failed and is tried one by one", exc_info=error)
        self._counted.clear()
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
            for cache in (self._counted, self._first_seen, self._versions):
                cache.clear()
            self._guarding.forget()
        return True

    def _count(self, tx: Transaction, batch: _Batch, waiting: _Waiting, at: float) -> Accepted:
        environment, summary = waiting.environment, waiting.summary
        key = (environment, summary.instance)
        processes = self._receipts.processes(environment)
        last = self._counted.get(key)
        if last is None:
            last = tx.last_sequence(environment, summary.instance) or 0
        since = self._first_seen.setdefault(key, at)
        if summary.sequence <= last:
            self._counted[key] = last
            return Accepted(0, True, (), processes)
        self._counted[key] = summary.sequence
        batch.newest[key] = summary
        good, refused = self._sort_out(tx, environment, summary)
        # Error kinds are for people; they are kept for the flags that the summary counts as well.
        counted_flags = {cell.flag for cell, _ in good}
        minute = int(at // 60)
        batch.counts += [_count_row(environment, summary, cell, minute) for cell, _ in good]
        batch.error_kinds += [
            ErrorKindRow(
                environment, row.flag, row.variant, row.kind, row.where, row.count, row.sample
            )
            for row in summary.error_kinds
            if row.flag in counted_flags
        ]
        if waiting.token.kind != CLIENT_KIND:
            by_flag: dict[str, list[records.Cell]] = {}
            for cell, weights in good:
                if weights is not None:
                    guarded = _guard_cell(summary, cell, weights, since)
                    by_flag.setdefault(cell.flag, []).append(guarded)
            if environment not in batch.guarded:
                batch.guarded.add(environment)
                self._guarding.take_notice(tx, environment, at)
            self._guarding.observe(tx, environment, at, by_flag)
        return Accepted(len(good), False, tuple(refused), processes)

    def _sort_out(
        self, reader: Reader, environment: str, summary: Summary
    ) -> tuple[list[tuple[Cell, Mapping[str, int] | None]], list[Fault]]:
        """Return the believable cells with their split's weights, and the faults of the others."""
        good: list[tuple[Cell, Mapping[str, int] | None]] = []
        refused = []
        for index, cell in enumerate(summary.cells):
            version = self._version(reader, environment, cell.flag, cell.config_version)
            if version is None:
                message = (
                    f"expected a configuration version of flag {cell.flag!r} in {environment}, "
                    f"got {cell.config_version}"
                )
                refused.append(Fault(f"cells[{index}].config_version", message))
            elif (refusal := version.refuse(cell)) is not None:
                refused.append(Fault(f"cells[{index}].{refusal[0]}", refusal[1]))
            else:
                good.append((cell, None if cell.split is None else version.splits[cell.split]))
        return good, refused

    def _version(self, reader: Reader, environment: str, flag: str, number: int) -> _Version | None:
        key = (environment, flag, number)
        version = self._versions.get(key)
        if version is None:
            row = reader.configuration_version(environment, flag, number)
            if row is None:
                return None
            version = _Version(frozenset(row.variants), row.configuration.split_weights())
            self._versions[key] = version
        return version


def _count_row(environment: str, summary: Summary, cell: Cell, minute: int) -> CountRow:
    return CountRow(
        environment,
        cell.flag,
        cell.split,
        cell.variant,
        cell.config_version,
        summary.service,
        summary.service_version,
        minute,
        cell.exposures,
        cell.errors,
        cell.latency,
    )


def _guard_cell(
    summary: Summary, cell: Cell, weights: Mapping[str, int], since: float
) -> records.Cell:
    return records.Cell(
        split=cell.split,
        variant=cell.variant,
        weights=weights,
        config_version=cell.config_version,
        instance=summary.instance,
        exposures=cell.exposures,
        errors=cell.errors,
        units=cell.units,
        service=summary.service,
        service_version=summary.service_version,
        instance_since=since,
    )
