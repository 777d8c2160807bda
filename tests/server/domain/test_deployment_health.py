"""Missing data is inconclusive, never healthy; and every reason is there."""

import pytest

from flagd_server.domain.deployment_health import FlagState, SloWord, health_of, slo_state
from flagd_server.domain.guard.deployment_verdict import DeploymentVerdict
from flagd_server.domain.guard.verdict_table import Word
from flagd_server.domain.health import Health, Reason, worst

NEITHER = DeploymentVerdict(Word.NEITHER, (), ("alike",))
UNKNOWN = DeploymentVerdict(Word.CANNOT_TELL, (), ("too few",))
FINE = FlagState("new", None, None, None, ())
MET = slo_state(0.99, [(60.0 * n, 100, 0) for n in range(10)])


@pytest.mark.parametrize(
    ("windows", "word"),
    [
        ([], SloWord.UNKNOWN),
        ([(0.0, 299, 0)], SloWord.UNKNOWN),
        ([(0.0, 300, 0)], SloWord.MET),
        ([(0.0, 300, 3)], SloWord.MET),
        ([(0.0, 300, 4)], SloWord.UNKNOWN),
        ([(0.0, 300, 0), (60.0, 300, 60)], SloWord.MISSED),
        ([(0.0, 20, 20)], SloWord.MISSED),
    ],
)
def test_an_objective_is_met_only_where_enough_is_known(
    windows: list[tuple[float, int, int]], word: SloWord
) -> None:
    state = slo_state(0.99, windows)
    assert state.word is word, state
    assert state.exposures == sum(exposed for _, exposed, _ in windows)


def test_the_burn_rate_is_in_multiples_of_what_is_allowed() -> None:
    assert slo_state(0.99, [(0.0, 1_000, 20)]).burn_rate == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("exposures", "slo", "verdict", "flag", "health"),
    [
        (10, None, NEITHER, FINE, Health.HEALTHY),
        (10, MET, NEITHER, FINE, Health.HEALTHY),
        (10, MET, UNKNOWN, FINE, Health.HEALTHY),
        (10, None, UNKNOWN, FINE, Health.INCONCLUSIVE),
        (0, MET, NEITHER, FINE, Health.INCONCLUSIVE),
        (10, slo_state(0.99, []), NEITHER, FINE, Health.INCONCLUSIVE),
        (10, slo_state(0.99, [(0.0, 50, 50)]), NEITHER, FINE, Health.UNHEALTHY),
        (10, MET, DeploymentVerdict(Word.VERSION, (), ("bad",)), FINE, Health.UNHEALTHY),
        (10, MET, DeploymentVerdict(Word.FLAG, ("old",), ("bad",)), FINE, Health.UNHEALTHY),
        (10, MET, NEITHER, FlagState("new", "by ann", None, None, ()), Health.UNHEALTHY),
        (10, MET, NEITHER, FlagState("new", None, "it hurts", None, ()), Health.UNHEALTHY),
        (10, MET, NEITHER, FlagState("new", None, None, "held", ()), Health.INCONCLUSIVE),
        (10, MET, NEITHER, FlagState("new", None, None, None, ("silence",)), Health.INCONCLUSIVE),
        (0, MET, NEITHER, FlagState("new", "by ann", None, None, ()), Health.UNHEALTHY),
    ],
)
def test_the_worst_check_decides(exposures, slo, verdict, flag, health) -> None:
    found, checks = health_of(exposures, 600, slo, verdict, [flag])
    assert found is health
    assert [each.check for each in checks] == [
        "traffic",
        *([] if slo is None else ["slo"]),
        "verdict",
        "flag new",
    ]
    assert all(each.detail for each in checks)
    for reason in (flag.off, flag.decided, flag.held, *flag.blind):
        assert reason is None or reason in checks[-1].detail


def test_no_check_at_all_is_not_health() -> None:
    assert worst([]) is Health.INCONCLUSIVE
    assert worst([Reason("x", Health.HEALTHY, "d")]) is Health.HEALTHY
