"""What a flag serves once its kill is lifted."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flagd_server.domain.allocation import reallocate
from flagd_server.domain.changes import changed, rolled_back
from flagd_server.domain.configuration import Configuration, Kill, KillSource
from flagd_server.domain.restart import FixedIn, Restore, restarted

KILL = Kill("kill-1", datetime(2026, 11, 23, tzinfo=UTC), "ann", KillSource.OPERATOR, "it burns")
FIXED = Restore("kill-1", "fixed")


def split(weights: dict[str, int], off: str = "off", **more: Any) -> dict[str, Any]:
    allocation = [[upto, name] for upto, name in reallocate(None, weights, off)]
    known = {"bucket_by": "targetingKey", "salt": "checkout", "weights": weights}
    return {"split": {**known, "allocation": allocation, **more}}


def killed(default: dict[str, Any], *rules: tuple[str, dict[str, Any]]) -> Configuration:
    return Configuration(
        enabled=True,
        off_variant="off",
        rules=tuple({"id": name, "condition": {}, "serve": serve} for name, serve in rules),
        default_serve=default,
        kill=KILL,
    )


def restored(configuration: Configuration, restore: Restore = FIXED) -> Configuration:
    exposed_in = [configuration] if restore.leave_out_exposed else []
    return restarted(configuration, restore, "checkout", exposed_in)


def test_every_split_starts_small_and_what_serves_one_variant_stays() -> None:
    quarter = split({"on": 25_000, "off": 75_000})
    few = split({"on": 200, "off": 99_800})
    after = restored(killed(quarter, ("nl", few), ("staff", {"variant": "on"})))
    assert after.kill is None
    assert after.split_weights() == {
        "nl": {"on": 200, "off": 99_800},
        "default": {"on": 1_000, "off": 99_000},
    }
    assert after.rules[0]["serve"] == few
    assert after.rules[1]["serve"] == {"variant": "on"}
    assert restored(killed({"variant": "on"})).default_serve == {"variant": "on"}


def test_several_variants_keep_their_proportions_and_their_users() -> None:
    before = split({"a": 30_000, "b": 10_000, "off": 60_000})
    after = restored(killed(before)).default_serve["split"]
    assert after["weights"] == {"a": 750, "b": 250, "off": 99_000}
    assert after["allocation"] == [
        [750, "a"],
        [30_000, "off"],
        [30_250, "b"],
        [100_000, "off"],
    ]


def test_weights_that_do_not_divide_still_sum() -> None:
    before = split({"a": 33_333, "b": 33_333, "c": 33_333, "off": 1})
    weights = restored(killed(before)).split_weights()["default"]
    assert sum(weights.values()) == 100_000
    assert weights["off"] == 99_000


def test_without_the_off_variant_in_the_split_the_others_get_it() -> None:
    """As they do while the kill stands."""
    before = split({"a": 50_000, "b": 50_000})
    after = restored(killed(before)).split_weights()["default"]
    assert after == {"a": 500, "b": 500, "off": 99_000}


def test_who_was_exposed_in_one_split_is_left_out_of_that_one() -> None:
    quarter, half = split({"on": 25_000, "off": 75_000}), split({"on": 50_000, "off": 50_000})
    restore = Restore("kill-1", "fixed", leave_out_exposed=True)
    after = restored(killed(quarter, ("nl", half)), restore)
    assert after.default_serve["split"]["rested"] == [[0, 25_000]]
    assert after.rules[0]["serve"]["split"]["rested"] == [[0, 50_000]]


def test_another_salt_is_another_order_and_nobody_rests_in_it() -> None:
    quarter = split({"on": 25_000, "off": 75_000})
    other = split({"on": 25_000, "off": 75_000}, salt="other")
    restore = Restore("kill-1", "fixed", leave_out_exposed=True)
    after = restarted(killed(other), restore, "checkout", [killed(quarter)])
    assert "rested" not in after.default_serve["split"]
    resting = restored(killed(quarter), restore)
    new = {"default_serve": {"split": {"weights": {"on": 1, "off": 99_999}, "salt": "new"}}}
    assert "rested" not in changed(resting, new, "checkout", 9).default_serve["split"]


def test_everybody_exposed_leaves_nobody_to_prefer() -> None:
    restore = Restore("kill-1", "fixed", leave_out_exposed=True)
    after = restored(killed(split({"on": 100_000, "off": 0})), restore)
    assert after.default_serve["split"]["allocation"] == [[1_000, "on"], [100_000, "off"]]


def test_going_back_to_a_version_of_before_wakes_nobody() -> None:
    before = killed(split({"on": 25_000, "off": 75_000}))
    after = restored(before, Restore("kill-1", "fixed", leave_out_exposed=True))
    nobody = changed(
        after,
        {"default_serve": {"split": {"weights": {"on": 0, "off": 100_000}}}},
        "checkout",
        9,
    )
    for present in (after, nobody):
        back = rolled_back(present, before).default_serve["split"]
        assert back["rested"] == [[0, 25_000]]
        assert back["allocation"] == [[25_000, "off"], [50_000, "on"], [100_000, "off"]]


@pytest.mark.parametrize(
    ("restore", "fields"),
    [
        (Restore("k"), ["reason"]),
        (Restore("k", "  "), ["reason"]),
        (Restore("k", "x", start_percent=0.0), ["start_percent"]),
        (Restore("k", "x", start_percent=0.0004), ["start_percent"]),
        (Restore("k", "x", start_percent=101.0), ["start_percent"]),
        (Restore("k", start_percent=5.0, keep=True), ["reason", "start_percent"]),
        (Restore("k", "x", start_percent=0.001), []),
        (Restore("k", fixed_in=FixedIn("shop", "v2")), []),
        (Restore("k", "x", keep=True, leave_out_exposed=True), []),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(restore: Restore, fields: list[str]) -> None:
    assert [fault.field for fault in restore.faults()] == fields


def test_the_comment_says_all_that_was_said() -> None:
    fixed = FixedIn("shop", "v42")
    assert Restore("k", "at last", fixed).comment == "at last (fixed in version v42 of shop)"
    assert Restore("k", "", fixed).comment == "fixed in version v42 of shop"
    assert FIXED.comment == "fixed"
