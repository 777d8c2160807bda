"""Units → buckets: sticky, fair, and independent from flag to flag."""

import math
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.bucketing import BUCKETS, bucket, unit_of
from flagd_sdk.core.parsing import parse_flag_set
from flagd_server.domain.allocation import reallocate
from tests.sdk.core.documents import flag, flag_set, split

UNITS = 1_000_000
SIGMAS = 4.5  # 1 in 150,000 by chance; the salts are fixed, so chance has spoken already

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ramps = st.lists(st.integers(0, BUCKETS), min_size=1, max_size=5).map(sorted)


@given(texts, texts)
def test_a_unit_is_always_in_the_same_bucket(salt: str, unit: str) -> None:
    assert 0 <= bucket(salt, unit) < BUCKETS
    assert bucket(salt, unit) == bucket(salt, "".join(list(unit)))


@given(st.integers())
def test_a_number_and_its_digits_are_the_same_unit(number: int) -> None:
    assert unit_of(number) == unit_of(str(number)) == str(number)


@given(ramps, texts)
def test_who_is_in_stays_in_while_a_share_grows(ramp: list[int], unit: str) -> None:
    allocation = None
    was_on = False
    for share in ramp:
        allocation = reallocate(allocation, {"on": share, "off": BUCKETS - share}, "off")
        pieces = [(upto, variant) for upto, variant in allocation]
        flags = parse_flag_set(flag_set(flag(default_serve=split(*pieces))))
        is_on = flags.resolve("f", {"targetingKey": unit}).value is True
        assert is_on or not was_on
        was_on = is_on


@cache
def buckets_of(salt: str) -> list[int]:
    """Return the buckets of a million users, counted in an array of all buckets."""
    counts = [0] * BUCKETS
    for number in range(UNITS):
        counts[bucket(salt, str(number))] += 1
    return counts


@pytest.mark.parametrize("share", [1, 10, 100, 1_000, 5_000, 25_000, 50_000, 99_000])
def test_a_share_is_met_within_binomial_bounds(share: int) -> None:
    p = share / BUCKETS
    deviation = math.sqrt(UNITS * p * (1 - p))
    found = sum(buckets_of("new-checkout")[:share])
    assert abs(found - UNITS * p) <= SIGMAS * deviation


def test_every_stretch_of_buckets_has_its_share() -> None:
    counts = buckets_of("new-checkout")
    width = BUCKETS // 100
    expected = UNITS / 100
    found = [sum(counts[start : start + width]) for start in range(0, BUCKETS, width)]
    statistic = sum((count - expected) ** 2 / expected for count in found)
    assert_chi_square(statistic, 99)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("flag-1", "flag-2"), ("x", "x2")])
def test_two_flags_place_users_independently(first: str, second: str) -> None:
    """A ten by ten table of where the same users are in both: no cell stands out."""
    cells = [[0] * 10 for _ in range(10)]
    users = 200_000
    for number in range(users):
        unit = f"user-{number}"
        cells[bucket(first, unit) * 10 // BUCKETS][bucket(second, unit) * 10 // BUCKETS] += 1
    rows = [sum(row) for row in cells]
    columns = [sum(column) for column in zip(*cells, strict=True)]
    statistic = sum(
        (cells[i][j] - rows[i] * columns[j] / users) ** 2 / (rows[i] * columns[j] / users)
        for i in range(10)
        for j in range(10)
    )
    assert_chi_square(statistic, 81)


def assert_chi_square(statistic: float, freedom: int) -> None:
    """Hold to both tails: too even is as suspicious as too uneven.

    By the cube root's normal approximation (Wilson and Hilferty, The distribution of chi-square,
    PNAS 17, 1931).
    """
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    assert abs(z) <= SIGMAS, z
