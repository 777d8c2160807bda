"""The verdict of a gate: facts in, verdict out. The judge never fetches.

Each check says `healthy`, `unhealthy` or `inconclusive`, with a reason that a person can act on.
The gate says the worst of them. What is not known is inconclusive, whatever it is that is missing:
`judge` has no way from a missing fact to `healthy`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from flagd_server.domain.answers import (
    MAX_NAMED,
    Alerts,
    Answer,
    HealthAnswer,
    Samples,
    Unknown,
    finite,
)
from flagd_server.domain.configuration import Kill
from flagd_server.domain.gates import (
    AlertmanagerCheck,
    Approval,
    GateDefinition,
    GuardCheck,
    MinExposures,
    Op,
    PrometheusCheck,
    SloCheck,
)
from flagd_server.domain.health import Health, Reason, worst
from flagd_server.domain.objectives import BUDGET, ObjectiveState, SloState
from flagd_server.domain.times import format_time

_OPS: Mapping[Op, tuple[str, Callable[[float, float], bool]]] = {
    "lt": ("<", lambda value, threshold: value < threshold),
    "lte": ("≤", lambda value, threshold: value <= threshold),
    "gt": (">", lambda value, threshold: value > threshold),
    "gte": ("≥", lambda value, threshold: value >= threshold),
}
BURN_LONG, BURN_SHORT = "1h", "5m"
"""The windows in which a gate looks at the burn rate: those of the fastest alert."""


@dataclass(frozen=True, slots=True)
class Verdict:
    word: Health
    reasons: tuple[Reason, ...]

    @classmethod
    def of(cls, reasons: Iterable[Reason]) -> "Verdict":
        """Return the worst of the reasons; without any, nothing is known."""
        given = tuple(reasons)
        return cls(worst(given), given)

    @property
    def is_green(self) -> bool:
        return self.word is Health.HEALTHY

    def against(self) -> str:
        """Return, in one line, what keeps it from being healthy."""
        return "; ".join(r.detail for r in self.reasons if r.word is not Health.HEALTHY)


@dataclass(frozen=True, slots=True)
class FlagGuard:
    """How the guard of one flag stands.

    Attributes:
        is_watched: a life of the guard runs.
        blind: why it can't see.
        kill: what holds the flag off.
    """

    flag: str
    is_watched: bool
    is_held: bool = False
    blind: tuple[str, ...] = ()
    kill: Kill | None = None


@dataclass(frozen=True, slots=True)
class Exposures:
    """Of one flag in one version of its configuration."""

    count: int
    config_version: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a judge is told. What is None, or not there, is not known.

    Attributes:
        answers: of others, by the name of the check.
        guards: of the flags named, or of those that the deployment serves.
        served: how many flags the deployment was seen to serve.
        against: what speaks against the deployment itself, such as that its version is at fault.
    """

    now: datetime
    answers: Mapping[str, Answer | None]
    slo: SloState | None = None
    guards: tuple[FlagGuard, ...] | None = None
    served: int = 0
    against: tuple[str, ...] = ()
    exposures: Exposures | None = None
    approval: Approval | None = None


def judge(gate: GateDefinition, facts: Facts) -> Verdict:
    """Return what the facts say of the gate."""
    return Verdict.of(_reasons(gate, facts))


def _reasons(gate: GateDefinition, facts: Facts) -> Iterator[Reason]:
    for number, url in enumerate(gate.health_checks):
        check = f"health_checks[{number}]"
        yield Reason(check, *_health(url, facts.answers.get(check)))
    if gate.slo is not None:
        for word, detail in _slo(gate.slo, facts.slo):
            yield Reason("slo", word, detail)
    for number, asked in enumerate(gate.prometheus):
        check = f"prometheus[{number}]"
        yield Reason(check, *_prometheus(asked, facts.answers.get(check)))
    if gate.alertmanager is not None:
        yield Reason("alertmanager", *_alerts(gate.alertmanager, facts.answers.get("alertmanager")))
    if gate.guard is not None:
        for word, detail in _guard(gate.guard, facts):
            yield Reason("guard", word, detail)
    if gate.min_exposures is not None:
        yield Reason("min_exposures", *_exposures(gate.min_exposures, facts.exposures))
    if gate.approval:
        yield Reason("approval", *_approval(facts))


