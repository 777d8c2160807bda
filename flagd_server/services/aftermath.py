"""Watches what follows a kill by the guard, and notes it on the guard's report.

One note says whom the kill has reached, and when; two more, after 2 and 10 minutes, whether it
helped. Which notes are missing is read from the storage each time, so that a restart changes
nothing but what was known in memory only: the times at which processes confirmed.
"""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
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
from flagd_server.services.announcements import Announcement, Announcements
from flagd_server.services.receipts import Receipt, Receipts
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.records import CountRow, Evidence, EvidenceNote

logger = logging.getLogger(__name__)

TOLD, AFTERMATH = "told", "aftermath"
WINDOWS_S = (120, 600)
BEFORE_MINUTES = 10
# After a restart later than this a kill is old news: its counts would be of another time.
RESUMED_WITHIN = timedelta(minutes=15)
# A process that is alive confirms within milliseconds; one that polls, within seconds.
CONFIRMED_WITHIN = timedelta(seconds=10)
UNCONFIRMED_SHOWN = 20
_LOOK_AGAIN_S = 0.2
_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Kill:
    """A report whose decision took a flag off, with the notes that it has."""

    evidence: Evidence
    document: dict[str, Any]
    noted: frozenset[tuple[str, int]]

    @property
    def at(self) -> datetime:
        return parse_time(self.document["kill"]["at"])

    @property
    def due(self) -> Iterator[tuple[int, datetime]]:
        """Yield (window, when its time is up) for each that is not noted yet."""
        for window_s in WINDOWS_S:
            if (AFTERMATH, window_s) not in self.noted:
                yield window_s, self.at + timedelta(seconds=window_s)


class AftermathWatch:
    """One thread writes; `notice` may be called by any."""

    def __init__(
        self, storage: Storage, receipts: Receipts, announcements: Announcements, clock: Clock
    ) -> None:
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

    def notice(self, environment: str, evidence: str) -> None:
        """Hear of a decision right after its kill was announced, in the turn of its writer."""
        announcement = self._announcements.latest(environment)
        if announcement is not None:
            self._sent[evidence] = announcement
        self._wake.set()

    def catch_up(self) -> float | None:
        """Write each note whose time has come; return the seconds to the next, None without one.

        Raises:
            StorageError: one could not be written; it is still missing.
        """
        now = self._clock.now()
        with self._storage.read() as reader:
            kills = list(_kills(reader, now - RESUMED_WITHIN))
        waits = []
        for kill in kills:
            if (TOLD, 0) not in kill.noted and not self._note_told(kill, now):
                waits.append(_LOOK_AGAIN_S)
            for window_s, due_at in kill.due:
                if due_at <= now:
                    with self._storage.read() as reader:
                        aftermath = _look_back(reader, kill, window_s)
                    self._write(kill, AFTERMATH, window_s, now, aftermath.to_document())
                else:
                    waits.append((due_at - now).total_seconds())
        return min(waits, default=None)

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                wait_s = self.catch_up()
            except Exception:  # the thread's edge: later kills must still be followed
                logger.exception("the aftermath of a kill could not be noted; tried again")
                wait_s = _RETRY_S
            self._wake.wait(wait_s)
            self._wake.clear()

    def _note_told(self, kill: _Kill, now: datetime) -> bool:
        """Note whom the kill has reached once all have confirmed, or the time is up."""
        environment = kill.evidence.environment
        sent = self._sent.get(kill.evidence.id)
        if sent is not None:
            sequence = sent.sequence
        elif kill.at < self._started_at:
            # From before a restart: whoever holds the newest flags has been told.
            with self._storage.read() as reader:
                record = reader.environment(environment)
            sequence = 0 if record is None else record.sequence
        else:
            return False  # it is about to be announced
        receipt = self._receipts.wait(environment, sequence, 0.0)
        time_is_up = now >= max(kill.at, self._started_at) + CONFIRMED_WITHIN
        if (receipt.unconfirmed or not receipt.confirmed) and not time_is_up:
            return False
        self._write(kill, TOLD, 0, now, _told(kill, sent, receipt, now))
        self._sent.pop(kill.evidence.id, None)
        return True

    def _write(
        self, kill: _Kill, kind: str, window_s: int, now: datetime, document: dict[str, Any]
    ) -> None:
        with self._storage.transaction() as tx:
            if tx.evidence(kill.evidence.id) is not None:  # its environment may have been deleted
                tx.insert_evidence_note(
                    EvidenceNote(kill.evidence.id, kind, window_s, now, json.dumps(document))
                )


