"""Counts for Prometheus: exact at their bounds, and bounded whatever is reported."""

from flagd_sdk.core.latency import LATENCY_BUCKETS, bucket_bounds_us, latency_bucket
from flagd_server.services.exposure_tally import BOUNDS_US, Counted, ExposureTally, Key
from flagd_server.storage.telemetry_records import CountRow


def row(
    flag: str = "checkout",
    variant: str = "on",
    version: str = "v1",
    latency: dict[int, int] | None = None,
) -> CountRow:
    return CountRow(
        "production", flag, "default", variant, 2, "shop", version, 0, 10, 1, latency or {}
    )


def counted(tally: ExposureTally) -> dict[Key, Counted]:
    return dict(tally.snapshot())


def test_adds_up_by_flag_variant_service_and_version() -> None:
    tally = ExposureTally()
    tally.add([row(), row(), row(variant="off")], 0.0)
    tally.add([row(version="v2")], 1.0)
    assert {
        (key.variant, key.version): (each.exposures, each.errors) for key, each in tally.snapshot()
    } == {("on", "v1"): (20, 2), ("off", "v1"): (10, 1), ("on", "v2"): (10, 1)}


def test_every_bucket_of_the_sdk_lies_within_one_of_these() -> None:
    for bucket in range(LATENCY_BUCKETS):
        lower, upper = bucket_bounds_us(bucket)
        assert not any(lower < bound < upper for bound in BOUNDS_US)


def test_a_duration_is_counted_below_the_first_bound_that_it_does_not_reach() -> None:
    durations_us = [0, 1_023, 1_024, 4_095, 500_000, 8_388_607, 8_388_608, 1 << 40]
    tally = ExposureTally()
    for duration in durations_us:
        tally.add([row(latency={latency_bucket(duration): 1})], 0.0)
    (each,) = counted(tally).values()
    assert each.latency is not None
    below = [sum(each.latency[: place + 1]) for place in range(len(BOUNDS_US) + 1)]
    assert below == [
        *(sum(duration < bound for duration in durations_us) for bound in BOUNDS_US),
        len(durations_us),
    ]


def test_the_sum_is_within_a_sixteenth() -> None:
    durations_us = [20, 1_500, 77_777, 500_000, 3_000_000]
    tally = ExposureTally()
    for duration in durations_us:
        tally.add([row(latency={latency_bucket(duration): 3})], 0.0)
    (each,) = counted(tally).values()
    assert abs(each.latency_us - 3 * sum(durations_us)) <= 3 * sum(durations_us) / 16


def test_beyond_the_limit_is_counted_together() -> None:
    tally = ExposureTally(max_kept=2)
    tally.add([row(flag=f"f{number}") for number in range(5)], 0.0)
    tally.add([row(flag="f0")], 1.0)
    by_flag = {key.flag: each.exposures for key, each in tally.snapshot()}
    assert by_flag == {"f0": 20, "f1": 10, "(other)": 30}


def test_what_is_idle_makes_room() -> None:
    tally = ExposureTally(max_kept=2)
    tally.add([row(version="v1"), row(version="v2")], 0.0)
    tally.add([row(version="v2")], 500.0)
    tally.add([row(version="v3")], 601.0)
    assert sorted(key.version for key in counted(tally)) == ["v2", "v3"]


def test_a_snapshot_does_not_change() -> None:
    tally = ExposureTally()
    tally.add([row(latency={0: 1})], 0.0)
    before = counted(tally)
    tally.add([row(latency={0: 1})], 0.0)
    (each,) = before.values()
    assert (each.exposures, each.latency) == (10, [1, *([0] * len(BOUNDS_US))])
