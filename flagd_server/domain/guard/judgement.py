"""From the evidence of a comparison to a verdict: kill, hold, or neither.

A kill needs more than one stream beyond its threshold. The rate witness must agree (a feature may
change how often its users ask), the evidence must not hang on one process or one token, and it
must not come from processes that appeared only once it had begun.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, log

from flagd_sdk.core.guard.agreement import Agreement
from flagd_sdk.core.guard.streams import LEAST_TREATMENT_UNITS, Epoch, Stream
from flagd_sdk.core.guard.window import WINDOW_S
from flagd_server.domain.guard.arms import Instance
from flagd_server.domain.guard.comparison import Comparison
from flagd_server.stats.intervals import ratio_estimate

# A stream's evidence from here on is worth asking about, and must hold without one process.
WITNESS_BAR = 10.0
LONE_INSTANCE_FROM, LONE_TOKEN_FROM = 3, 2
NEWCOMERS_SHARE = 0.2
# While a burn test says that the objective is being missed, less proof is asked for: E of 20 times
# what its share of alpha divides.
BURNING_E = 20.0
# A running process reports at least this often: who is heard of first within it was there before.
HEARTBEAT_S = 10.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one stream of a comparison stands.

    Attributes:
        objection: why a stream beyond its threshold does not kill; None where nothing objects.
    """

    comparison: Comparison
    epoch: Epoch
    stream: Stream
    threshold: float
    objection: str | None = None

    @property
    def name(self) -> str:
        return self.comparison.name_of(self.epoch, self.stream)

    @property
    def e_value(self) -> float:
        return self.stream.coin.value

    @property
    def rate_witness(self) -> float:
        return rate_witness(self.comparison, self.stream)

    @property
    def is_decisive(self) -> bool:
        return self.e_value >= self.threshold

    @property
    def kills(self) -> bool:
        return self.is_decisive and self.objection is None

    @property
    def ratio(self) -> float:
        return ratio_estimate(self.stream.treatment_mass, self.stream.control_mass)

    @property
    def is_against_treatment(self) -> bool:
        """Whether too many units are on the treatment's side; only a sample can have too few."""
        return not self.comparison.metric.is_two_sided or self.ratio >= 1.0


def judge(comparison: Comparison, alpha: float, t: float) -> Standing:
    """Return the standing that matters most: one that kills, else the nearest to its threshold.

    Args:
        alpha: this comparison's part of the flag's false-kill probability.
        t: the present, on the clock of the events.
    """
    nearest_first = sorted(comparison.streams(), key=lambda pair: -pair[1].score)
    nearest = _examine(comparison, *nearest_first[0], alpha, t)
    if not nearest.is_decisive or nearest.kills:
        return nearest
    for epoch, stream in nearest_first[1:]:
        other = _examine(comparison, epoch, stream, alpha, t)
        if not other.is_decisive:
            break
        if other.kills:
            return other
    return nearest


def rate_witness(comparison: Comparison, stream: Stream) -> float:
    """Return a stream's evidence by exposures; 1 where its own is too small to ask."""
    if stream.coin.value < WITNESS_BAR:
        return 1.0
    return agreement_of(comparison, stream).rate


def agreement_of(comparison: Comparison, stream: Stream) -> Agreement:
    """Return what must agree with a stream that has risen, up to date with the log."""
    return stream.agreed(comparison.log, comparison.tau)


def _examine(
    comparison: Comparison, epoch: Epoch, stream: Stream, alpha: float, t: float
) -> Standing:
    standing = Standing(comparison, epoch, stream, threshold=1.0 / (alpha * stream.share))
    if not standing.is_decisive:
        return standing
    return replace(standing, objection=_objection(standing, t))


def _objection(standing: Standing, t: float) -> str | None:
    stream, comparison = standing.stream, standing.comparison
    if standing.is_against_treatment and stream.in_treatment < LEAST_TREATMENT_UNITS:
        return f"fewer than {LEAST_TREATMENT_UNITS} units of the treatment have failed"
    if comparison.metric.has_witness:
        objection = agreement_of(comparison, stream).objection
        if objection is not None:
            return objection
    return (
        _lone(standing, t, LONE_INSTANCE_FROM, "process", _process_of)
        or _lone(standing, t, LONE_TOKEN_FROM, "token", _token_of)
        or _newcomers(standing, t)
    )


def _process_of(instance: Instance) -> str:
    return instance.name


def _token_of(instance: Instance) -> str:
    return instance.token


def _lone(
    standing: Standing, t: float, least: int, word: str, name_of: Callable[[Instance], str]
) -> str | None:
    """Where so many processes or tokens serve the variant, no single one may carry the evidence."""
    comparison = standing.comparison
    instances = list(comparison.arms.instances.values())
    loudness = Counter(
        name_of(instances[toss.instance])
        for _, tosses in comparison.heard_by(standing.stream)
        for toss in tosses
        if bool(toss.in_treatment) is standing.is_against_treatment
    )
    if not loudness:
        return f"too few of its units are still kept to tell whether one {word} carries it"
    # Who has spoken and gone still counts: by falling silent nobody becomes more believable.
    speakers = loudness.keys() | {name_of(each) for each in comparison.arms.serving(t)}
    if comparison.metric.name in comparison.arms.accused_at:
        # Until it is known whether somebody forges, whoever reports of the split contradicts.
        speakers |= {name_of(each) for each in instances if not each.is_set_aside}
    if len(speakers) < least:
        return None
    # Ties go to the one that appeared first, so that the answer can be given again.
    order = {name: k for k, name in reversed(list(enumerate(map(name_of, instances))))}
    loudest = min(loudness, key=lambda name: (-loudness[name], order[name]))
    rest = comparison.replay(
        standing.stream, lambda toss: name_of(instances[toss.instance]) != loudest
    )
    if rest.coin.value >= WITNESS_BAR:
        return None
    return f"without {word} {loudest} the evidence is only {spoken(rest.coin.value)}"


def _newcomers(standing: Standing, t: float) -> str | None:
    """Processes not known before the evidence began may carry at most a fifth of it.

    One known for ten minutes is a newcomer no longer: a crash loop must not shield a bad flag.
    """
    comparison, began = standing.comparison, standing.stream.began
    assert began is not None, "a decisive stream has risen"
    known_before = max(t - WINDOW_S, comparison.started_at + HEARTBEAT_S)
    newcomers = {
        known.index
        for known in comparison.arms.instances.values()
        if known.since >= began and known.since > known_before
    }
    if not newcomers:
        return None
    needed = exp((1.0 - NEWCOMERS_SHARE) * log(standing.threshold))
    rest = comparison.replay(standing.stream, lambda toss: toss.instance not in newcomers)
    if rest.coin.value >= needed:
        return None
    return (
        f"{len(newcomers)} processes that appeared after the evidence began carry too much of it "
        f"(without them {spoken(rest.coin.value)}, needed {spoken(needed)})"
    )


def spoken(value: float) -> str:
    """Return a number as a person would write it in a sentence."""
    if value >= 1e9:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
