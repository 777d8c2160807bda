import pytest

from flagd_sdk.core.bucketing import BUCKETS, bucket, hash_threshold, targeting_unit, unit_of
from flagd_sdk.core.parsing import parse_flag_set
from tests.sdk.core.documents import flag, flag_set, split
from tests.sdk.core.hostile import RaisingFloat, RaisingNumber, RaisingText


@pytest.mark.parametrize("upto", [1, 2, 3, 7, 24_999, 25_000, 50_000, 99_999, 100_000])
def test_a_threshold_is_the_first_hash_of_its_bucket(upto: int) -> None:
    threshold = hash_threshold(upto)
    assert threshold * BUCKETS >> 32 >= upto
    assert (threshold - 1) * BUCKETS >> 32 < upto


def test_splits_agree_with_buckets() -> None:
    bounds = [(10_000, "a"), (25_000, "b"), (50_000, "a"), (100_000, "c")]
    variants = {"a": "a", "b": "b", "c": "c"}
    four = flag(
        "four", type="string", variants=variants, off_variant="c", default_serve=split(*bounds)
    )
    two = flag("two", default_serve=split((33_333, "on"), (100_000, "off")))
    in_three = [(10_000, "on"), (25_000, "off"), (100_000, "on")]
    pieces = [(10_000 * n, "on" if n % 2 else "off") for n in range(1, 11)]
    more = [flag(f"f{len(each)}", default_serve=split(*each)) for each in (in_three, pieces)]
    flags = parse_flag_set(flag_set(four, two, *more))
    for number in range(2000):
        for unit in (f"user-{number}", f"é{number}"):
            placed = bucket("f", unit)
            expected = next(variant for upto, variant in bounds if placed < upto)
            assert flags.resolve("four", {"targetingKey": unit}).variant == expected
            assert flags.resolve("two", {"targetingKey": unit}).value is (placed < 33_333)
            is_middle = 10_000 <= placed < 25_000
            assert flags.resolve("f3", {"targetingKey": unit}).value is not is_middle
            assert flags.resolve("f10", {"targetingKey": unit}).value is (placed // 10_000 % 2 == 0)


def test_a_lone_surrogate_has_no_bucket() -> None:
    with pytest.raises(UnicodeEncodeError):
        bucket("s", "\ud800")


def test_units_are_taken_from_what_a_subclass_holds() -> None:
    assert unit_of(RaisingText("u")) == "u"
    assert unit_of(RaisingNumber(7)) == "7"
    assert unit_of(RaisingFloat(7.0)) == "7"


def test_numbers_that_python_would_not_print_place_nobody() -> None:
    assert unit_of(10**5000) is None
    assert unit_of(float("inf")) is None
    assert unit_of(float("nan")) is None
    assert unit_of(1e300) == str(int(1e300))


@pytest.mark.parametrize("value", ["u", "é", "", "\ud800", 5, None])
def test_the_targeting_unit_is_that_of_the_targeting_key(value: object) -> None:
    assert targeting_unit({"targetingKey": value}) == unit_of(value)
