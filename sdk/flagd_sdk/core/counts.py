"""What a process counted between two summaries, and how it goes over the wire."""

from typing import Any, TypeAlias

from flagd_sdk.core.model import Resolution

HASH_SPACE = 1 << 64

# Latency bucket → units of work; their sum is the number of exposures. Where there is no room for
# another bucket they are counted in this one, which is not reported.
Durations: TypeAlias = dict[int, int]
UNTIMED = -1


class Failed:
    """The failed units of work of a cell, and the unit events that they make."""

    __slots__ = ("errors", "units")

    def __init__(self) -> None:
        self.errors = 0
        self.units: dict[str, set[str]] = {}


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
        "cells",
        "dropped",
        "error_kinds",
        "estimated_bytes",
        "failed",
        "pending_units",
        "refused",
        "threshold",
        "unscoped",
    )

    def __init__(self) -> None:
        # By resolution, which is made once per flag, rule and variant and hashed by identity: no
        # tuple is built and hashed for an exposure.
        self.cells: dict[Resolution, Durations] = {}
        self.failed: dict[Resolution, Failed] = {}
        self.admitted: set[str] = set()
        self.refused: set[str] = set()
        self.unscoped: dict[str, int] = {}
        self.error_kinds: dict[tuple[str, str, str], ErrorKind] = {}
        self.dropped: dict[str, int] = {}
        self.pending_units = 0
        self.threshold = HASH_SPACE
        self.estimated_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.cells or self.unscoped or self.dropped)

    def drop(self, what: str, count: int = 1) -> None:
        """Count what was left out; the server shows it."""
        self.dropped[what] = self.dropped.get(what, 0) + count

    def document(self) -> dict[str, Any]:
        """Return the counted part of a summary as it goes over the wire."""
        # One configuration may have been compiled twice since the last summary.
        merged: dict[_CellKey, tuple[Durations, Failed]] = {}
        for served, durations in self.cells.items():
            key = (served.flag, served.split, served.variant, served.version)
            into, failed = merged.setdefault(key, ({}, Failed()))
            for bucket, count in durations.items():
                into[bucket] = into.get(bucket, 0) + count
            if more := self.failed.get(served):
                failed.errors += more.errors
                for kind, hashes in more.units.items():
                    failed.units.setdefault(kind, set()).update(hashes)
        return {
            "cells": [
                {
                    "flag": flag,
                    "split": split,
                    "variant": variant,
                    "config_version": version,
                    "exposures": sum(durations.values()),
                    "errors": failed.errors,
                    "latency": {
                        str(bucket): count
                        for bucket, count in sorted(durations.items())
                        if bucket != UNTIMED
                    },
                    # Sorted, lest the order tell when each unit came.
                    "units": {kind: sorted(hashes) for kind, hashes in failed.units.items()},
                }
                for (flag, split, variant, version), (durations, failed) in merged.items()
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
            "local_kills": [],
            "dropped": dict(self.dropped),
        }
