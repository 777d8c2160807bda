"""What a process reports: one telemetry summary whose structure has been checked.

Its rows stand each for itself: one that can't be is refused, and the others are kept.

The limits are part of the wire contract; `openapi.yaml` repeats them. What they bound is one
summary, a second or so of one process, so an honest reporter never comes near them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from flagd_sdk.core.latency import LATENCY_BUCKETS
from flagd_sdk.core.local_kill import LocalKill
from flagd_server.domain.faults import Fault

MAX_CELLS = 2_000
MAX_KINDS_PER_CELL = 64
MAX_UNITS_PER_KIND = 10_000
MAX_ERROR_KINDS = 2_000
MAX_UNSCOPED = 2_000
MAX_DROPPED = 64
MAX_COUNT = 1_000_000_000
"""Largest count in a summary: far above a process's second, and 64-bit sums cannot overflow."""
ERROR_KINDS = "error:"
"""How kinds begin that only failed units of work show."""
MAX_LATENCY_BUCKET = LATENCY_BUCKETS - 1


def most_units(kind: str, exposures: int, errors: int) -> int:
    """Return how many units a cell may name with a kind.

    A unit is named at most once for each unit of work that showed the kind: a failed one for kinds
    of errors, of which one may show several, and any other for the rest.
    """
    return errors if kind.startswith(ERROR_KINDS) else exposures


class Cell(NamedTuple):
    """Exposures and their outcomes in one (flag, split, variant, configuration version).

    Attributes:
        split: The rule's id or `default`; None where no split decided, which no guard reads.
        exposures: Units of work in which the variant was served.
        errors: How many of `exposures` failed; never more.
        latency: Bucket index (see `flagd_sdk.core.latency`) → exposures that took so long; of all
            buckets together never more than `exposures`.
        units: Kind → keyed hashes (16 lower-case hex digits) of units seen with it; of one kind
            never more than `most_units`.
    """

    flag: str
    split: str | None
    variant: str
    config_version: int
    exposures: int
    errors: int
    latency: Mapping[int, int]
    units: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How often one kind of error was seen, with a sample for people to read.

    Attributes:
        where: The top frame of the application, as `module:function`; may be empty.
        sample: The message of one of them; may be empty.
    """

    flag: str
    variant: str
    kind: str
    where: str
    count: int
    sample: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One report of one process.

    Attributes:
        instance: Random id of the process; with `sequence` it makes the report idempotent.
        sequence: Number of the report within the instance, from 1.
        applied_sequence: Sequence of the flag set the process serves from; 0 before the first.
        started_at: Start of the reported span by the process's clock. A label, never evidence.
        cells, error_kinds, local_kills: None stands for one that was refused, so that the others
            keep their place.
        unscoped: Flag → evaluations outside any scope, which no guard reads.
        dropped: What the process could not keep or send → how many.
        refused: What is wrong with the rows that were refused; each is named.
    """

    instance: str
    sequence: int
    service: str
    service_version: str
    applied_sequence: int
    started_at: datetime
    ended_at: datetime
    cells: tuple[Cell | None, ...]
    unscoped: Mapping[str, int]
    error_kinds: tuple[ErrorKind | None, ...]
    dropped: Mapping[str, int]
    local_kills: tuple[LocalKill | None, ...] = ()
    refused: tuple[Fault, ...] = ()
