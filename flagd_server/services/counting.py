"""Counts summaries, within the transaction that makes them durable: the leader's part of telemetry.

What it remembers between transactions is what the storage has, and is dropped where the storage may
know better: after a transaction that failed, and when this server begins to lead.
"""

from collections.abc import Sequence
from datetime import datetime

from cachetools import LRUCache

from flagd_server.domain.faults import Fault
from flagd_server.domain.guard import records
from flagd_server.domain.telemetry import Cell
from flagd_server.errors import NotFoundError
from flagd_server.services.claims import OTHER, Claims
from flagd_server.services.exposure_tally import ExposureTally
from flagd_server.services.guarding import Guarding
from flagd_server.services.hints import LARGEST_HASH, AnnouncedHints
from flagd_server.services.local_kills import LocalKills
from flagd_server.services.receipts import Receipts
from flagd_server.services.releases import Releases
from flagd_server.services.reports import Accepted, Batch, Process, Waiting
from flagd_server.services.served_versions import ServedSplit, ServedVersions
from flagd_server.services.service_tally import oldest_counts
from flagd_server.services.thresholds import Thresholds, oldest_minute
from flagd_server.storage.base import Transaction
from flagd_server.storage.telemetry_records import CountRow, ErrorKindRow, Instance, LatencyRow

CLIENT_KIND = "client"
_INSTANCES_REMEMBERED = 100_000


