"""What a plan comes to, and what a stage makes of a configuration."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_server.domain.changes import changed, first_configuration
from flagd_server.domain.configuration import Configuration
from flagd_server.domain.release import Plan, Release, release_of, weight_of, with_share
from flagd_server.domain.stages import MAX_STAGES, TEMPLATES, Stage, check_stages

VARIANTS = {"on": True, "off": False}
COLOURS = {"red": "r", "green": "g", "grey": "-"}
FIRST = first_configuration("off")
IN_NL = {"attribute": "country", "op": "in", "values": ["NL"]}


def splitting(weights: dict[str, int], off: str = "off") -> Configuration:
    present = first_configuration(off)
    return changed(
        present, {"enabled": True, "default_serve": {"split": {"weights": weights}}}, "f", 2
    )


def fields(plan: Plan, present: Configuration = FIRST, variants: Any = VARIANTS) -> list[str]:
    return [fault.field for fault in release_of(plan, present, variants, "f")[1]]


ONE = [Stage(5.0)]


def test_a_plan_for_two_variants_need_name_none() -> None:
    release, faults = release_of(Plan(template="standard"), FIRST, VARIANTS, "f")
    assert faults == []
    assert (release.from_variant, release.to_variant) == ("off", "on")
    assert release.stages == TEMPLATES["standard"]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Plan(), ["stages"]),
        (Plan(template="fast", stages=ONE), ["stages"]),
        (Plan(template="reckless"), ["template"]),
        (Plan(stages=[]), ["stages"]),
        (Plan(stages=ONE * (MAX_STAGES + 1)), ["stages"]),
        (Plan(stages=[Stage(5.0), Stage(5.0)]), ["stages[1].percent"]),
        (Plan(stages=[Stage(0.0001), Stage(101.0)]), ["stages[0].percent", "stages[1].percent"]),
        (Plan(stages=[Stage(5.0, bake_time_s=-1.0)]), ["stages[0].bake_time_s"]),
        (Plan(stages=[Stage(5.0, min_exposures=-1)]), ["stages[0].min_exposures"]),
        (Plan(stages=[Stage(5.0, gates=("a", "a"))]), ["stages[0].gates"]),
        (Plan(stages=ONE, to_variant="blue"), ["to_variant"]),
        (Plan(stages=ONE, from_variant="blue", to_variant="on"), ["from_variant"]),
        (Plan(stages=ONE, from_variant="on", to_variant="on"), ["to_variant"]),
        (Plan(stages=ONE, split="r1"), ["split"]),
        (
            Plan(stages=[Stage(5.0), Stage(4.0, gates=("a", "a"))], to_variant="blue", split="r1"),
            ["stages[1].percent", "stages[1].gates", "to_variant", "split"],
        ),
    ],
)
def test_each_fault_of_a_plan_is_named(plan: Plan, expected: list[str]) -> None:
    assert fields(plan) == expected


def test_of_several_variants_one_has_to_be_named() -> None:
    assert fields(Plan(stages=ONE), first_configuration("grey"), COLOURS) == ["to_variant"]
    assert fields(Plan(stages=ONE, to_variant="red"), first_configuration("grey"), COLOURS) == []


def test_a_rollout_takes_the_variant_from_nobody_and_leaves_the_others_theirs() -> None:
    present = splitting({"on": 10_000, "off": 90_000})
    assert fields(Plan(stages=[Stage(5.0), Stage(50.0)]), present) == ["stages[0].percent"]
    assert fields(Plan(stages=[Stage(10.0), Stage(50.0)]), present) == []
    shared = splitting({"red": 0, "green": 60_000, "grey": 40_000}, "grey")
    plan = Plan(stages=[Stage(5.0), Stage(50.0)], to_variant="red")
    assert fields(plan, shared, COLOURS) == ["stages[1].percent"]
    after = with_share(shared, "f", Release("default", "grey", "red", ()), 40_000)
    assert after.split_weights() == {"default": {"grey": 0, "red": 40_000, "green": 60_000}}


def test_variants_that_nobody_gets_can_not_be_rolled_out_from() -> None:
    present = replace(first_configuration("grey"), default_serve={"variant": "green"})
    assert fields(Plan(stages=ONE, to_variant="red"), present, COLOURS) == ["from_variant"]


def test_a_rule_is_rolled_out_like_the_default_and_all_else_stays() -> None:
    rules = [
        {"id": "nl", "condition": IN_NL, "serve": {"variant": "off"}},
        {"id": "be", "condition": IN_NL, "serve": {"split": {"weights": {"on": 7, "off": 99_993}}}},
    ]
    present = changed(FIRST, {"rules": rules}, "f", 2)
    after = with_share(present, "f", Release("nl", "off", "on", ()), 1_000)
    assert after.enabled
    assert after.split_weights() == {
        "nl": {"off": 99_000, "on": 1_000},
        "be": rules[1]["serve"]["split"]["weights"],
    }  # type: ignore[index]
    assert (after.rules[1], after.default_serve) == (present.rules[1], present.default_serve)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=8, unique=True).map(sorted))
def test_nobody_who_had_the_variant_loses_it_by_a_later_stage(weights: list[int]) -> None:
    present, release = FIRST, Release("default", "off", "on", ())
    had: set[int] = set()
    for weight in weights:
        present = with_share(present, "f", release, weight)
        assert weight_of(present, "default", "on") == weight
        start, has = 0, set()
        for upto, variant in present.default_serve["split"]["allocation"]:
            if variant == "on":
                has |= set(range(start, upto))
            start = upto
        assert had <= has
        assert len(has) == weight
        had = has


def test_templates_are_sound() -> None:
    assert [check_stages(stages) for stages in TEMPLATES.values()] == [[], [], []]
