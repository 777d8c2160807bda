"""May a deployment go on? What was found of it → a verdict, with reasons that a person can act on.

Missing data is inconclusive, never healthy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flagd_server.domain.guard.deployment_verdict import DeploymentVerdict
from flagd_server.domain.guard.verdict_table import Word
from flagd_server.domain.health import Health, Reason, worst
from flagd_server.stats.burn import BurnTest, allowed_rate

# A failure rate that is as allowed shows such evidence once in a thousand services.
_MISSED_E = 1_000.0
# Without a failure in 3 / d requests the rate is below d with 95 % confidence (Hanley and Lippman-
# Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).
_RULE_OF_THREE = 3.0


class SloWord(StrEnum):
    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SloState:
    """How one version does by its service's objective.

    Attributes:
        availability: the objective.
        burn_rate: how many times faster than allowed the error budget burns; 1 is as allowed.
        e_value: evidence that more fails than is allowed.
    """

    availability: float
    word: SloWord
    exposures: int
    errors: int
    burn_rate: float
    e_value: float
    detail: str


@dataclass(frozen=True, slots=True)
class FlagState:
    """A flag that the deployment brought, as it is guarded now.

    Attributes:
        off: who turned it off and why, where a kill stands.
        decided: why its guard decided against it, where it did without a kill.
        held: why its guard holds it, where it does.
        blind: why its guard can't see; empty where it can, or where nobody watches.
    """

    flag: str
    off: str | None
    decided: str | None
    held: str | None
    blind: Sequence[str]


def slo_state(availability: float, windows: Iterable[tuple[float, int, int]]) -> SloState:
    """Hold a version to an availability objective.

    Args:
        windows: (beginning in seconds, exposures, errors) in the order of time.
    """
    allowed = allowed_rate(availability)
    exposures = errors = 0
    test: BurnTest | None = None
    for t, exposed, failed in windows:
        test = test or BurnTest.start(allowed, t)
        test.update(t, exposed, failed)
        exposures += exposed
        errors += failed
    e_value = 1.0 if test is None else test.value
    rate = errors / exposures if exposures else 0.0
    needed = round(_RULE_OF_THREE / allowed)
    spoken = f"{errors} of {exposures} requests failed where {allowed:.3%} may"
    if e_value >= _MISSED_E:
        word, detail = SloWord.MISSED, f"the objective is missed: {spoken}"
    elif exposures < needed:
        word = SloWord.UNKNOWN
        detail = f"{spoken}: too few to tell, {needed} are needed"
    elif rate > allowed:
        word, detail = SloWord.UNKNOWN, f"{spoken}: more than allowed, and not yet certain"
    else:
        word, detail = SloWord.MET, spoken
    return SloState(availability, word, exposures, errors, rate / allowed, e_value, detail)


def health_of(
    exposures: int,
    window_s: int,
    slo: SloState | None,
    verdict: DeploymentVerdict,
    flags: Iterable[FlagState],
) -> tuple[Health, list[Reason]]:
    """Return the verdict with every check that it is made of.

    Args:
        exposures: requests that met the version within the last `window_s` seconds.
        slo: None where the service has no objective.
        flags: those that the deployment brought.
    """
    checks = [
        _check_traffic(exposures, window_s),
        *([] if slo is None else [_check_slo(slo)]),
        _check_verdict(verdict, slo),
        *map(_check_flag, flags),
    ]
    return worst(checks), checks


def _check_traffic(exposures: int, window_s: int) -> Reason:
    minutes = window_s // 60
    if exposures:
        return Reason("traffic", Health.HEALTHY, f"{exposures} requests in {minutes} minutes")
    return Reason(
        "traffic",
        Health.INCONCLUSIVE,
        f"no request met it in the last {minutes} minutes: send it traffic, and open a scope"
        " around each request",
    )


def _check_slo(slo: SloState) -> Reason:
    health = {
        SloWord.MET: Health.HEALTHY,
        SloWord.MISSED: Health.UNHEALTHY,
        SloWord.UNKNOWN: Health.INCONCLUSIVE,
    }
    return Reason("slo", health[slo.word], slo.detail)


def _check_verdict(verdict: DeploymentVerdict, slo: SloState | None) -> Reason:
    detail = f"{verdict.word}: {'; '.join(verdict.reasons)}"
    if verdict.word is Word.NEITHER:
        return Reason("verdict", Health.HEALTHY, detail)
    if verdict.word is not Word.CANNOT_TELL:
        return Reason("verdict", Health.UNHEALTHY, detail)
    # A version that hardly fails leaves nothing to compare: then the objective has the word.
    if slo is not None and slo.word is SloWord.MET:
        return Reason("verdict", Health.HEALTHY, f"nothing speaks against it; {detail}")
    advice = "" if slo is not None else "; with an objective for the service few failures would do"
    return Reason("verdict", Health.INCONCLUSIVE, f"{detail}{advice}")


def _check_flag(flag: FlagState) -> Reason:
    name = f"flag {flag.flag}"
    if flag.off is not None:
        return Reason(name, Health.UNHEALTHY, f"it is off: {flag.off}")
    if flag.decided is not None:
        return Reason(name, Health.UNHEALTHY, f"its guard decided against it: {flag.decided}")
    if flag.held is not None:
        return Reason(name, Health.INCONCLUSIVE, f"its guard holds it: {flag.held}")
    if flag.blind:
        return Reason(name, Health.INCONCLUSIVE, f"its guard can't see: {'; '.join(flag.blind)}")
    return Reason(name, Health.HEALTHY, "no guard speaks against it")
