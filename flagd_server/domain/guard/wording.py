"""One sentence on where the evidence stands, for a person who knows no statistics."""

from flagd_sdk.core.guard.agreement import rate_bar
from flagd_server.domain.guard.availability import Breach
from flagd_server.domain.guard.judgement import Standing, spoken
from flagd_server.domain.guard.metrics import ERROR_PREFIX, ERRORS


def explain(standing: Standing) -> str:
    """Return what was seen, against what chance would have done, and what follows."""
    stream, comparison = standing.stream, standing.comparison
    what = "failing" if comparison.metric is ERRORS else "slow"
    total = stream.in_treatment + stream.in_control
    if total == 0:
        return "no unit has failed yet" if comparison.metric is ERRORS else "no unit was slow yet"
    kind = comparison.kind_of(stream)
    of_kind = "" if kind is None else f" with {kind.removeprefix(ERROR_PREFIX)}"
    found = (
        f"{stream.in_treatment} of {total} {what} units{of_kind} had "
        f"“{comparison.arms.treatment}”, {stream.expected_share:.1%} expected by chance"
    )
    compared = f"evidence {spoken(standing.e_value)} of {spoken(standing.threshold)} needed"
    if standing.kills:
        by_exposures = (
            f"by exposures {spoken(standing.rate_witness)} of {rate_bar(standing.stream.kind):.0f}"
        )
        return f"{found}: {compared}, {by_exposures}"
    if standing.is_decisive:
        return f"{found}: {compared}, but held back: {standing.objection}"
    return f"{found}: {compared}"


def explain_breach(breach: Breach, is_suspect: bool) -> str:
    """Return which objective is missed, and whether the flag may have to do with it."""
    when = "soon after" if is_suspect else "not within 15 minutes of"
    return (
        f"{breach.service} misses its objective of {breach.objective:.3%}: it burns its error "
        f"budget at {breach.burn:g} times the rate that it allows or faster, which began {when} a "
        "change of this flag"
    )


def explain_sample(standing: Standing) -> str:
    """Return how the sampled units fell, against how the weights would have them fall."""
    stream, arms = standing.stream, standing.comparison.arms
    total = stream.in_treatment + stream.in_control
    return (
        f"of {total} sampled units {stream.in_treatment} had “{arms.treatment}”, "
        f"{stream.expected_share:.1%} expected by the weights: assignment or reporting is broken"
    )
