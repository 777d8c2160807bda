from random import Random

import pytest

from flagd_server.simulation.poisson import poisson


@pytest.mark.parametrize("mean", [0.3, 11.0, 13.0, 200.0])
def test_mean_and_variance_are_the_mean(mean: float) -> None:
    random = Random(1)
    counts = [poisson(random, mean) for _ in range(20_000)]
    average = sum(counts) / len(counts)
    assert average == pytest.approx(mean, rel=0.03)
    assert sum((c - average) ** 2 for c in counts) / len(counts) == pytest.approx(mean, rel=0.05)
    assert min(counts) >= 0


def test_nothing_is_expected_where_the_mean_is_nothing() -> None:
    assert {poisson(Random(seed), 0.0) for seed in range(100)} == {0}
