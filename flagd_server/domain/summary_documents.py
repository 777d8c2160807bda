"""Telemetry summaries as documents, and back: what one server keeps for another to count.

Not the wire's form: a row that was refused has its place here.
"""

from typing import Any

from flagd_sdk.core.local_kill import LocalKill
from flagd_server.domain.configuration import JsonObject
from flagd_server.domain.telemetry import Cell, ErrorKind, Summary
from flagd_server.domain.times import format_time, parse_time


def summary_document(summary: Summary) -> dict[str, Any]:
    """Return what `parse_summary` reads. What was refused is left out: its sender was told."""
    return {
        "instance": summary.instance,
        "sequence": summary.sequence,
        "service": summary.service,
        "service_version": summary.service_version,
        "applied_sequence": summary.applied_sequence,
        "started_at": format_time(summary.started_at),
        "ended_at": format_time(summary.ended_at),
        "cells": [
            None
            if cell is None
            else {
                "flag": cell.flag,
                "split": cell.split,
                "variant": cell.variant,
                "config_version": cell.config_version,
                "exposures": cell.exposures,
                "errors": cell.errors,
                "latency": list(cell.latency.items()),
                "units": dict(cell.units),
            }
            for cell in summary.cells
        ],
        "unscoped": dict(summary.unscoped),
        "error_kinds": [
            None
            if row is None
            else [row.flag, row.variant, row.kind, row.where, row.count, row.sample]
            for row in summary.error_kinds
        ],
        "dropped": dict(summary.dropped),
        "local_kills": [
            None if kill is None else kill.to_document() for kill in summary.local_kills
        ],
    }


def parse_summary(document: JsonObject) -> Summary:
    """Return the summary.

    Raises:
        KeyError, TypeError, ValueError: another version of the server wrote it, in another form.
    """
    return Summary(
        instance=document["instance"],
        sequence=document["sequence"],
        service=document["service"],
        service_version=document["service_version"],
        applied_sequence=document["applied_sequence"],
        started_at=parse_time(document["started_at"]),
        ended_at=parse_time(document["ended_at"]),
        cells=tuple(None if cell is None else _cell(cell) for cell in document["cells"]),
        unscoped=document["unscoped"],
        error_kinds=tuple(
            None if row is None else ErrorKind(*row) for row in document["error_kinds"]
        ),
        dropped=document["dropped"],
        local_kills=tuple(
            None if kill is None else LocalKill.from_document(kill)
            for kill in document["local_kills"]
        ),
    )


def _cell(document: JsonObject) -> Cell:
    latency = dict(document["latency"])
    units = {kind: tuple(hashes) for kind, hashes in document["units"].items()}
    return Cell(**{**document, "latency": latency, "units": units})
