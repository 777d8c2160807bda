"""From the evidence of a comparison to a verdict: kill, hold, or neither.

A kill needs more than one stream beyond its threshold. The rate witness must agree (a feature may
change how often its users ask), the evidence must not hang on one process, and it must not come
from processes that appeared only once it had begun.
"""

from collections import Counter
from dataclasses import dataclass, replace
from math import exp, log

from flagd_server.domain.guard.comparison import ERROR_PREFIX, Comparison
from flagd_server.domain.guard.streams import Epoch, Stream
from flagd_server.domain.guard.window import WINDOW_S
from flagd_server.stats.intervals import ratio_estimate

WITNESS_BAR = 10.0
LEAST_TREATMENT_UNITS = 3
LONE_INSTANCE_FROM = 3
NEWCOMERS_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one stream stands.

    Attributes:
        objection: why a stream beyond its threshold does not kill; None where nothing objects.
    """

    epoch: Epoch
    stream: Stream
    name: str
    e_value: float
    rate_witness: float
    threshold: float
    objection: str | None = None

    @property
    def is_decisive(self) -> bool:
        return self.e_value >= self.threshold

    @property
    def kills(self) -> bool:
        return self.is_decisive and self.objection is None

    @property
    def ratio(self) -> float:
        return ratio_estimate(self.stream.treatment_mass, self.stream.control_mass)


def judge(comparison: Comparison, alpha: float, t: float) -> Standing:
    """Return the standing that matters most: one that kills, else the nearest to its threshold.

    Args:
        alpha: this comparison's part of the flag's false-kill probability.
    """
    kills: list[Standing] = []
    nearest: tuple[Epoch, Stream, float] | None = None
    nearest_score = -1.0
    for epoch in comparison.epochs:
        for stream in epoch.streams():
            e_value = stream.coin.value
            score = e_value * stream.share
            if score * alpha >= 1.0:
                standing = _standing(comparison, alpha, epoch, stream, e_value, t)
                if standing.kills:
                    kills.append(standing)
            if score > nearest_score:
                nearest, nearest_score = (epoch, stream, e_value), score
    assert nearest is not None
    if kills:
        return max(kills, key=lambda standing: standing.e_value / standing.threshold)
    return _standing(comparison, alpha, *nearest, t)


def _standing(
    comparison: Comparison, alpha: float, epoch: Epoch, stream: Stream, e_value: float, t: float
) -> Standing:
    assert epoch.errors.witness is not None
    what = "errors" if stream.kind is None else comparison.kinds[stream.kind]
    standing = Standing(
        epoch=epoch,
        stream=stream,
        name=f"{what}, {epoch.name}",
        e_value=e_value,
        rate_witness=epoch.errors.witness.value,
        threshold=1.0 / (alpha * stream.share),
    )
    if not standing.is_decisive:
        return standing
    return replace(standing, objection=_objection(comparison, standing, t))


def _objection(comparison: Comparison, standing: Standing, t: float) -> str | None:
    stream = standing.stream
    if stream.kind is not None and standing.epoch.errors.coin.value < WITNESS_BAR:
        return (
            "errors of every kind together do not fall more often on its users: "
            "errors that only changed their name look like this"
        )
    if standing.rate_witness < WITNESS_BAR:
        return (
            "measured by exposures the rates do not differ enough: "
            "a feature whose users ask more often looks like this"
        )
    if stream.in_treatment < LEAST_TREATMENT_UNITS:
        return f"fewer than {LEAST_TREATMENT_UNITS} units of the treatment have failed"
    return _lone_instance(comparison, stream, t) or _newcomers(comparison, standing, t)


def _lone_instance(comparison: Comparison, stream: Stream, t: float) -> str | None:
    if comparison.serving_instances(t) < LONE_INSTANCE_FROM:
        return None
    loudness = Counter(
        toss.instance
        for toss in comparison.log
        if toss.in_treatment
        and toss.batch >= stream.first_batch
        and (stream.kind is None or toss.kind == stream.kind)
    )
    # Ties go to the process that appeared first, so that the answer can be given again.
    loudest = min(loudness, key=lambda index: (-loudness[index], index))
    rest = comparison.replay(stream, frozenset({loudest}))
    if rest.coin.value >= WITNESS_BAR:
        return None
    name = list(comparison.instances)[loudest]
    return f"without process {name} the evidence is only {_spoken(rest.coin.value)}"


def _newcomers(comparison: Comparison, standing: Standing, t: float) -> str | None:
    """Processes that appeared after the evidence began may carry at most a fifth of it.

    One known for ten minutes is a newcomer no longer: a crash loop must not shield a bad flag.
    """
    began = standing.stream.rising_since
    newcomers = frozenset(
        known.index
        for known in comparison.instances.values()
        if known.since > t - WINDOW_S and (began is None or known.since > began)
    )
    if not newcomers:
        return None
    needed = exp((1.0 - NEWCOMERS_SHARE) * log(standing.threshold))
    rest = comparison.replay(standing.stream, newcomers)
    if rest.coin.value >= needed:
        return None
    return (
        f"{len(newcomers)} processes that appeared after the evidence began carry too much of it "
        f"(without them {_spoken(rest.coin.value)}, needed {_spoken(needed)})"
    )


def explain(comparison: Comparison, standing: Standing) -> str:
    """Return one sentence that a person who knows no statistics can read."""
    stream = standing.stream
    total = stream.in_treatment + stream.in_control
    if total == 0:
        return "no unit has failed yet"
    kind = None if stream.kind is None else comparison.kinds[stream.kind]
    of_kind = "" if kind is None else f" with {kind.removeprefix(ERROR_PREFIX)}"
    found = (
        f"{stream.in_treatment} of {total} failing units{of_kind} had "
        f"“{comparison.treatment}”, {stream.expected_share:.1%} expected by chance"
    )
    compared = f"evidence {_spoken(standing.e_value)} of {_spoken(standing.threshold)} needed"
    if standing.kills:
        by_exposures = f"by exposures {_spoken(standing.rate_witness)} of {WITNESS_BAR:.0f}"
        return f"{found}: {compared}, {by_exposures}"
    if standing.is_decisive:
        return f"{found}: {compared}, but held back: {standing.objection}"
    return f"{found}: {compared}"


def _spoken(value: float) -> str:
    if value >= 1e9:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
