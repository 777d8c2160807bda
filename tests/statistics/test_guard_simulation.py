"""Seeded lives through the whole guard: few false kills, and faults found in good time.

At a much larger alpha than the default, so that a few hundred lives can tell a guard that errs
too often from one that does not.
"""

from dataclasses import replace
from math import inf
from statistics import median

import pytest

from benchmarks.guard.cases import CASES, Case, Group
from flagd_server.domain.guard.blindness import SAMPLE_RATIO_BLINDNESS
from flagd_server.domain.guard.flag_guard import FlagGuard
from flagd_server.domain.guard.records import Policy
from flagd_server.simulation.bounds import upper_bound, wald_bound_s
from flagd_server.simulation.life import guard, live
from flagd_server.simulation.scenario import HOUR_S, Fault, Scenario, diurnal, outage

pytestmark = pytest.mark.timeout(600)  # they compute for a minute on a busy machine

ALPHA = 0.2
SHORT_S = HOUR_S / 6


def killed(scenario: Scenario, lives: int, alpha: float = ALPHA) -> int:
    def judge() -> FlagGuard:
        return guard(Policy(alpha=alpha, off_variant="off"))

    endings = (live(scenario, seed, judge()) for seed in range(lives))
    return sum(ending.killed_after_s is not None for ending in endings)


# The least room for the evidence to rise by chance that still has many tosses.
SMALL = Scenario("small", units=1_000, base=0.02, duration_s=SHORT_S)


@pytest.mark.parametrize(
    "scenario",
    [
        SMALL,
        replace(SMALL, name="outage", base=0.002, failing=lambda t: outage(t + 1_700.0)),
        replace(SMALL, name="ramp", ramp=((0.0, 1.0), (200.0, 25.0), (400.0, 50.0)), load=diurnal),
        replace(SMALL, name="heavy users", zipf=1.2),
        replace(SMALL, name="retries", retries=20),
    ],
    ids=lambda scenario: scenario.name,
)
def test_false_kills_stay_under_alpha_even_where_alpha_is_large(scenario: Scenario) -> None:
    lives = 40
    # Alpha is a bound that the union over streams leaves far from tight.
    assert killed(scenario, lives) <= ALPHA * lives


def test_the_same_lives_are_killed_when_the_feature_does_harm() -> None:
    faulty = replace(SMALL, name="fault", fault=Fault(4.0, has_new_kind=False))
    # In a life of a thousand users the heaviest may happen to be on one side, and the rate
    # witness then objects.
    assert killed(faulty, 10) >= 9


HARMLESS = [c.scenario for c in CASES if c.group is Group.FALSE_KILLS and c.scenario is not None]
FRESH = [c for c in CASES if c.group is Group.DELAY and c.name.startswith("fresh, ") and c.goal]


@pytest.mark.parametrize("scenario", HARMLESS, ids=lambda scenario: scenario.name)
def test_a_harmless_feature_survives_at_the_default_alpha_whatever_happens_around_it(
    scenario: Scenario,
) -> None:
    short = replace(scenario, duration_s=HOUR_S, units=2_000)
    assert [live(short, seed).killed_after_s for seed in range(2)] == [None, None]


@pytest.mark.parametrize("case", FRESH, ids=lambda case: case.name)
def test_a_fresh_fault_is_found_within_a_few_times_the_bound(case: Case) -> None:
    assert case.scenario is not None
    outcomes = [live(case.scenario, seed).killed_after_s for seed in range(7)]
    assert median(inf if after_s is None else after_s for after_s in outcomes) < 3.0 * case.bound_s


def test_a_fault_after_hours_of_health_is_found_too() -> None:
    fault = Fault(5.0, has_new_kind=True, at_s=3 * HOUR_S, is_announced=True)
    scenario = Scenario("late", base=0.001, duration_s=4 * HOUR_S, fault=fault)
    after_s = live(scenario, seed=1).killed_after_s
    assert after_s is not None
    assert 0.0 < after_s < 3.0 * wald_bound_s(0.001, 5.0)


def test_a_feature_that_slows_its_users_is_killed_and_one_that_does_not_is_not() -> None:
    healthy = Scenario("latency", units=5_000, base=1e-4, slow=0.01, duration_s=HOUR_S)
    slowing = replace(healthy, fault=Fault(5.0, is_slowness=True))
    assert [live(healthy, seed).killed_after_s for seed in range(4)] == [None] * 4
    for seed in range(4):
        judge = guard()
        assert live(slowing, seed, judge).killed_after_s is not None
        assert judge.decision.guard == "latency"


@pytest.mark.parametrize("lost", [0.0, 0.5])
def test_a_guard_is_blind_where_first_exposures_of_one_side_are_lost(lost: float) -> None:
    scenario = Scenario("sampled", base=1e-4, sampled=0.03, lost=lost, duration_s=HOUR_S / 2)
    for seed in range(2):
        judge = guard()
        live(scenario, seed, judge)
        reasons = [blind.reason for blind in judge.blindness(HOUR_S / 2)]
        assert reasons == ([SAMPLE_RATIO_BLINDNESS] if lost else [])


def test_the_bound_is_the_published_one() -> None:
    # 1 % doubled at a quarter: some ten thousand requests.
    assert wald_bound_s(0.01, 2.0) * 50.0 == pytest.approx(10_070, rel=0.01)


def test_the_bound_on_a_share_is_the_exact_one() -> None:
    # The rule of three, and the published 95 % ends for 1 and 5 of 20 (Clopper and Pearson 1934).
    assert upper_bound(0, 10_000) == pytest.approx(3 / 10_000, rel=0.002)
    assert upper_bound(1, 20, 0.975) == pytest.approx(0.2487, abs=1e-4)
    assert upper_bound(5, 20, 0.975) == pytest.approx(0.4910, abs=1e-4)
    assert upper_bound(3, 3) == 1.0
