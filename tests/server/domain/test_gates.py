"""The judge of gates: facts in, verdict out."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flagd_server.domain.answers import Alerts, HealthAnswer, Samples, Unknown
from flagd_server.domain.gate_verdicts import Exposures, Facts, FlagGuard, Verdict, judge
from flagd_server.domain.gates import (
    AlertmanagerCheck,
    Approval,
    Deployment,
    GateDefinition,
    GuardCheck,
    MinExposures,
    PrometheusCheck,
    SloCheck,
)
from flagd_server.domain.health import Health, Reason
from flagd_server.domain.objectives import NOTHING, Counted
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

FACTS = Facts(NOW, {})


def one(gate: GateDefinition, facts: Facts) -> Reason:
    verdict = judge(gate, facts)
    (reason,) = verdict.reasons
    assert verdict.word is reason.word
    return reason


def test_a_gate_without_checks_says_nothing() -> None:
    assert not GateDefinition(description="x").has_checks()
    assert judge(GateDefinition(), FACTS) == Verdict(DUNNO, ())


@pytest.mark.parametrize(
    ("words", "worst"),
    [
        ([GOOD, GOOD], GOOD),
        ([GOOD, DUNNO], DUNNO),
        ([DUNNO, BAD, GOOD], BAD),
        ([], DUNNO),
    ],
)
def test_a_verdict_is_the_worst_of_its_reasons(words: list[Health], worst: Health) -> None:
    verdict = Verdict.of(Reason("c", word, word.value) for word in words)
    assert (verdict.word, verdict.is_green) == (worst, worst is GOOD)
    assert verdict.against() == "; ".join(word.value for word in words if word is not GOOD)


@pytest.mark.parametrize(
    ("answer", "word", "detail"),
    [
        (HealthAnswer(200), GOOD, "answered 200"),
        (HealthAnswer(204), GOOD, "answered 204"),
        (HealthAnswer(500), BAD, "answered 500"),
        (HealthAnswer(503), BAD, "answered 503"),
        (HealthAnswer(301), DUNNO, "answered 301; expected 200 to 299"),
        (HealthAnswer(404), DUNNO, "answered 404; expected 200 to 299"),
        (HealthAnswer(429), DUNNO, "answered 429"),
        (Unknown("it hangs"), DUNNO, "it hangs"),
        (Samples(()), DUNNO, "has not answered yet"),
        (None, DUNNO, "https://shop.example/healthz has not answered yet"),
    ],
)
def test_health_checks(answer: Any, word: Health, detail: str) -> None:
    gate = GateDefinition(health_checks=("https://shop.example/healthz?token=secret",))
    reason = one(gate, replace(FACTS, answers={"health_checks[0]": answer}))
    assert (reason.check, reason.word) == ("health_checks[0]", word)
    assert detail in reason.detail
    assert "secret" not in reason.detail


@pytest.mark.parametrize(
    ("op", "answer", "word", "detail"),
    [
        ("lt", samples(0.1), GOOD, "up is 0.1, < 0.5"),
        ("lt", samples(0.5), BAD, "up of s0 is 0.5; expected < 0.5"),
        ("lte", samples(0.5), GOOD, "≤ 0.5"),
        ("gt", samples(0.5), BAD, "expected > 0.5"),
        ("gte", samples(0.5), GOOD, "≥ 0.5"),
        ("lt", samples(0.1, 0.9, 0.8), BAD, "up of s1 is 0.9 and 1 more; expected < 0.5"),
        ("gt", samples(0.4, 0.3, 0.8), BAD, "up of s1 is 0.3 and 1 more"),
        ("lt", Samples(()), DUNNO, "up gives nothing"),
        ("lt", samples(NAN), DUNNO, "no number for 1 of 1 series"),
        ("lt", samples(0.1, NAN), DUNNO, "no number for 1 of 2 series"),
        ("lt", samples(-INF), DUNNO, "no number"),
        ("gt", samples(INF), DUNNO, "no number"),
        ("lt", samples(NAN, 0.7), BAD, "up of s1 is 0.7"),
        ("lt", Unknown("refused"), DUNNO, "refused"),
        ("lt", HealthAnswer(200), DUNNO, "Prometheus has not answered yet"),
        ("lt", None, DUNNO, "Prometheus has not answered yet"),
    ],
)
def test_prometheus(op: Any, answer: Any, word: Health, detail: str) -> None:
    gate = GateDefinition(prometheus=(PrometheusCheck("http://p", "up", op, 0.5),))
    reason = one(gate, replace(FACTS, answers={"prometheus[0]": answer}))
    assert (reason.check, reason.word) == ("prometheus[0]", word)
    assert detail in reason.detail


@pytest.mark.parametrize(
    ("answer", "word", "detail"),
    [
        (Alerts((), 0), GOOD, 'no alert fires that matches a="b" and c="d"'),
        (Alerts(("A", "B"), 7), BAD, '7 firing that match a="b" and c="d": A, B'),
        (Unknown("refused"), DUNNO, "refused"),
        (None, DUNNO, "Alertmanager has not answered yet"),
    ],
)
def test_alertmanager(answer: Any, word: Health, detail: str) -> None:
    gate = GateDefinition(alertmanager=AlertmanagerCheck("http://a", ('a="b"', 'c="d"')))
    reason = one(gate, replace(FACTS, answers={"alertmanager": answer}))
    assert (reason.check, reason.word) == ("alertmanager", word)
    assert detail in reason.detail


@pytest.mark.parametrize(
    ("counted", "word", "detail"),
    [
        (Counted.of(10_000, 30), GOOD, "availability of shop: 70.0% of the error budget is left"),
        (Counted.of(10_000, 50), GOOD, "50.0%"),
        (Counted.of(10_000, 51), BAD, "49.0% of the error budget is left; expected at least 50.0%"),
        (Counted.of(10_000, 300), BAD, "-200.0%"),
        (Counted.of(300, 0), GOOD, "100.0%"),
        (Counted.of(299, 0), DUNNO, "too few exposures to say: wait for 1 more"),
        (Counted.of(20, 4), DUNNO, "too few exposures to say: wait for 280 more"),
        (Counted.of(20, 5), BAD, "-2400.0%"),
        (Counted.of(0, 0), DUNNO, "nothing is known of the error budget"),
        (Counted(0.004), GOOD, "60.0%"),
        (Counted(0.006), BAD, "40.0%"),
        (NOTHING, DUNNO, "nothing is known"),
    ],
)
def test_the_error_budget(counted: Counted, word: Health, detail: str) -> None:
    gate = GateDefinition(slo=SloCheck("shop", error_budget_left_at_least=0.5))
    reason = one(gate, replace(FACTS, slo=slo_state(budget=counted)))
    assert (reason.check, reason.word) == ("slo", word)
    assert detail in reason.detail


@pytest.mark.parametrize(
    ("long", "short", "word", "detail"),
    [
        (Counted.of(10_000, 100), NOTHING, GOOD, "burns its budget 1 times too fast over 1h"),
        (Counted.of(10_000, 700), Counted.of(900, 70), BAD, "7.78 times over 5m; expected below 6"),
        (Counted.of(10_000, 700), Counted.of(900, 10), GOOD, "it has stopped"),
        (Counted.of(10_000, 700), Counted.of(40, 0), DUNNO, "the latter of too few exposures"),
        (Counted.of(10_000, 700), NOTHING, DUNNO, "nothing is known"),
        (Counted.of(10_000, 700), Counted.of(0, 0), DUNNO, "nothing is known"),
        (Counted.of(50, 0), Counted.of(50, 0), GOOD, "0 times"),
        (Counted.of(49, 0), Counted.of(49, 0), DUNNO, "wait for 1 more"),
        (Counted.of(10, 4), Counted.of(10, 4), DUNNO, "too few failures"),
        (Counted.of(0, 0), Counted.of(0, 0), DUNNO, "nothing is known"),
        (Counted(0.05), Counted(0.05), GOOD, "5 times"),
        (Counted(0.07), Counted(0.07), BAD, "7 times"),
        (NOTHING, NOTHING, DUNNO, "nothing is known of the last hour's burn rate"),
    ],
)
def test_the_burn_rate(long: Counted, short: Counted, word: Health, detail: str) -> None:
    gate = GateDefinition(slo=SloCheck("shop", burn_rate_below=6.0))
    reason = one(gate, replace(FACTS, slo=slo_state(w1h=long, w5m=short)))
    assert (reason.check, reason.word) == ("slo", word)
    assert detail in reason.detail


def test_both_objectives_and_both_thresholds_are_asked_for() -> None:
    state = slo_state(budget=Counted.of(10_000, 10), w1h=Counted.of(1_000, 1))
    latency = replace(state.objectives[0], name="latency", windows={**state.objectives[0].windows})
    gate = GateDefinition(slo=SloCheck("shop", 0.5, 6.0))
    facts = replace(FACTS, slo=replace(state, objectives=(*state.objectives, latency)))
    verdict = judge(gate, facts)
    assert (verdict.word, len(verdict.reasons)) == (GOOD, 4)


def test_why_prometheus_knows_nothing_of_an_objective_is_said() -> None:
    gate = GateDefinition(slo=SloCheck("shop", 0.5))
    facts = replace(FACTS, slo=replace(slo_state(), faults=("failing over 5m: refused",)))
    assert one(gate, facts).detail.endswith("(failing over 5m: refused)")
    assert "no objective here" in one(gate, FACTS).detail


@pytest.mark.parametrize(
    ("guard", "word", "detail"),
    [
        (FlagGuard("f", True), GOOD, "nothing against it"),
        (FlagGuard("f", True, blind=("no summaries", "x")), DUNNO, "cannot see: no summaries, x"),
        (FlagGuard("f", True, is_held=True), BAD, "has decided against it"),
        (FlagGuard("f", True, is_held=True, blind=("no summaries",)), BAD, "decided"),
        (FlagGuard("f", False), DUNNO, "nobody watches flag f"),
        (FlagGuard("f", False, kill=KILL), BAD, "killed by guard at 2026-11-23T12:00:00.000Z: err"),
        (FlagGuard("other", True), DUNNO, "there is no flag f"),
        (None, DUNNO, "nothing is known"),
    ],
)
def test_guards_of_flags(guard: FlagGuard | None, word: Health, detail: str) -> None:
    gate = GateDefinition(guard=GuardCheck(flags=("f",)))
    facts = replace(FACTS, guards=None if guard is None else (guard,))
    reason = one(gate, facts)
    assert (reason.check, reason.word) == ("guard", word)
    assert detail in reason.detail


def test_guards_of_a_deployment() -> None:
    gate = GateDefinition(guard=GuardCheck(deployment=Deployment("shop", "v2")))
    assert one(gate, FACTS).detail == "nothing is known of version v2 of shop: nothing reports it"
    assert one(gate, FACTS).word is DUNNO
    quiet = one(gate, replace(FACTS, guards=(), served=3))
    assert (quiet.word, quiet.detail) == (
        GOOD,
        "none of the 3 flags that version v2 of shop serves is split",
    )
    both = (FlagGuard("a", True), FlagGuard("b", False, kill=KILL))
    verdict = judge(gate, replace(FACTS, guards=both, served=2))
    assert [reason.word for reason in verdict.reasons] == [GOOD, BAD]
    at_fault = replace(FACTS, guards=(), served=3, against=("version v2 is to blame",))
    assert [r.word for r in judge(gate, at_fault).reasons] == [BAD, GOOD]
    assert judge(gate, at_fault).against() == "version v2 is to blame"


@pytest.mark.parametrize(
    ("exposures", "word", "detail"),
    [
        (Exposures(100, 3), GOOD, "100 exposures of f since version 3"),
        (Exposures(99, 3), DUNNO, "99 exposures of f since version 3 of its configuration; exp"),
        (None, DUNNO, "there is no flag f"),
    ],
)
def test_a_minimum_of_traffic(exposures: Exposures | None, word: Health, detail: str) -> None:
    gate = GateDefinition(min_exposures=MinExposures("f", 100))
    reason = one(gate, replace(FACTS, exposures=exposures))
    assert reason.word is word
    assert detail in reason.detail


@pytest.mark.parametrize(
    ("began_s", "ends_s", "word", "detail"),
    [
        (-10, 10, GOOD, "ann approved at 2026-11-23T11:59:50.000Z, until"),
        (0, 10, GOOD, "fine"),
        (-10, 0, DUNNO, "approve again"),
        (-10, -5, DUNNO, "approve again"),
        (5, 10, DUNNO, "approve again"),
    ],
)
def test_an_approval_holds_for_its_time(
    began_s: int, ends_s: int, word: Health, detail: str
) -> None:
    approval = Approval(
        "ann", NOW + timedelta(seconds=began_s), NOW + timedelta(seconds=ends_s), "fine"
    )
    reason = one(GateDefinition(approval=True), replace(FACTS, approval=approval))
    assert reason.word is word
    assert detail in reason.detail


def test_nobody_has_approved() -> None:
    assert one(GateDefinition(approval=True), FACTS) == Reason(
        "approval", DUNNO, "waits for a person's approval"
    )


def test_a_definition_is_a_document_and_back() -> None:
    for gate in (
        FULL,
        GateDefinition(approval=True),
        GateDefinition(guard=GuardCheck(deployment=Deployment("shop", "v2"))),
        GateDefinition(slo=SloCheck("shop", burn_rate_below=2.0)),
    ):
        document = json.loads(json.dumps(gate.to_document(), allow_nan=False))
        assert GateDefinition.from_document(document) == gate


def test_every_question_is_under_the_name_of_its_check() -> None:
    questions = FULL.questions()
    assert set(questions) == set(HEALTHY.answers)
    assert FULL.urls() == {
        "health_checks[0]": "https://a/healthz",
        "health_checks[1]": "https://b/healthz",
        "prometheus[0].url": "http://p",
        "prometheus[1].url": "http://p",
        "alertmanager.url": "http://a",
    }
