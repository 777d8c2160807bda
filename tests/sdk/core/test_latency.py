import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.latency import LATENCY_BUCKETS, bucket_bounds_us, latency_bucket


def test_buckets_follow_one_another_without_gap_or_overlap() -> None:
    bounds = [bucket_bounds_us(index) for index in range(LATENCY_BUCKETS)]
    assert bounds[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))


@given(st.integers(0, (1 << 36) - 1))
def test_a_duration_lies_within_the_bounds_of_its_bucket(duration_us: int) -> None:
    lower, upper = bucket_bounds_us(latency_bucket(duration_us))
    assert lower <= duration_us < upper


@given(st.integers(16, (1 << 36) - 1))
def test_a_bucket_is_at_most_an_eighth_of_its_duration_wide(duration_us: int) -> None:
    lower, upper = bucket_bounds_us(latency_bucket(duration_us))
    assert (upper - lower) * 8 <= duration_us


def test_published_boundaries_stay_where_they_are() -> None:
    # Counts of all past versions were added up by these indices.
    indices = {us: latency_bucket(us) for us in (0, 7, 15, 16, 17, 18, 1_000, 250_000, 60_000_000)}
    assert indices == {
        0: 0, 7: 7, 15: 15, 16: 16, 17: 16, 18: 17, 1_000: 63, 250_000: 127, 60_000_000: 190
    }  # fmt: skip


@pytest.mark.parametrize(
    ("duration_us", "index"), [(-5, 0), (1 << 36, LATENCY_BUCKETS - 1), (1 << 80, 271)]
)
def test_impossible_durations_go_to_the_outermost_buckets(duration_us: int, index: int) -> None:
    assert latency_bucket(duration_us) == index


@pytest.mark.parametrize("index", [-1, LATENCY_BUCKETS])
def test_a_bucket_that_does_not_exist_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 271"):
        bucket_bounds_us(index)
