"""The comparison of policies as a table for people and as a document for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flagd_server.cli.backtest.sources import Recording
from flagd_server.domain.guard.judgement import spoken
from flagd_server.domain.guard.policy_trials import Outcome, PolicyComparison
from flagd_server.domain.guard.records import Decision
from flagd_server.domain.times import format_time

_NONE = "–"
_LEGEND = (
    "Evidence: of the stream nearest to its threshold, and what it needs. Exposures, failed"
    " requests and units: of the treatment,\nuntil the kill or the end. Excess: failed requests"
    " beyond what the control's rate would have made of its exposures."
)


def table(recording: Recording, comparison: PolicyComparison) -> str:
    """Return what became of each policy, one line each, and why."""
    header = ["policy", "verdict", "after", "at (UTC)", "evidence", "stream", "ratio"]
    header += ["exposures", "failed", "units", "excess"]
    rows = [_row(recording, comparison, outcome) for outcome in comparison.outcomes]
    reasons = [_reason(comparison, outcome) for outcome in comparison.outcomes]
    heading = f"{recording.title}: {extent(recording, comparison)}"
    notes = "\n".join([_LEGEND, *recording.notes])
    return "\n\n".join([heading, _aligned([header, *rows]), "\n".join(reasons), notes])


def extent(recording: Recording, comparison: PolicyComparison) -> str:
    """Return in a line how much the policies were tried on."""
    lasted = duration(comparison.ended_at - comparison.started_at)
    began = ""
    if recording.has_wall_time:
        began = f" from {_wall_time(comparison.started_at)} UTC"
    return f"{comparison.events:,} events in {lasted}{began}"


def duration(seconds: float) -> str:
    """Return seconds as a person would say them."""
    if seconds < 600.0:
        return f"{seconds:.3g} s"
    if seconds < 2 * 3_600.0:
        return f"{seconds / 60.0:.1f} min"
    return f"{seconds / 3_600.0:.1f} h"


def verdict(outcome: Outcome) -> str:
    if outcome.decision.kill:
        return "killed"
    return "no kill" if outcome.held_from is None else "held"


def source_of(decision: Decision) -> str:
    """Return what decided: a stream of evidence, or a guard that weighs none."""
    weighs = decision.guard in ("error_rate", "latency")
    return decision.stream if weighs else decision.guard.replace("_", " ")


def _reason(comparison: PolicyComparison, outcome: Outcome) -> str:
    when = duration(outcome.t - comparison.started_at)
    how = "killed" if outcome.decision.kill else "nearest to a kill"
    return f"{outcome.name}, {how} after {when}: {outcome.decision.reason}"


def _wall_time(t: float) -> str:
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S}"


def _row(recording: Recording, comparison: PolicyComparison, outcome: Outcome) -> list[str]:
    decision, harm = outcome.decision, outcome.harm
    return [
        outcome.name,
        verdict(outcome),
        f"{outcome.t - comparison.started_at:,.0f} s" if decision.kill else _NONE,
        _wall_time(outcome.t) if decision.kill and recording.has_wall_time else _NONE,
        f"{spoken(decision.e_value)} of {spoken(decision.threshold)}",
        source_of(decision),
        f"{decision.ratio:.3g}",
        *(
            [_NONE] * 4
            if harm is None
            else [
                f"{harm.exposures:,}",
                f"{harm.errors:,}",
                f"{harm.failing_units:,}",
                f"{harm.excess_errors:+,.1f}",
            ]
        ),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def document(recording: Recording, comparison: PolicyComparison) -> dict[str, Any]:
    """Return the same as JSON; times as they were recorded, `at` where they are wall times."""
    return {
        "recording": {
            "title": recording.title,
            "events": comparison.events,
            "notes": list(recording.notes),
            "started_at": comparison.started_at,
            "ended_at": comparison.ended_at,
            "fault_at": recording.fault_at,
        },
        "policies": [
            {
                "name": outcome.name,
                "policy": asdict(outcome.policy),
                "verdict": verdict(outcome),
                "after_s": outcome.t - comparison.started_at,
                "held_after_s": None
                if outcome.held_from is None
                else outcome.held_from - comparison.started_at,
                "at": format_time(datetime.fromtimestamp(outcome.t, UTC))
                if recording.has_wall_time
                else None,
                "nearness": outcome.nearness,
                "decision": outcome.decision.to_document(),
                "harm": None if outcome.harm is None else asdict(outcome.harm),
            }
            for outcome in comparison.outcomes
        ],
    }
