"""Watches what follows a kill or a rollback by the guard, and notes it on the guard's report.

One note says whom it has reached, and when; two more, after 2 and 10 minutes, whether it
helped. Which notes are missing is read from the storage each time, so that a restart changes
nothing but what was known in memory only: the times at which processes confirmed.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flagd_server.clock import Clock
from flagd_server.domain.guard.aftermath import (
    Aftermath,
    Requests,
    first_failure,
    look_back,
    slow_from,
    slow_quantile,
)
from flagd_server.domain.times import format_time, from_seconds, parse_time
from flagd_server.errors import NotLeadingError
from flagd_server.services.announcements import Announcement, Announcements
from flagd_server.services.followed_kills import NAMED, KillWay
from flagd_server.services.receipts import Receipt, Receipts
from flagd_server.storage.base import Ledger, Reader
from flagd_server.storage.records import Evidence, EvidenceNote
from flagd_server.storage.telemetry_records import CountRow

logger = logging.getLogger(__name__)

TOLD, AFTERMATH = "told", "aftermath"
WINDOWS_S = (120, 600)
BEFORE_MINUTES = 10
# After a restart later than this a kill is old news: its counts would be of another time.
RESUMED_WITHIN = timedelta(minutes=15)
# A process that is alive confirms within milliseconds; one that polls, within seconds.
CONFIRMED_WITHIN = timedelta(seconds=10)
# A rollback is confirmed with the next summary, which comes every ten seconds at least.
ROLLBACK_CONFIRMED_WITHIN = timedelta(seconds=15)
_LOOK_AGAIN_S = 0.2
_RETRY_S = 5.0
# Decisions in the ten seconds within which they are noted; servers that don't lead note none.
_SENT_KEPT = 200


@dataclass(frozen=True, slots=True)
class _Deed:
    """A report whose decision took a flag off or back, with the notes that it has."""

    evidence: Evidence
    document: dict[str, Any]
    noted: frozenset[tuple[str, int]]

    @property
    def is_rollback(self) -> bool:
        return bool(self.document["action"] == "rollback")

    @property
    def at(self) -> datetime:
        done = self.document["rollback" if self.is_rollback else "kill"]
        return parse_time(done["at"])

    @property
    def confirmed_within(self) -> timedelta:
        return ROLLBACK_CONFIRMED_WITHIN if self.is_rollback else CONFIRMED_WITHIN

    @property
    def due(self) -> Iterator[tuple[int, datetime]]:
        """Yield (window, when its time is up) for each that is not noted yet."""
        for window_s in WINDOWS_S:
            if (AFTERMATH, window_s) not in self.noted:
                yield window_s, self.at + timedelta(seconds=window_s)


class AftermathWatch:
    """One thread writes, where this server leads; `notice` may be called by any."""

    def __init__(
        self,
        storage: Ledger,
        receipts: Receipts,
        announcements: Announcements,
        clock: Clock,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """Args:
        storage: the leader's, where there are several servers.
        leads: whether to look back now.
        """
        self._leads = leads
        self._storage = storage
        self._receipts = receipts
        self._announcements = announcements
        self._clock = clock
        self._started_at = clock.now()
        # Report → how its kill went out, until that is noted; each access is one step of a
        # dictionary.
        self._sent: dict[str, Announcement] = {}
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flagd-aftermath", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread; what it has not noted yet is noted after the next start. Idempotent."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def forget(self) -> None:
        """Begin anew, as after a restart: nobody knows how the kills of another leader went out."""
        self._started_at = self._clock.now()
        self._sent.clear()

    def notice(self, environment: str, evidence: str) -> None:
        """Hear of a decision right after its kill was announced."""
        announcement = self._announcements.latest(environment)
        if announcement is not None:
            self._sent[evidence] = announcement
            while len(self._sent) > _SENT_KEPT:
                self._sent.pop(next(iter(self._sent)))
        self.wake()

    def wake(self) -> None:
        """Look at once whether something is to be noted."""
        self._wake.set()

    def catch_up(self) -> float | None:
        """Write each note whose time has come; return the seconds to the next, None without one.

        Raises:
            StorageError: one could not be written; it is still missing.
        """
        now = self._clock.now()
        with self._storage.read() as reader:
            deeds = list(_deeds(reader, now - RESUMED_WITHIN))
        waits = []
        for deed in deeds:
            if (TOLD, 0) not in deed.noted and not self._note_told(deed, now):
                waits.append(_LOOK_AGAIN_S)
            for window_s, due_at in deed.due:
                if due_at <= now:
                    with self._storage.read() as reader:
                        aftermath = _look_back(reader, deed, window_s)
                    self._write(deed, AFTERMATH, window_s, now, aftermath.to_document())
                else:
                    waits.append((due_at - now).total_seconds())
        return min(waits, default=None)

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                wait_s = self.catch_up() if self._leads() else None
            except NotLeadingError:
                wait_s = None  # the next leader looks back
            except Exception:  # the thread's edge: later kills must still be followed
                logger.exception("the aftermath of a kill could not be noted; tried again")
                wait_s = _RETRY_S
            self._wake.wait(wait_s)
            self._wake.clear()

    def _note_told(self, deed: _Deed, now: datetime) -> bool:
        """Note whom the kill has reached once all have confirmed, or the time is up."""
        environment = deed.evidence.environment
        sent = self._sent.get(deed.evidence.id)
        if sent is not None:
            sequence = sent.sequence
        elif deed.at < self._started_at:
            # From before a restart: whoever holds the newest flags has been told.
            with self._storage.read() as reader:
                record = reader.environment(environment)
            sequence = 0 if record is None else record.sequence
        else:
            return False  # it is about to be announced
        receipt = self._receipts.wait(environment, sequence, 0.0)
        time_is_up = now >= max(deed.at, self._started_at) + deed.confirmed_within
        if (receipt.unconfirmed or not receipt.confirmed) and not time_is_up:
            return False
        kill = deed.document["kill"]
        way = None if kill is None else self._receipts.way_of(kill["id"])
        self._write(deed, TOLD, 0, now, _told(deed, sent, receipt, way, now))
        self._sent.pop(deed.evidence.id, None)
        return True

    def _write(
        self, deed: _Deed, kind: str, window_s: int, now: datetime, document: dict[str, Any]
    ) -> None:
        with self._storage.transaction() as tx:
            if tx.evidence(deed.evidence.id) is not None:  # its environment may have been deleted
                tx.insert_evidence_note(
                    EvidenceNote(deed.evidence.id, kind, window_s, now, json.dumps(document))
                )


def _deeds(reader: Reader, since: datetime) -> Iterator[_Deed]:
    for evidence in reader.evidence_since(since):
        document = json.loads(evidence.document)
        if document["action"] in ("kill", "rollback"):
            notes = reader.evidence_notes(evidence.id)
            yield _Deed(evidence, document, frozenset((note.kind, note.window_s) for note in notes))


def _told(
    deed: _Deed, sent: Announcement | None, receipt: Receipt, way: KillWay | None, now: datetime
) -> dict[str, Any]:
    """Return whom the kill has reached and how long each step took.

    How long processes took is known to the server that sent it; after a restart nobody knows.
    """
    since_ms = (now - deed.at) / timedelta(milliseconds=1)

    def after_ms(percent: int) -> float | None:
        reached = receipt.reached_after_ms(percent)
        return None if sent is None or reached is None else round(max(0.0, since_ms + reached), 1)

    last_ms = receipt.confirmed_after_ms[-1] if sent and receipt.confirmed_after_ms else None
    first_t = first_failure(deed.document)
    return {
        "processes": receipt.processes,
        "confirmed": receipt.confirmed,
        "unconfirmed": list(receipt.unconfirmed[:NAMED]),
        "confirmed_after_ms": {str(percent): after_ms(percent) for percent in (50, 99, 100)},
        "slowest": [
            {"instance": instance, "after_ms": round(after_s * 1000, 1)}
            for instance, after_s in (() if way is None else way.slowest)
        ],
        "steps": {
            "first_failure": None if first_t is None else format_time(from_seconds(first_t)),
            "received": format_time(deed.evidence.at),
            "decided": format_time(deed.at),
            "committed": None if sent is None else format_time(sent.committed_at),
            "sent": None if sent is None else format_time(sent.sent_at),
            "last_confirmation": (
                None if last_ms is None else format_time(now + timedelta(milliseconds=last_ms))
            ),
        },
    }


def _look_back(reader: Reader, deed: _Deed, window_s: int) -> Aftermath:
    """Compare the ten minutes before the kill with the window after it.

    The counts of the kill's own minute are told apart by their configuration's version.
    """
    environment, flag = deed.evidence.environment, deed.evidence.flag
    minute = int(deed.at.timestamp()) // 60
    last = int(deed.at.timestamp() + window_s) // 60
    rows = reader.counts(environment, flag, minute - BEFORE_MINUTES)
    first_off, first_on_again = _off_versions(reader, deed)
    before = [row for row in rows if row.minute <= minute and row.config_version < first_off]
    after = [
        row
        for row in rows
        if minute <= row.minute <= last and first_off <= row.config_version < first_on_again
    ]
    decision = deed.document["decision"]
    control = [
        row
        for row in before
        if row.variant == decision["control"] and row.split == decision["split"]
    ]
    quantile = slow_quantile(decision["stream"])
    slow = None if quantile is None else slow_from((row.latency for row in control), quantile)
    left = 0.0
    if deed.is_rollback:
        done = deed.document["rollback"]
        left = done["to_percent"] / done["from_percent"]
    return look_back(_sum(before, slow), _sum(after, slow), _sum(control, slow), left)


def _off_versions(reader: Reader, deed: _Deed) -> tuple[int, int]:
    """Return the version that it made, and the first after that in which it does not stand."""
    environment, flag = deed.evidence.environment, deed.evidence.flag
    if deed.is_rollback:
        made: int = deed.document["rollback"]["version"]
        return made, made + 1
    judged = deed.document["configuration"]["version"]
    newest = reader.configuration(environment, flag)
    off: list[int] = []
    for number in range(judged + 1, 1 + (judged if newest is None else newest.version)):
        version = reader.configuration_version(environment, flag, number)
        standing = None if version is None else version.configuration.kill
        if standing is not None and standing.id == deed.document["kill"]["id"]:
            off.append(number)
        elif off:
            break
    return (off[0], off[-1] + 1) if off else (judged + 1, judged + 1)


def _sum(rows: Sequence[CountRow], slow: int | None) -> Requests:
    """Add up requests, and those that failed; with `slow`, those from that bucket on instead."""
    bad = sum(
        row.errors
        if slow is None
        else sum(count for bucket, count in row.latency.items() if bucket >= slow)
        for row in rows
    )
    return Requests(sum(row.exposures for row in rows), bad)
