"""What tools of delivery are told by a gate, each as it asks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flagd_server.clock import Clock
from flagd_server.domain.gate_verdicts import Verdict
from flagd_server.domain.health import Health
from flagd_server.domain.hooks import Question, is_yes
from flagd_server.errors import NotFoundError
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Storage


class Verdicts(Protocol):
    """See `GateVerdicts`."""

    def get(self, environment: str, key: str) -> tuple[Verdict, datetime]: ...


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """A verdict in one line; `is_yes` answers what was asked."""

    is_yes: bool
    word: Health
    reasons: str
    at: datetime


class GateAnswers:
    def __init__(self, storage: Storage, publisher: Publisher, verdicts: Verdicts) -> None:
        self._storage = storage
        self._publisher = publisher
        self._verdicts = verdicts

    @property
    def _clock(self) -> Clock:
        return self._publisher.clock

    def answer(
        self, environment: str, gate: str, question: Question, *, asked_for: str, actor: str
    ) -> GateAnswer:
        """Answer Flagger. That it is told to roll back goes into the audit.

        Args:
            asked_for: the canary, for the audit.

        Raises:
            NotFoundError: there is no such gate.
        """
        verdict, at = self._verdicts.get(environment, gate)
        answer = GateAnswer(is_yes(question, verdict.word), verdict.word, _one_line(verdict), at)
        if question is Question.ROLL_BACK and answer.is_yes:
            with self._storage.transaction() as tx:
                self._publisher.record(
                    tx,
                    actor=actor,
                    action="gate.rollback",
                    target=f"environments/{environment}/gates/{gate}",
                    environment=environment,
                    comment=answer.reasons[:1_000],
                    detail={"tool": "flagger", "canary": asked_for},
                )
        return answer

    def look(self, environment: str, gate: str) -> GateAnswer:
        """Return what the gate says; of one that is not there, that nothing is known."""
        try:
            verdict, at = self._verdicts.get(environment, gate)
        except NotFoundError as error:
            return GateAnswer(False, Health.INCONCLUSIVE, str(error), self._clock.now())
        return GateAnswer(verdict.is_green, verdict.word, _one_line(verdict), at)


def _one_line(verdict: Verdict) -> str:
    """Return what is against it, or all that speaks for it."""
    if verdict.is_green:
        return "; ".join(reason.detail for reason in verdict.reasons)
    return verdict.against() or "nothing is known"
