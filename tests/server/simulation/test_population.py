from itertools import pairwise
from random import Random

import pytest

from flagd_server.domain.guard.traffic import BUCKETS
from flagd_server.simulation.population import Population


def test_volumes_follow_zipf_and_sum_to_one() -> None:
    volumes = Population(1_000, 0.8, Random(1)).volumes
    assert sum(volumes) == pytest.approx(1.0)
    assert volumes[0] / volumes[99] == pytest.approx(100**0.8)


def test_the_failures_of_both_arms_sum_to_the_base_rate() -> None:
    treated, spared = Population(5_000, 0.8, Random(1)).arms(BUCKETS // 4)
    assert treated.volume + spared.volume == pytest.approx(1.0)
    assert treated.failure + spared.failure == pytest.approx(1.0)


def test_a_share_of_the_units_is_in_the_treatment() -> None:
    treated, spared = Population(20_000, 0.8, Random(1)).arms(BUCKETS // 4)
    assert len(treated.members) == pytest.approx(5_000, rel=0.05)
    assert sorted([*treated.members, *spared.members]) == list(range(20_000))


def test_frailty_has_mean_and_variance_one() -> None:
    _, everybody = Population(50_000, 0.0, Random(1)).arms(0)
    cumulative = [0.0, *everybody.frailties]
    frailties = [b - a for a, b in pairwise(cumulative)]
    mean = sum(frailties) / len(frailties)
    assert mean == pytest.approx(1.0, rel=0.02)
    assert sum((f - mean) ** 2 for f in frailties) / len(frailties) == pytest.approx(1.0, rel=0.05)


def test_a_greater_weight_moves_nobody_out() -> None:
    population = Population(2_000, 0.8, Random(1))
    few, many = (population.arms(on)[0] for on in (5_000, 50_000))
    assert set(few.members) < set(many.members)
    assert all(population.is_treated(unit, 50_000) for unit in few.members)


def test_a_unit_keeps_its_hash() -> None:
    population = Population(10, 0.8, Random(1))
    assert len(population.hash_of(3)) == 16
    assert population.hash_of(3) == population.hash_of(3)
    assert population.hash_of(3) != population.hash_of(4)
