"""The evidence behind a decision, or behind the running state, as one JSON document.

It says what was seen and how that was weighed, so that the decision can be checked by hand.
"""

from dataclasses import asdict
from functools import partial
from math import isfinite
from typing import Any

from flagd_sdk.core.guard.agreement import rate_bar
from flagd_sdk.core.guard.streams import Stream, by_share
from flagd_sdk.core.guard.tosses import Toss
from flagd_server.domain.guard.arms import Counts
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.harm import excess_failures
from flagd_server.domain.guard.judgement import Standing, rate_witness
from flagd_server.domain.guard.metrics import ERRORS
from flagd_server.domain.guard.pair import Pair
from flagd_server.domain.guard.verdict_table import VersionCoin
from flagd_server.domain.guard.version_verdict import ServiceVersion, Verdict, judge_versions
from flagd_server.domain.guard.versions import VersionBook
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
            name: value
            for name, value in asdict(guard.policy).items()
            if name not in ("off_variant", "slos")
        },
        "life_started_at": guard.started_at,
        "blind": [asdict(blind) for blind in guard.blindness(t)],
        "comparisons": [
            _comparison(standing, guard.alpha_of(standing.comparison.metric))
            for standing in guard.standings(t)
        ],
        "sample_ratio": [_sample(standing) for standing in guard.sample_ratios(t)],
        "availability": guard.availability.report(),
        "versions": [verdict.to_document() for verdict in version_verdicts(guard)],
        "set_aside": [row for pair in guard.pairs.values() for row in pair.set_aside],
        "harm": {
            "budget": guard.policy.harm_budget,
            "excess": sum(
                excess_failures(pair.arms.in_treatment, pair.arms.in_control)
                for pair in guard.pairs.values()
            ),
        },
    }


def version_verdicts(guard: FlagGuard, service: str | None = None) -> list[Verdict]:
    """Return the verdicts: is it the flag, a version, both, or neither?

    The coin is that of the pair which has shown most failing units.

    Args:
        service: only on this one; None means all.
    """
    book = guard.book
    if service is not None:
        book = VersionBook({name: own for name, own in book.services.items() if name == service})
    pairs = [pair for pair in guard.pairs.values() if ERRORS.name in pair.comparisons]
    coins: dict[ServiceVersion, VersionCoin] = {}
    if pairs:
        loudest = max(pairs, key=lambda pair: len(pair.comparisons[ERRORS.name].log))
        coins = _coins(book, loudest)
    controls = {pair.arms.control for pair in pairs}
    return judge_versions(book, coins, controls, guard.policy.margin)


def _coins(kept: VersionBook, pair: Pair) -> dict[ServiceVersion, VersionCoin]:
    comparison = pair.comparisons[ERRORS.name]
    stream = comparison.epochs[0].errors
    coins = {}
    for (service, version), release in pair.arms.releases.items():
        book = kept.services.get(service)
        if book is None or version not in book.versions:
            continue
        again = comparison.replay(stream, partial(_is_of, release))
        coins[service, version] = VersionCoin(
            again.coin.value, again.in_treatment, again.in_control, again.expected_share
        )
    return coins


def _is_of(release: int, toss: Toss) -> bool:
    return toss.release == release


def _sample(standing: Standing) -> dict[str, Any]:
    stream, arms = standing.stream, standing.comparison.arms
    return {
        "split": arms.split,
        "treatment": arms.treatment,
        "control": arms.control,
        "e_value": standing.e_value,
        "threshold": standing.threshold,
        "treatment_units": stream.in_treatment,
        "control_units": stream.in_control,
        "expected_share": stream.expected_share,
    }


def _comparison(nearest: Standing, alpha: float) -> dict[str, Any]:
    comparison, arms = nearest.comparison, nearest.comparison.arms
    heard = _replay(comparison, nearest.stream)
    tosses = by_share(
        (toss.share, bool(toss.in_treatment)) for _, batch, _ in heard for toss in batch
    )
    kinds, instances = list(comparison.kinds), [name for name, _ in arms.instances]
    low, high = ratio_interval(tosses, INTERVAL_ALPHA) if tosses else (0.0, float("inf"))
    return {
        "metric": comparison.metric.name,
        "split": arms.split,
        "treatment": _arm(arms.treatment, arms.in_treatment, nearest, True),
        "control": _arm(arms.control, arms.in_control, nearest, False),
        "alpha": alpha,
        "stream": nearest.name,
        "e_value": nearest.e_value,
        "threshold": nearest.threshold,
        "rate_witness": nearest.rate_witness,
        "rate_witness_needed": rate_bar(nearest.stream.kind),
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
    """Return (name, stream, its rate witness) of every stream that is open."""
    return [
        (comparison.name_of(epoch, stream), stream, rate_witness(comparison, stream))
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
        "variant": comparison.arms.treatment if toss.in_treatment else comparison.arms.control,
        "instance": instances[toss.instance],
    }