Said = tuple[Health, str]


def _unanswered(whom: str, answer: Answer | None) -> Said:
    """Return what is said where the answer is none."""
    if isinstance(answer, Unknown):
        return Health.INCONCLUSIVE, answer.detail
    return Health.INCONCLUSIVE, f"{whom} has not answered yet"


def _health(url: str, answer: Answer | None) -> Said:
    shown = url.partition("?")[0]
    if not isinstance(answer, HealthAnswer):
        return _unanswered(shown, answer)
    said = f"{shown} answered {answer.status}"
    if 200 <= answer.status < 300:
        return Health.HEALTHY, said
    if answer.status >= 500:
        return Health.UNHEALTHY, said
    # A redirect, a missing page or a missing token says nothing about health.
    return Health.INCONCLUSIVE, f"{said}; expected 200 to 299 from a health check"


def _prometheus(check: PrometheusCheck, answer: Answer | None) -> Said:
    if not isinstance(answer, Samples):
        return _unanswered("Prometheus", answer)
    sign, holds = _OPS[check.op]
    wanted = f"{sign} {check.threshold:g}"
    known = finite(answer)
    against = [sample for sample in known if not holds(sample.value, check.threshold)]
    if against:
        worst = (max if check.op in ("lt", "lte") else min)(against, key=lambda row: row.value)
        more = f" and {len(against) - 1} more" if len(against) > 1 else ""
        which = f" of {worst.labels}" if worst.labels else ""
        return Health.UNHEALTHY, f"{check.query}{which} is {worst.value:g}{more}; expected {wanted}"
    if not answer.items:
        return Health.INCONCLUSIVE, f"{check.query} gives nothing; expected a number {wanted}"
    if len(known) < len(answer.items):
        return (
            Health.INCONCLUSIVE,
            f"{check.query} gives no number for {len(answer.items) - len(known)} of"
            f" {len(answer.items)} series; is there traffic?",
        )
    values = ", ".join(f"{sample.value:g}" for sample in known[:MAX_NAMED])
    return Health.HEALTHY, f"{check.query} is {values}, {wanted}"


def _alerts(check: AlertmanagerCheck, answer: Answer | None) -> Said:
    if not isinstance(answer, Alerts):
        return _unanswered("Alertmanager", answer)
    matching = " and ".join(check.matchers)
    if answer.count == 0:
        return Health.HEALTHY, f"no alert fires that matches {matching}"
    return (
        Health.UNHEALTHY,
        f"{answer.count} firing that match {matching}: {', '.join(answer.names)}",
    )


def _slo(check: SloCheck, state: SloState | None) -> Iterator[Said]:
    if state is None:
        yield Health.INCONCLUSIVE, f"service {check.service} has no objective here any more"
        return
    why = f" ({state.faults[0]})" if state.faults else ""
    for objective in state.objectives:
        name = f"{objective.name} of {check.service}"
        if check.error_budget_left_at_least is not None:
            yield _budget(name, objective, check.error_budget_left_at_least, why)
        if check.burn_rate_below is not None:
            yield _burn(name, objective, check.burn_rate_below, why)


def _budget(name: str, objective: ObjectiveState, least: float, why: str) -> Said:
    left = objective.budget_left
    if left is None:
        return Health.INCONCLUSIVE, f"{name}: nothing is known of the error budget{why}"
    said = f"{name}: {left:.1%} of the error budget is left"
    if left < least and objective.has_failures(BUDGET):
        return Health.UNHEALTHY, f"{said}; expected at least {least:.1%}"
    lacking = objective.lacks(BUDGET, 1.0)
    if left < least or lacking:
        return Health.INCONCLUSIVE, f"{said}, but of too few exposures{_wait_for(lacking)}"
    return Health.HEALTHY, said


