"""What a process counted between two summaries, and how it goes over the wire."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from flagd_sdk.core.model import Resolution

HASH_SPACE = 1 << 64

# Latency bucket → units of work; their sum is the number of exposures. Where there is no room for
# another bucket they are counted in this one, which is not reported.
Durations: TypeAlias = dict[int, int]
UNTIMED = -1


# Unit events that wait for their summary: of errors, and of slow units and samples each.
MAX_PENDING_UNITS = 4_096
MAX_PENDING_LOOKS = 2_048


class CellEvents:
    """How many units of work of a cell failed, and its unit events: kind → hashes."""

    __slots__ = ("errors", "units")

    def __init__(self) -> None:
        self.errors = 0
        self.units: dict[str, set[str]] = {}


class UnitBound:
    """How many unit events of one sort wait, and below which hash more of them are taken."""

    __slots__ = ("most", "pending", "threshold")

    def __init__(self, most: int) -> None:
        self.most = most
        self.pending = 0
        self.threshold = HASH_SPACE


def sort_of(kind: str) -> str:
    """Return the sort of a kind of unit event: error, slow or exposed."""
    sort = kind.partition(":")[0]
    return "slow" if sort == "near" else sort


# What a split served in a failed unit of work, the unit's hash, and the kinds of its errors.
Failed: TypeAlias = tuple[Resolution, str, Sequence[str]]


class ErrorKind:
    """How often an error was seen, with one place and one message of it."""

    __slots__ = ("count", "sample", "where")

    def __init__(self, where: str, sample: str) -> None:
        self.where = where
        self.sample = sample
        self.count = 0


_CellKey: TypeAlias = tuple[str, str | None, str | None, int]


class Counts:
    """What was counted between two summaries; `Tally.take` hands it over."""

    __slots__ = (
        "admitted",
        "bounds",
        "cells",
        "dropped",
        "error_kinds",
        "estimated_bytes",
        "events",
        "refused",
        "unscoped",
    )

    def __init__(self) -> None:
        # By resolution, which is made once per flag, rule and variant and hashed by identity: no
        # tuple is built and hashed for an exposure.
        self.cells: dict[Resolution, Durations] = {}
        self.events: dict[Resolution, CellEvents] = {}
        self.admitted: set[str] = set()
        self.refused: set[str] = set()
        self.unscoped: dict[str, int] = {}
        self.error_kinds: dict[tuple[str, str, str], ErrorKind] = {}
        self.dropped: dict[str, int] = {}
        self.estimated_bytes = 0
        # Each sort by itself: were a sample of everybody to fill the room, or a slow hour, the
        # errors would be thinned for it.
        self.bounds = {
            "error": UnitBound(MAX_PENDING_UNITS),
            "slow": UnitBound(MAX_PENDING_LOOKS),
            "exposed": UnitBound(MAX_PENDING_LOOKS),
        }

    def __bool__(self) -> bool:
        return bool(self.cells or self.unscoped or self.dropped)

    def drop(self, what: str, count: int = 1) -> None:
        """Count what was left out; the server shows it."""
        self.dropped[what] = self.dropped.get(what, 0) + count

    def document(self) -> dict[str, Any]:
        """Return the counted part of a summary as it goes over the wire."""
        # One configuration may have been compiled twice since the last summary.
        merged: dict[_CellKey, tuple[Durations, CellEvents]] = {}
        for served, durations in self.cells.items():
            key = (served.flag, served.split, served.variant, served.version)
            into, events = merged.setdefault(key, ({}, CellEvents()))
            for bucket, count in durations.items():
                into[bucket] = into.get(bucket, 0) + count
            if more := self.events.get(served):
                events.errors += more.errors
                for kind, hashes in more.units.items():
                    events.units.setdefault(kind, set()).update(hashes)
        return {
            "cells": [
                {
                    "flag": flag,
                    "split": split,
                    "variant": variant,
                    "config_version": version,
                    "exposures": sum(durations.values()),
                    "errors": events.errors,
                    "latency": {
                        str(bucket): count
                        for bucket, count in sorted(durations.items())
                        if bucket != UNTIMED
                    },
                    # Sorted, lest the order tell when each unit came.
                    "units": {kind: sorted(hashes) for kind, hashes in events.units.items()},
                }
                for (flag, split, variant, version), (durations, events) in merged.items()
            ],
            "unscoped": dict(self.unscoped),
            "error_kinds": [
                {
                    "flag": flag,
                    "variant": variant,
                    "kind": kind,
                    "where": entry.where,
                    "count": entry.count,
                    "sample": entry.sample,
                }
                for (flag, variant, kind), entry in self.error_kinds.items()
            ],
            "dropped": dict(self.dropped),
        }