class Counting:
    """Used by the thread that writes telemetry; `forget` is for it too.

    Args:
        tally: told of what the guard hears once it is durable.
    """

    def __init__(
        self,
        guarding: Guarding,
        receipts: Receipts,
        claims: Claims,
        local_kills: LocalKills,
        hints: AnnouncedHints | None = None,
        tally: ExposureTally | None = None,
    ) -> None:
        self._guarding = guarding
        self._receipts = receipts
        self._claims = claims
        self._local_kills = local_kills
        self._hints = AnnouncedHints() if hints is None else hints
        self._tally = ExposureTally() if tally is None else tally
        self._processes: LRUCache[tuple[str, str], Process] = LRUCache(_INSTANCES_REMEMBERED)
        self._versions = ServedVersions()
        self._releases = Releases(claims)
        self._thresholds = Thresholds()
        # Tells an environment from one that was deleted and had the same key.
        self._unit_keys: dict[str, bytes] = {}

    def forget(self) -> None:
        """Drop what is in memory and the storage may know better."""
        for process in self._processes.values():
            process.last = process.counted_at = None
        self._thresholds.forget()
        self._local_kills.forget()
        self._releases.forget()
        self._guarding.forget()
        self._hints.forget()

    def tell_hints_again(self) -> None:
        """Announce what SDKs are told once more; for any thread."""
        self._hints.forget()

    def count(self, tx: Transaction, waiting: Sequence[Waiting], now: datetime) -> Batch:
        """Count each summary, let the guard judge it, and write; the answers are in the batch.

        They may be given once the transaction is durable, and `counted` is to be called then.
        """
        at = now.timestamp()
        batch = Batch()
        known = {name: self._knows(tx, name) for name in {one.environment for one in waiting}}
        processes = self._recalled(tx, [one for one in waiting if known[one.environment]], at)
        for one in waiting:
            if known[one.environment]:
                process = processes[one.environment, one.summary.instance]
                batch.answers.append((one, self._count(tx, batch, one, now, process)))
            else:
                batch.answers.append((one, NotFoundError("environment", one.environment)))
        tx.add_counts(batch.counts)
        _store_error_kinds(tx, batch)
        tx.add_service_counts(batch.services.rows(int(at // 60)))
        tx.add_control_latencies(self._measured(tx, batch, int(at // 60)))
        tx.put_instances(
            Instance(
                environment,
                instance,
                summary.sequence,
                summary.service,
                summary.service_version,
                summary.applied_sequence,
                now,
            )
            for (environment, instance), summary in batch.newest.items()
        )
        return batch

    def counted(self, batch: Batch, now: datetime) -> None:
        """Take notice that what was counted is durable."""
        self._tally.add(batch.heard, now.timestamp())

    def prune(self, tx: Transaction, minute: int, before: datetime) -> None:
        """Delete what is kept no longer.

        Args:
            minute: the present one, since the Unix epoch.
            before: what is older than that is not kept.
        """
        tx.prune_telemetry(before)
        tx.prune_deployments(before)
        tx.prune_inbox(before)
        tx.prune_control_latencies(oldest_minute(minute))
        tx.prune_service_counts(*oldest_counts(minute))
        self._releases.forget()

    def _knows(self, tx: Transaction, environment: str) -> bool:
        """Return whether it exists; what was known of one that it replaces is forgotten."""
        record = tx.environment(environment)
        if record is None:
            return False
        if self._unit_keys.setdefault(environment, record.unit_key) != record.unit_key:
            self._unit_keys[environment] = record.unit_key
            self._processes.clear()
            self._versions.forget()
            self.forget()
        return True

    def _recalled(
        self, tx: Transaction, waiting: Sequence[Waiting], at: float
    ) -> dict[tuple[str, str], Process]:
        """Return the processes that report, by (environment, instance), their last numbers known.

        Where only the storage knows them it is asked once, not for each.
        """
        processes: dict[tuple[str, str], Process] = {}
        asked: dict[str, list[str]] = {}
        for one in waiting:
            key = (one.environment, one.summary.instance)
            if key in processes:
                continue
            process = self._processes.get(key)
            if process is None:
                process = self._processes[key] = Process(at)
            processes[key] = process
            if process.last is None:
                asked.setdefault(one.environment, []).append(one.summary.instance)
        for environment, instances in asked.items():
            found = tx.last_sequences(environment, instances)
            for instance in instances:
                processes[environment, instance].last = found.get(instance, 0)
        return processes

    def _count(
        self, tx: Transaction, batch: Batch, waiting: Waiting, now: datetime, process: Process
    ) -> Accepted:
        at = now.timestamp()
        environment, summary = waiting.environment, waiting.summary
        assert process.last is not None, "it was recalled"
        is_duplicate = summary.sequence <= process.last
        accepted = 0
        refused: tuple[Fault, ...] = ()
        lifted: tuple[str, ...] = ()
        if process.is_too_far_ahead(summary.sequence, at):
            self._claims.cap_numbers(tx, environment, waiting.token, summary.instance)
            ahead = Fault("sequence", f"is too far ahead of the last, {process.last}")
            refused = (*summary.refused, ahead)
        elif not is_duplicate:
            process.last, process.counted_at = summary.sequence, at
            batch.newest[environment, summary.instance] = summary
            accepted, refused = self._count_cells(tx, batch, waiting, now, process)
            if waiting.token.kind != CLIENT_KIND:
                faults, lifted = self._local_kills.take_in(tx, environment, summary)
                refused += faults
        slow_over_s = self._thresholds.slow_over_s(tx, environment, summary.service, int(at // 60))
        exposed_below = min(self._guarding.exposed_below(environment), LARGEST_HASH)
        self._hints.tell(tx, environment, summary.service, exposed_below, slow_over_s)
        return Accepted(
            accepted,
            is_duplicate,
            refused,
            self._receipts.processes(environment),
            slow_over_s,
            exposed_below,
            lifted,
        )

    def _count_cells(
        self, tx: Transaction, batch: Batch, waiting: Waiting, now: datetime, process: Process
    ) -> tuple[int, tuple[Fault, ...]]:
        """Count what can be believed; return how many cells that is, and all that is refused."""
        at = now.timestamp()
        environment, summary, token = waiting.environment, waiting.summary, waiting.token
        believable, unknown = self._versions.sort_out(tx, environment, summary)
        good, too_many = self._claims.within_exposures(
            tx, environment, token, summary.instance, believable, process.exposures, at
        )
        minute = int(at // 60)
        hour = minute // 60
        is_heard = token.kind != CLIENT_KIND
        if is_heard:
            self._releases.note(tx, environment, summary, good, now)
            if environment not in batch.guarded:
                batch.guarded.add(environment)
                self._guarding.take_notice(tx, environment, at)
        by_flag: dict[str, list[records.Cell]] = {}
        for flag, cells in good.items():
            release = self._claims.release(tx, environment, token, flag, summary, hour)
            rows = [_count_row(environment, release, each.cell, minute) for each in cells]
            batch.counts += rows
            in_split = [(each.cell, each.split) for each in cells if each.split is not None]
            if not is_heard:
                continue
            batch.heard += rows
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
            batch.services.count(tx, environment, summary.service, good)
            self._guarding.observe(
                tx, environment, at, by_flag, lambda: _store_error_kinds(tx, batch)
            )
        accepted = sum([len(cells) for cells in good.values()])
        return accepted, (*summary.refused, *unknown, *too_many)

    def _measured(self, tx: Transaction, batch: Batch, minute: int) -> list[LatencyRow]:
        """Add the batch's latencies to those behind the thresholds; return what is to be stored."""
        rows = []
        for (environment, service), latency in batch.latencies.items():
            if self._thresholds.add(tx, environment, service, minute, latency):
                rows.append(LatencyRow(environment, service, minute, latency))
            else:
                self._claims.cap_services(tx, environment, service)
        return rows


def _store_error_kinds(tx: Transaction, batch: Batch) -> None:
    """Store those of a batch at once; or sooner, where a report is to tell of them."""
    kinds, batch.error_kinds = batch.error_kinds, []
    tx.add_error_kinds(kinds)


def _measure(
    batch: Batch, environment: str, service: str, in_split: Sequence[tuple[Cell, ServedSplit]]
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