def _kills(reader: Reader, since: datetime) -> Iterator[_Kill]:
    for evidence in reader.evidence_since(since):
        document = json.loads(evidence.document)
        if document["action"] == "kill":
            notes = reader.evidence_notes(evidence.id)
            yield _Kill(evidence, document, frozenset((note.kind, note.window_s) for note in notes))


def _told(
    kill: _Kill, sent: Announcement | None, receipt: Receipt, now: datetime
) -> dict[str, Any]:
    """Return whom the kill has reached and how long each step took.

    How long processes took is known to the server that sent it; after a restart nobody knows.
    """
    since_ms = (now - kill.at) / timedelta(milliseconds=1)

    def after_ms(percent: int) -> float | None:
        reached = receipt.reached_after_ms(percent)
        return None if sent is None or reached is None else round(max(0.0, since_ms + reached), 1)

    last_ms = receipt.confirmed_after_ms[-1] if sent and receipt.confirmed_after_ms else None
    first_t = first_failure(kill.document)
    return {
        "processes": receipt.processes,
        "confirmed": receipt.confirmed,
        "unconfirmed": list(receipt.unconfirmed[:UNCONFIRMED_SHOWN]),
        "confirmed_after_ms": {str(percent): after_ms(percent) for percent in (50, 99, 100)},
        "steps": {
            "first_failure": None if first_t is None else format_time(from_seconds(first_t)),
            "received": format_time(kill.evidence.at),
            "decided": format_time(kill.at),
            "committed": None if sent is None else format_time(sent.committed_at),
            "sent": None if sent is None else format_time(sent.sent_at),
            "last_confirmation": (
                None if last_ms is None else format_time(now + timedelta(milliseconds=last_ms))
            ),
        },
    }


def _look_back(reader: Reader, kill: _Kill, window_s: int) -> Aftermath:
    """Compare the ten minutes before the kill with the window after it.

    The counts of the kill's own minute are told apart by their configuration's version.
    """
    environment, flag = kill.evidence.environment, kill.evidence.flag
    minute = int(kill.at.timestamp()) // 60
    last = int(kill.at.timestamp() + window_s) // 60
    rows = reader.counts(environment, flag, minute - BEFORE_MINUTES)
    first_off, first_on_again = _off_versions(reader, kill)
    before = [row for row in rows if row.minute <= minute and row.config_version < first_off]
    after = [
        row
        for row in rows
        if minute <= row.minute <= last and first_off <= row.config_version < first_on_again
    ]
    decision = kill.document["decision"]
    control = [
        row
        for row in before
        if row.variant == decision["control"] and row.split == decision["split"]
    ]
    quantile = slow_quantile(decision["stream"])
    slow = None if quantile is None else slow_from((row.latency for row in control), quantile)
    return look_back(_sum(before, slow), _sum(after, slow), _sum(control, slow))


def _off_versions(reader: Reader, kill: _Kill) -> tuple[int, int]:
    """Return the version that the kill made, and the first after it in which it does not stand."""
    environment, flag = kill.evidence.environment, kill.evidence.flag
    judged = kill.document["configuration"]["version"]
    newest = reader.configuration(environment, flag)
    off: list[int] = []
    for number in range(judged + 1, 1 + (judged if newest is None else newest.version)):
        version = reader.configuration_version(environment, flag, number)
        standing = None if version is None else version.configuration.kill
        if standing is not None and standing.id == kill.document["kill"]["id"]:
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
