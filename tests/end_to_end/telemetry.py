"""Summaries as an SDK sends them, written by hand where a test needs figures of its own."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any


def cell(
    flag: str, variant: str, version: int, *, exposures: int, errors: int = 0
) -> dict[str, Any]:
    """Return exposures of one variant by the default split."""
    return {
        "flag": flag,
        "split": "default",
        "variant": variant,
        "config_version": version,
        "exposures": exposures,
        "errors": errors,
        "latency": {},
        "units": {},
    }


def summary(sequence: int, cells: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a summary of one process of the service shop, of this moment."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "instance": "i-1",
        "sequence": sequence,
        "service": "shop",
        "service_version": "v1",
        "applied_sequence": 0,
        "started_at": now,
        "ended_at": now,
        "cells": list(cells),
        "unscoped": {},
        "error_kinds": [],
        "local_kills": [],
        "dropped": {},
    }
