"""A summary on its way through the ingestion, and what one transaction adds up."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flagd_server.domain.allowance import EXPOSURES_OF_INSTANCE, NUMBERS_OF_INSTANCE, Allowance
from flagd_server.domain.faults import Fault
from flagd_server.domain.telemetry import Summary
from flagd_server.services.service_tally import ServiceTally
from flagd_server.storage.records import Token
from flagd_server.storage.telemetry_records import CountRow, ErrorKindRow


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
        lifted: ids of local kills that the process is to end.
    """

    accepted: int
    duplicate: bool
    refused: tuple[Fault, ...]
    processes: int
    slow_over_s: Mapping[str, float]
    exposed_below: int
    lifted: tuple[str, ...]


class Receipt:
    """What one thread waits for and another gives: a `Future` for half the price.

    One thread gives, and its first answer counts: what fails as a batch is tried one by one, with
    those in it that have theirs already.
    """

    __slots__ = ("_answer", "_given", "_on_given")

    def __init__(self, on_given: Callable[[], None] | None = None) -> None:
        """Args:
        on_given: told by the giving thread, instead of a thread that waits; it must be quick.
        """
        self._given = threading.Lock()  # held until there is an answer
        self._given.acquire()
        self._answer: Accepted | Exception | None = None
        self._on_given = on_given

    def give(self, answer: Accepted | Exception) -> None:
        """Let the other thread go on, with this or by raising it."""
        if self._answer is None:
            self._answer = answer
            self._given.release()
            # Let go: whoever is told mostly has this receipt.
            on_given, self._on_given = self._on_given, None
            if on_given is not None:
                on_given()

    def result(self, timeout_s: float) -> Accepted:
        """Wait for the answer; only one thread may, and once.

        Raises:
            TimeoutError: it was not given in time.
            Exception: the one that was given.
        """
        if not self._given.acquire(timeout=timeout_s):
            raise TimeoutError
        if isinstance(self._answer, Accepted):
            return self._answer
        assert self._answer is not None, "whoever lets go has left an answer"
        raise self._answer


@dataclass(frozen=True, slots=True)
class Waiting:
    environment: str
    token: Token
    summary: Summary
    done: Receipt

    def answer(self, answer: Accepted | Exception) -> None:
        """Let whoever submitted it go on, with an answer or with an error."""
        self.done.give(answer)


class Process:
    """What the writer thread knows of an instance.

    Attributes:
        last: number of its last summary; None where only the storage knows.
        counted_at: when that was counted here; None where another server did.
        since: when it was first heard of.
    """

    __slots__ = ("counted_at", "exposures", "last", "since")

    def __init__(self, at: float) -> None:
        self.last: int | None = None
        self.counted_at: float | None = None
        self.since = at
        self.exposures = Allowance(EXPOSURES_OF_INSTANCE, at)

    def is_too_far_ahead(self, sequence: int, at: float) -> bool:
        """Return whether an instance that was heard can't have got to this number since."""
        if self.counted_at is None or self.last is None:
            return False  # it may have reported elsewhere, or been without a server for long
        rate = NUMBERS_OF_INSTANCE
        most = rate.burst + rate.per_s * max(0.0, at - self.counted_at)
        return sequence - self.last > most


@dataclass(slots=True)
class Batch:
    """What one transaction adds up before it writes."""

    counts: list[CountRow] = field(default_factory=list)
    error_kinds: list[ErrorKindRow] = field(default_factory=list)
    latencies: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    newest: dict[tuple[str, str], Summary] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)  # environments that the guard has looked at
    services: ServiceTally = field(default_factory=ServiceTally)
    answers: list[tuple[Waiting, Accepted | Exception]] = field(default_factory=list)
    heard: list[CountRow] = field(default_factory=list)  # those of the counts that the guard hears