def _burn(name: str, objective: ObjectiveState, below: float, why: str) -> Said:
    long, short = objective.burn(BURN_LONG), objective.burn(BURN_SHORT)
    if long is None or (long >= below and short is None):
        return Health.INCONCLUSIVE, f"{name}: nothing is known of the last hour's burn rate{why}"
    said = f"{name}: burns its budget {long:.3g} times too fast over {BURN_LONG}"
    if long < below:
        lacking = objective.lacks(BURN_LONG, below)
        if lacking:
            return Health.INCONCLUSIVE, f"{said}, but of too few exposures{_wait_for(lacking)}"
        return Health.HEALTHY, said
    assert short is not None
    said += f", {short:.3g} times over {BURN_SHORT}"
    if short < below:
        lacking = objective.lacks(BURN_SHORT, below)
        if lacking:
            return (
                Health.INCONCLUSIVE,
                f"{said}, the latter of too few exposures{_wait_for(lacking)}",
            )
        return Health.HEALTHY, f"{said}: it has stopped"
    if objective.has_failures(BURN_LONG):
        return Health.UNHEALTHY, f"{said}; expected below {below:g}"
    return Health.INCONCLUSIVE, f"{said}, but of too few failures to say"


def _wait_for(exposures: int) -> str:
    return f" to say: wait for {exposures} more" if exposures else " to say"


def _guard(check: GuardCheck, facts: Facts) -> Iterator[Said]:
    deployment = check.deployment
    if facts.guards is None:
        of = (
            "the flags' guards"
            if deployment is None
            else f"version {deployment.version} of {deployment.service}: nothing reports it"
        )
        yield Health.INCONCLUSIVE, f"nothing is known of {of}"
        return
    yield from ((Health.UNHEALTHY, detail) for detail in facts.against)
    known = {guard.flag: guard for guard in facts.guards}
    if deployment is None:
        for flag in check.flags:
            yield _flag_guard(flag, known.get(flag))
    elif facts.guards:
        for guard in facts.guards:
            yield _flag_guard(guard.flag, guard)
    else:
        # Nothing is missing: the version reports, and no flag that it serves is being compared.
        yield (
            Health.HEALTHY,
            f"none of the {facts.served} flags that version {deployment.version} of"
            f" {deployment.service} serves is split",
        )


def _flag_guard(flag: str, guard: FlagGuard | None) -> Said:
    if guard is None:
        return Health.INCONCLUSIVE, f"there is no flag {flag} here"
    if guard.kill is not None:
        kill = guard.kill
        when = format_time(kill.at)
        return Health.UNHEALTHY, f"flag {flag} was killed by {kill.by} at {when}: {kill.reason}"
    if guard.is_held:
        return Health.UNHEALTHY, f"the guard of flag {flag} has decided against it"
    if not guard.is_watched:
        return (
            Health.INCONCLUSIVE,
            f"nobody watches flag {flag}: it is off, not split, or its guard is off",
        )
    if guard.blind:
        return Health.INCONCLUSIVE, f"the guard of flag {flag} cannot see: {', '.join(guard.blind)}"
    return Health.HEALTHY, f"the guard of flag {flag} sees, and has nothing against it"


def _exposures(check: MinExposures, seen: Exposures | None) -> Said:
    if seen is None:
        return Health.INCONCLUSIVE, f"there is no flag {check.flag} here"
    said = (
        f"{seen.count} exposures of {check.flag} since version {seen.config_version}"
        f" of its configuration"
    )
    if seen.count >= check.count:
        return Health.HEALTHY, said
    return Health.INCONCLUSIVE, f"{said}; expected {check.count}"


def _approval(facts: Facts) -> Said:
    approval = facts.approval
    if approval is None:
        return Health.INCONCLUSIVE, "waits for a person's approval"
    given = f"{approval.by} approved at {format_time(approval.at)}"
    until = format_time(approval.expires_at)
    if not approval.at <= facts.now < approval.expires_at:
        return Health.INCONCLUSIVE, f"{given}, which held until {until}: approve again"
    return Health.HEALTHY, f"{given}, until {until}: {approval.reason}"
