from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flagd_server.domain.configuration import Configuration, Kill, KillSource
from flagd_server.domain.guard.lifecycle import (
    Effect,
    Mode,
    effect_of,
    is_guardable,
    mode_of,
    policy_of,
)
from flagd_server.domain.guard_policy import complete_policy

VARIANTS = {"on": True, "off": False}
GUARD = complete_policy({})


def split(on: int) -> dict[str, Any]:
    return {"split": {"weights": {"on": on, "off": 100_000 - on}, "allocation": []}}


QUARTER = Configuration(
    enabled=True,
    off_variant="off",
    rules=({"id": "nl", "condition": {}, "serve": split(50_000)},),
    default_serve=split(25_000),
    guard=GUARD,
)
KILLED = replace(
    QUARTER,
    kill=Kill("k1", datetime(2026, 11, 23, tzinfo=UTC), "guard", KillSource.GUARD, "errors"),
)
OTHER_RULE = ({"id": "nl", "condition": {"attribute": "plan"}, "serve": split(50_000)},)


def effect(after: Configuration, before: Configuration = QUARTER) -> tuple[Effect, str]:
    return effect_of(before, VARIANTS, after, VARIANTS)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (QUARTER, (Effect.NOTHING, "")),
        (replace(QUARTER, default_serve=split(50_000)), (Effect.ANNOUNCE, "weights")),
        (replace(QUARTER, rules=OTHER_RULE), (Effect.ANNOUNCE, "rules")),
        (replace(QUARTER, rules=()), (Effect.ANNOUNCE, "rules")),
        (replace(QUARTER, default_serve={"variant": "on"}), (Effect.ANNOUNCE, "rules")),
        (replace(QUARTER, enabled=False), (Effect.ANNOUNCE, "rules")),
        (replace(QUARTER, guard={**GUARD, "alpha": 0.01}), (Effect.RESTART, "policy")),
        (replace(QUARTER, off_variant="on"), (Effect.RESTART, "policy")),
        (replace(QUARTER, guard={**GUARD, "mode": "off"}), (Effect.END, "guard off")),
        (KILLED, (Effect.END, "killed")),
    ],
)
def test_what_a_change_does_to_the_life(after: Configuration, expected: tuple[Effect, str]) -> None:
    assert effect(after) == expected


def test_a_restore_starts_a_new_life() -> None:
    assert effect(QUARTER, before=KILLED) == (Effect.RESTART, "restored")


def test_so_does_another_value_of_a_variant_but_not_one_more_variant() -> None:
    changed, more = {"on": "new", "off": False}, {**VARIANTS, "blue": True}
    assert effect_of(QUARTER, VARIANTS, QUARTER, changed) == (Effect.RESTART, "variants")
    assert effect_of(QUARTER, VARIANTS, QUARTER, more) == (Effect.NOTHING, "")


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (QUARTER, True),
        (replace(QUARTER, rules=()), True),
        (replace(QUARTER, default_serve={"variant": "off"}), True),
        (replace(QUARTER, enabled=False), False),
        (KILLED, False),
        (replace(QUARTER, guard={**GUARD, "mode": "off"}), False),
        (replace(QUARTER, guard={**GUARD, "mode": "observe"}), True),
        (replace(QUARTER, rules=(), default_serve=split(100_000)), False),
        (replace(QUARTER, rules=(), default_serve={"variant": "on"}), False),
    ],
)
def test_a_life_needs_two_arms_of_a_flag_that_is_on_and_watched(
    configuration: Configuration, expected: bool
) -> None:
    assert is_guardable(configuration, {}) is expected


def test_the_policy_is_the_configurations() -> None:
    policy = policy_of(replace(QUARTER, guard={**GUARD, "alpha": 0.01, "control": "on"}), {})
    assert (policy.alpha, policy.margin, policy.control, policy.off_variant) == (
        0.01,
        1.05,
        "on",
        "off",
    )
    assert mode_of(QUARTER) is Mode.ENFORCE
