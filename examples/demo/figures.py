"""What the demo measured, and whether it is what should have happened. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from examples.demo.replay import Answer

# Fewer requests than these would make "nothing was killed" easy to say.
LEAST_NEW = 200
LEAST_OLD = 1_000


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill and what is known of it.

    Attributes:
        at: Unix time of the decision.
        evidence: the guard's report; empty where it was not the guard. `page` is the same for
            people.
        applied_at: process → Unix time at which it had the flag off; absent where it has not.
        receipt: how many processes there are and how many have confirmed, says the server.
    """

    id: str
    at: float
    source: str
    reason: str
    evidence: Mapping[str, Any]
    applied_at: Mapping[str, float]
    receipt: Mapping[str, Any]
    page: str = ""

    @property
    def delays_ms(self) -> dict[str, float]:
        """Process → milliseconds from the decision until it had the flag off."""
        return {
            name: round((at - self.at) * 1000, 1) for name, at in sorted(self.applied_at.items())
        }

    def names(self, fault: str) -> bool:
        """Return whether the evidence lists this error among those of the new variant."""
        return any(
            row["kind"] == f"error:{fault}" and row["variant"] == "on"
            for row in self.evidence.get("error_kinds", ())
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """The closing figures, which are also the JSON object of `--json`.

    Attributes:
        requests: answered visits by checkout.
        errors_from_before: visits that failed as they had in the log.
        failed_by_flag: visits that failed because the new checkout was made to.
        failed_after_last_process: of these, the ones sent when every process had the flag off.
        stream, e_value, threshold: the evidence that decided, and what it needed to reach.
        seconds_to_kill, requests_to_kill: from the first injected error to the decision.
        decision_to_process_ms: process → time from the decision until it had the flag off.
    """

    scenario: str
    requests: Mapping[str, int]
    unanswered: int
    errors_from_before: int
    failed_by_flag: int
    killed: bool
    failed_after_last_process: int = 0
    killed_by: str | None = None
    reason: str | None = None
    e_value: float | None = None
    threshold: float | None = None
    stream: str | None = None
    seconds_to_kill: float | None = None
    requests_to_kill: Mapping[str, int] = field(default_factory=dict)
    decision_to_process_ms: Mapping[str, float] = field(default_factory=dict)
    decision_to_last_process_ms: float | None = None
    processes: int = 0
    confirmed: int = 0


def unix_time(text: str) -> float:
    """Return the Unix time of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def first_fault_at(answers: Iterable[Answer]) -> float | None:
    """Return when the visit was sent that first met the injected fault, None where none did."""
    return min((answer.sent_at for answer in answers if answer.fault), default=None)


def close(answers: Sequence[Answer], kill: Kill | None, *, is_healthy: bool) -> Figures:
    """Return the figures of a run.

    Args:
        answers: of all visits, by the time of their arrival.
        is_healthy: nothing was made to fail.
    """
    counted = Figures(
        scenario="healthy" if is_healthy else "faulty",
        requests=_by_checkout(answers),
        unanswered=sum(not answer.checkout for answer in answers),
        errors_from_before=sum(answer.has_failed_before for answer in answers),
        failed_by_flag=sum(answer.is_failed_by_flag for answer in answers),
        killed=kill is not None,
    )
    if kill is None:
        return counted
    decision = kill.evidence.get("decision") or {}
    last_applied_at = max(kill.applied_at.values(), default=None)
    began_at = first_fault_at(answers)
    return replace(
        counted,
        failed_after_last_process=sum(
            answer.is_failed_by_flag
            for answer in answers
            if last_applied_at is not None and answer.sent_at > last_applied_at
        ),
        killed_by=kill.source,
        reason=kill.reason,
        stream=decision.get("stream"),
        e_value=decision.get("e_value"),
        threshold=decision.get("threshold"),
        seconds_to_kill=None if began_at is None else round(kill.at - began_at, 3),
        requests_to_kill=_by_checkout(
            answer
            for answer in answers
            if began_at is not None and answer.sent_at >= began_at and answer.answered_at <= kill.at
        ),
        decision_to_process_ms=kill.delays_ms,
        decision_to_last_process_ms=max(kill.delays_ms.values(), default=None),
        processes=kill.receipt.get("processes", 0),
        confirmed=kill.receipt.get("confirmed", 0),
    )


def problems(
    figures: Figures, kill: Kill | None, fault: str, processes: Sequence[str]
) -> list[str]:
    """Return what should have happened and did not; empty where all is well.

    Args:
        fault: class of the error that is injected where the run is not healthy.
        processes: names of the shops, each of which should apply a kill.
    """
    found = []
    if figures.unanswered:
        found.append(f"{figures.unanswered} visits got no answer from a shop")
    if figures.errors_from_before == 0:
        found.append("no visit failed as it had in the log, so nothing was there to be told apart")
    if figures.scenario == "healthy":
        return found + _problems_of_healthy(figures)
    if kill is None:
        return [*found, "the guard did not kill the flag"]
    return found + _problems_of_kill(figures, kill, fault, processes)


def _problems_of_healthy(figures: Figures) -> list[str]:
    found = []
    if figures.killed:
        found.append(f"a healthy flag was killed: {figures.reason}")
    for checkout, least in (("old", LEAST_OLD), ("new", LEAST_NEW)):
        if figures.requests[checkout] < least:
            got = figures.requests[checkout]
            found.append(f"only {got} requests went to the {checkout} checkout, {least} needed")
    return found


def _problems_of_kill(
    figures: Figures, kill: Kill, fault: str, processes: Sequence[str]
) -> list[str]:
    found = []
    if kill.source != "guard":
        found.append(f"the kill came from {kill.source!r}, not from the guard")
    if figures.seconds_to_kill is None or figures.seconds_to_kill < 0:
        found.append("the flag was killed before the first injected error")
    if not kill.names(fault):
        found.append(f"the evidence does not name {fault}")
    late = [name for name in processes if name not in kill.applied_at]
    if late:
        found.append(f"{', '.join(late)} did not apply the kill")
    if figures.confirmed != len(processes) or figures.processes != len(processes):
        found.append(
            f"the server's receipt says {figures.confirmed} of {figures.processes} processes,"
            f" expected {len(processes)} of {len(processes)}"
        )
    if figures.failed_after_last_process:
        count = figures.failed_after_last_process
        found.append(f"{count} requests failed because of the flag after every process had it off")
    return found


def _by_checkout(answers: Iterable[Answer]) -> dict[str, int]:
    counts = {"old": 0, "new": 0}
    for answer in answers:
        if answer.checkout:
            counts[answer.checkout] += 1
    return counts
