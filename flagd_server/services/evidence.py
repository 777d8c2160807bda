"""Reads the guard's evidence reports, which never change once written, with the notes on them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flagd_server.clock import Clock
from flagd_server.domain.guard.lifecycle import watch_of
from flagd_server.domain.times import format_time
from flagd_server.errors import NotFoundError
from flagd_server.services.guarding import Guarding
from flagd_server.services.lives import objectives_of
from flagd_server.services.lookups import require_configuration
from flagd_server.storage.base import Storage
from flagd_server.storage.records import Evidence, EvidenceNote


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """A report as it was written.

    Attributes:
        document: the guard's own.
        notes: what became known since, as documents with their kind, window and time.
    """

    id: str
    environment: str
    flag: str
    at: datetime
    document: dict[str, Any]
    notes: tuple[dict[str, Any], ...] = ()


class EvidenceReports:
    """The reports on one flag in one environment."""

    def __init__(self, storage: Storage, guarding: Guarding, clock: Clock) -> None:
        self._storage = storage
        self._guarding = guarding
        self._clock = clock

    def running(self, environment: str, flag: str) -> tuple[dict[str, str], dict[str, Any] | None]:
        """Return how the flag is watched (mode and reason), and the evidence as it stands now.

        Raises:
            NotFoundError: there is no such environment or flag.
        """
        with self._storage.read() as reader:
            newest = require_configuration(reader, environment, flag)
            mode, reason = watch_of(newest.configuration, objectives_of(reader, environment))
        now = self._clock.now().timestamp()
        running = self._guarding.running_evidence(environment, flag, now)
        if running is not None:
            running = {"mode": newest.configuration.guard["mode"], **running}
        return {"mode": mode, "reason": reason}, running

    def list(self, environment: str, flag: str) -> list[EvidenceReport]:
        """Return them all, newest first, without their notes.

        Raises:
            NotFoundError: there is no such environment or flag.
        """
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            return [_report(evidence) for evidence in reader.list_evidence(environment, flag)]

    def get(self, environment: str, flag: str, evidence_id: str) -> EvidenceReport:
        """Return one of them, with its notes.

        Raises:
            NotFoundError: there is no such environment or flag, or no such report on it.
        """
        with self._storage.read() as reader:
            require_configuration(reader, environment, flag)
            evidence = reader.evidence(evidence_id)
            notes = reader.evidence_notes(evidence_id)
        if evidence is None or (evidence.environment, evidence.flag) != (environment, flag):
            raise NotFoundError("evidence report", evidence_id)
        return _report(evidence, notes)


def _report(evidence: Evidence, notes: Sequence[EvidenceNote] = ()) -> EvidenceReport:
    return EvidenceReport(
        id=evidence.id,
        environment=evidence.environment,
        flag=evidence.flag,
        at=evidence.at,
        document=json.loads(evidence.document),
        notes=tuple(
            {
                "kind": note.kind,
                "window_s": note.window_s,
                "at": format_time(note.at),
                "document": json.loads(note.document),
            }
            for note in notes
        ),
    )
