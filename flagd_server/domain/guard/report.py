"""The evidence behind a decision, or behind the running state, as one JSON document.

It says what was seen and how that was weighed, so that the decision can be checked by hand.
"""

from math import isfinite
from typing import Any

from flagd_server.domain.guard.comparison import Comparison, Counts
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.judgement import WITNESS_BAR, Standing
from flagd_server.domain.guard.streams import Stream, by_share
from flagd_server.domain.guard.tosses import Toss
from flagd_server.stats.intervals import ratio_interval, tail_probability

TOSSES_SHOWN = 200
PATH_POINTS_SHOWN = 200
INTERVAL_ALPHA = 0.05


def report(guard: FlagGuard, t: float) -> dict[str, Any]:
    """Return the state of a life: its decision and each comparison, down to the tosses.

    Args:
        t: seconds on the clock of the events, for what depends on the present.
    """
    return {
        "decision": guard.decision.to_document(),
        "policy": {
            "alpha": guard.policy.alpha,
            "margin": guard.policy.margin,
            "control": guard.policy.control,
        },
        "life_started_at": guard.started_at,
        "comparisons": [_comparison(standing, guard.alpha_each) for standing in guard.standings(t)],
    }


def _comparison(nearest: Standing, alpha: float) -> dict[str, Any]:
    comparison = nearest.comparison
    heard = _replay(comparison, nearest.stream)
    tosses = by_share(
        (toss.share, bool(toss.in_treatment)) for _, batch, _ in heard for toss in batch
    )
    kinds, instances = list(comparison.kinds), list(comparison.instances)
    low, high = ratio_interval(tosses, INTERVAL_ALPHA) if tosses else (0.0, float("inf"))
    return {
        "split": comparison.split,
        "treatment": _arm(comparison.treatment, comparison.in_treatment, nearest, True),
        "control": _arm(comparison.control, comparison.in_control, nearest, False),
        "alpha": alpha,
        "stream": nearest.name,
        "e_value": nearest.e_value,
        "threshold": nearest.threshold,
        "rate_witness": nearest.rate_witness,
        "rate_witness_needed": WITNESS_BAR,
        "held_back": nearest.objection,
        "expected_share": nearest.stream.expected_share,
        "chance": tail_probability(tosses) if tosses else 1.0,
        "ratio": nearest.ratio,
        "ratio_interval": {
            "confidence": 1.0 - INTERVAL_ALPHA,
            "low": low,
            "high": high if isfinite(high) else None,
        },
        "streams": [_stream(comparison, stream, alpha) for stream in _streams(comparison)],
        "path": [{"t": t, "e_value": e} for t, _, e in heard][-PATH_POINTS_SHOWN:],
        "tosses": [
            _toss(comparison, kinds, instances, t, toss) for t, batch, _ in heard for toss in batch
        ][-TOSSES_SHOWN:],
    }


def _arm(variant: str, counts: Counts, nearest: Standing, is_treatment: bool) -> dict[str, Any]:
    stream = nearest.stream
    return {
        "variant": variant,
        "exposures": counts.exposures,
        "errors": counts.errors,
        "error_rate": counts.errors / counts.exposures if counts.exposures else 0.0,
        "failing_units": stream.in_treatment if is_treatment else stream.in_control,
    }


def _streams(comparison: Comparison) -> list[tuple[str, Stream, float]]:
    """Return (name, stream, rate witness of its epoch) of every stream that is open."""
    return [
        (comparison.name_of(epoch, stream), stream, epoch.rate_witness)
        for epoch, stream in comparison.streams()
    ]


def _stream(
    comparison: Comparison, named: tuple[str, Stream, float], alpha: float
) -> dict[str, Any]:
    name, stream, witness = named
    return {
        "name": name,
        "opened_at": stream.opened_s,
        "alpha_share": stream.share,
        "e_value": stream.coin.value,
        "threshold": 1.0 / (alpha * stream.share),
        "rate_witness": witness,
        "treatment_units": stream.in_treatment,
        "control_units": stream.in_control,
    }


def _replay(comparison: Comparison, stream: Stream) -> list[tuple[float, list[Toss], float]]:
    """Return (t, tosses, e-value after them) for every batch that the stream heard.

    After thinning the log holds a sample of the units, and so the path runs below the stream's.
    """
    again = stream.restarted(comparison.bets)
    return [(t, tosses, again.coin.value) for t, tosses in comparison.replay_batches(again)]


def _toss(
    comparison: Comparison, kinds: list[str], instances: list[str], t: float, toss: Toss
) -> dict[str, Any]:
    return {
        "t": t,
        "unit": f"{toss.unit:016x}",
        "kind": kinds[toss.kind],
        "variant": comparison.treatment if toss.in_treatment else comparison.control,
        "instance": instances[toss.instance],
    }
