"""The judge of gates where facts are missing: none of them ever makes anything healthy."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagd_server.domain.answers import Alerts, HealthAnswer, Samples, Unknown
from flagd_server.domain.gate_verdicts import Exposures, Facts, FlagGuard, judge
from flagd_server.domain.gates import GateDefinition
from flagd_server.domain.objectives import Counted
from tests.server.domain.gate_samples import (
    BAD,
    DUNNO,
    FULL,
    GOOD,
    HEALTHY,
    INF,
    KILL,
    NAN,
    NOW,
    samples,
    slo_state,
)

UNHEALTHY = replace(
    HEALTHY,
    answers={
        "health_checks[0]": HealthAnswer(500),
        "health_checks[1]": HealthAnswer(503),
        "prometheus[0]": samples(0.9),
        "prometheus[1]": samples(0),
        "alertmanager": Alerts(("A",), 1),
    },
    slo=slo_state(budget=Counted.of(10_000, 900), w1h=Counted.of(900, 90), w5m=Counted.of(900, 90)),
    guards=(FlagGuard("f", True, is_held=True), FlagGuard("g", False, kill=KILL)),
)
# Each fact in every way unknown.
NO_ANSWERS: list[Any] = [None, Unknown("x"), Samples(()), samples(NAN), samples(INF, NAN)]
MISSING: dict[str, list[Any]] = {
    "slo": [None, slo_state(), slo_state(budget=Counted.of(10, 0), w1h=Counted.of(1, 0))],
    "guards": [
        None,
        (),
        (FlagGuard("f", True),),
        (FlagGuard("f", True), FlagGuard("g", False)),
        (FlagGuard("f", True), FlagGuard("g", True, blind=("no summaries",))),
    ],
    "exposures": [None, Exposures(99, 1)],
    "approval": [None, replace(HEALTHY.approval, expires_at=NOW)],  # type: ignore[type-var]
}
UNKNOWNS = [
    *(("answers", check, answer) for check in HEALTHY.answers for answer in NO_ANSWERS),
    *((field, None, value) for field, values in MISSING.items() for value in values),
]


def without(facts: Facts, unknown: tuple[str, str | None, Any]) -> Facts:
    field, check, value = unknown
    if check is None:
        return replace(facts, **{field: value})
    if value is None:
        return replace(facts, answers={k: v for k, v in facts.answers.items() if k != check})
    return replace(facts, answers={**facts.answers, check: value})


def test_all_is_well_where_every_fact_is() -> None:
    verdict = judge(FULL, HEALTHY)
    assert verdict.word is GOOD, verdict.against()
    assert len(verdict.reasons) == 11


@given(st.sets(st.sampled_from(range(len(UNKNOWNS))), min_size=1))
def test_no_missing_fact_ever_gives_healthy(chosen: set[int]) -> None:
    facts = HEALTHY
    for number in chosen:
        facts = without(facts, UNKNOWNS[number])
    verdict = judge(FULL, facts)
    assert verdict.word is DUNNO
    assert verdict.against()


@given(st.sets(st.sampled_from(range(len(UNKNOWNS))), min_size=1), st.data())
def test_no_missing_fact_makes_a_part_of_a_gate_healthy(chosen: set[int], data: Any) -> None:
    """Each check alone: it is healthy only if its own fact is there."""
    parts = {
        "answers": {
            "health_checks[0]": GateDefinition(health_checks=FULL.health_checks[:1]),
            "prometheus[0]": GateDefinition(prometheus=FULL.prometheus[:1]),
            "alertmanager": GateDefinition(alertmanager=FULL.alertmanager),
        },
        "slo": {None: GateDefinition(slo=FULL.slo)},
        "guards": {None: GateDefinition(guard=FULL.guard)},
        "exposures": {None: GateDefinition(min_exposures=FULL.min_exposures)},
        "approval": {None: GateDefinition(approval=True)},
    }
    unknown = UNKNOWNS[data.draw(st.sampled_from(sorted(chosen)))]
    gate = parts[unknown[0]].get(unknown[1])
    if gate is not None:
        assert judge(gate, HEALTHY).word is GOOD
        assert judge(gate, without(HEALTHY, unknown)).word is DUNNO


@given(st.sets(st.sampled_from(range(len(UNKNOWNS)))))
def test_what_is_missing_hides_no_other_fault(chosen: set[int]) -> None:
    """Of an unhealthy gate, a fact less may leave doubt; it takes all of them to lose the word."""
    facts = UNHEALTHY
    for number in chosen:
        facts = without(facts, UNKNOWNS[number])
    verdict = judge(FULL, facts)
    assert verdict.word is not GOOD
    still_known = any(facts.answers.get(check) == fact for check, fact in UNHEALTHY.answers.items())
    if still_known:
        assert verdict.word is BAD
