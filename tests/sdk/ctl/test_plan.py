from pathlib import Path

import pytest

from flagd_sdk.ctl.differences import change_words
from flagd_sdk.ctl.gitops.exporting import manifests_of, to_yaml
from flagd_sdk.ctl.gitops.plan import Plan, make_plan
from flagd_sdk.ctl.gitops.present import Present
from tests.sdk.ctl.states import GUARD, KILL, configuration, flag, present, sound, split

RUNNING = {"id": "ro-1", "state": "running", "split": "default"}


def plan(tmp_path: Path, text: str, server: Present, *, prune: bool = False) -> Plan:
    return make_plan(sound(tmp_path, text), server, prune=prune)


def actions(made: Plan) -> list[tuple[str, str]]:
    return [(step.action, step.key) for step in made.steps]


def production(*lines: str) -> str:
    return "flag: new\nenvironments:\n  production:\n" + "".join(f"    {each}\n" for each in lines)


def served(**fields: object) -> Present:
    return present(flag(configurations={"production": configuration(**fields)}))


def test_what_is_as_its_file_says_needs_no_step(tmp_path: Path) -> None:
    server = served(default_serve=split(on=5_000, off=95_000))
    made = plan(
        tmp_path,
        production("enabled: true", "default_serve: {split: {weights: {on: 5000, off: 95000}}}"),
        server,
    )
    assert (made.steps, made.notes, made.unchanged) == ((), (), 1)


def test_only_the_fields_that_differ_are_written(tmp_path: Path) -> None:
    server = served(default_serve=split(on=1_000, off=99_000))
    text = production("enabled: true", "default_serve: {split: {weights: {on: 5000, off: 95000}}}")
    (step,) = plan(tmp_path, text, server).steps
    assert list(step.body) == ["default_serve"]
    assert [change_words(each) for each in step.changes] == [
        "default_serve: on 1 %, off 99 % → on 5 %, off 95 %"
    ]
    assert step.place.endswith("flags.yaml:3")


def test_a_split_keeps_the_salt_that_its_file_does_not_name(tmp_path: Path) -> None:
    other = split(on=1_000, off=99_000)
    other["split"]["salt"] = "old-name"
    text = production("default_serve: {split: {weights: {on: 5000, off: 95000}}}")
    (step,) = plan(tmp_path, text, served(default_serve=other)).steps
    assert step.body["default_serve"]["split"]["salt"] == "old-name"


def test_of_a_guard_only_what_is_written_changes(tmp_path: Path) -> None:
    (step,) = plan(tmp_path, production("guard: {mode: observe}"), served()).steps
    assert step.body == {"guard": GUARD | {"mode": "observe"}}
    assert [change.path for change in step.changes] == ["guard.mode"]


def test_a_new_flag_is_created_before_it_is_configured(tmp_path: Path) -> None:
    text = (
        "flag: new\ntype: boolean\nvariants: {on: true, off: false}\n"
        "environments: {production: {enabled: true, off_variant: off}}\n"
    )
    made = plan(tmp_path, text, present())
    assert actions(made) == [("create", "new"), ("configure", "new")]
    assert made.steps[0].body["off_variant"] == "off"
    assert made.steps[1].body == {"enabled": True}


def test_flags_and_segments_come_before_the_rules_that_use_them(tmp_path: Path) -> None:
    text = """\
flag: a
type: boolean
variants: {on: true, off: false}
environments:
  production:
    rules:
      - {id: r, condition: {all: [{segment: s1}, {flag: z, variants: [on]}]}, serve: {variant: on}}
---
segment: s1
environments: {production: {condition: {segment: s2}}}
---
segment: s2
environments: {production: {condition: {attribute: a, op: exists, values: []}}}
---
flag: z
type: boolean
variants: {on: true, off: false}
"""
    made = plan(tmp_path, text, present())
    assert actions(made) == [
        ("create", "a"),
        ("create", "z"),
        ("put_segment", "s2"),
        ("put_segment", "s1"),
        ("configure", "a"),
    ]


def test_a_variant_is_added_before_it_is_served_and_removed_after(tmp_path: Path) -> None:
    text = (
        "flag: new\nvariants: {on: true, slow: true, off: false}\n"
        "environments: {production: {default_serve: {variant: slow}}}\n"
    )
    server = present(
        flag(
            configurations={"production": configuration(default_serve={"variant": "old"})},
            variants={"on": True, "old": True, "off": False},
        )
    )
    first, configure, last = plan(tmp_path, text, server).steps
    assert first.body["variants"].keys() == {"on", "old", "slow", "off"}
    assert configure.body == {"default_serve": {"variant": "slow"}}
    assert last.body["variants"].keys() == {"on", "slow", "off"}


def test_a_killed_flag_can_be_edited_and_no_step_lifts_its_kill(tmp_path: Path) -> None:
    text = production("enabled: true", "default_serve: {variant: on}")
    made = plan(tmp_path, text, served(enabled=False, kill=KILL))
    (step,) = made.steps
    assert step.action == "configure"
    assert "kill" not in step.body
    assert made.notes == ("new in production is killed (kill-1) and stays off",)


def test_what_a_rollout_decides_is_left_to_it(tmp_path: Path) -> None:
    server = served(default_serve=split(on=25_000, off=75_000))._replace(
        rollouts={("new", "production"): RUNNING}
    )
    text = production("enabled: false", "default_serve: {split: {weights: {on: 1000, off: 99000}}}")
    made = plan(tmp_path, text, server)
    assert made.steps == ()
    assert made.notes == (
        "new in production: rollout ro-1 (running) decides until it ends;"
        " enabled and default_serve left as it is",
    )


@pytest.mark.parametrize(("action", "actor"), [("rollback", "guard"), ("restore", "first admin")])
def test_what_was_lowered_for_safety_is_not_raised_again(
    tmp_path: Path, action: str, actor: str
) -> None:
    server = served(default_serve=split(on=1_000, off=99_000), action=action, actor=actor)
    text = production("default_serve: {split: {weights: {on: 25000, off: 75000}}}")
    made = plan(tmp_path, text, server)
    assert made.steps == ()
    assert "default_serve left as it is" in made.notes[0]
    off = plan(tmp_path, production("enabled: false"), server)
    assert [step.body for step in off.steps] == [{"enabled": False}], "off is easy"


@pytest.mark.parametrize(("action", "actor"), [("rollback", "me"), ("update", "guard")])
def test_what_a_person_did_by_hand_is_made_as_the_file_says(
    tmp_path: Path, action: str, actor: str
) -> None:
    server = served(default_serve=split(on=1_000, off=99_000), action=action, actor=actor)
    text = production("default_serve: {split: {weights: {on: 25000, off: 75000}}}")
    assert len(plan(tmp_path, text, server).steps) == 1


def test_of_a_rule_that_a_rollout_steers_the_rest_can_change(tmp_path: Path) -> None:
    condition = {"attribute": "a", "op": "exists", "values": []}
    rule = {"id": "r", "condition": condition, "serve": split(on=25_000, off=75_000)}
    server = served(rules=[rule])._replace(
        rollouts={("new", "production"): RUNNING | {"split": "r"}}
    )
    text = production(
        "rules:",
        "  - id: r",
        "    condition: {attribute: b, op: exists, values: []}",
        "    serve: {variant: on}",
    )
    made = plan(tmp_path, text, server)
    (step,) = made.steps
    (written,) = step.body["rules"]
    assert written["condition"]["attribute"] == "b"
    assert written["serve"]["split"]["weights"] == {"on": 25_000, "off": 75_000}
    assert any("pauses rollout ro-1" in note for note in made.notes)


def test_a_flag_in_no_file_is_archived_only_on_demand(tmp_path: Path) -> None:
    server = present(flag(), flag("old"), flag("gone", archived=True))
    assert plan(tmp_path, "flag: new\n", server).steps == ()
    made = plan(tmp_path, "flag: new\n", server, prune=True)
    assert actions(made) == [("archive", "old")]


def test_what_was_archived_comes_back_with_its_file(tmp_path: Path) -> None:
    made = plan(tmp_path, production("enabled: false"), present(flag(archived=True)))
    assert [step.body for step in made.steps] == [{"archived": False}, {"enabled": False}]


def test_a_flag_is_archived_after_all_else(tmp_path: Path) -> None:
    text = "archived: true\nowner: me\n" + production("enabled: false")
    made = plan(tmp_path, text, present(flag()))
    assert [step.body for step in made.steps] == [
        {"owner": "me"},
        {"enabled": False},
        {"archived": True},
    ]
    again = plan(tmp_path, text, present(flag(archived=True, owner="me")))
    assert again.steps == ()


def test_the_same_moment_written_otherwise_is_no_change(tmp_path: Path) -> None:
    server = present(flag(expires_at="2027-01-31T11:00:00.000Z"))
    same = 'flag: new\nexpires_at: "2027-01-31T12:00:00+01:00"\n'
    assert plan(tmp_path, same, server).steps == ()
    assert len(plan(tmp_path, same.replace("12:00:00", "12:00:01"), server).steps) == 1
    assert len(plan(tmp_path, "flag: new\nexpires_at: null\n", server).steps) == 1


def test_what_is_exported_says_what_is_there(tmp_path: Path) -> None:
    rule = {
        "id": "nl",
        "description": "NL first",
        "condition": {"attribute": "country", "op": "in", "values": ["NL", "NO", "on", "1.0"]},
        "serve": {"split": {**split(on=50_000, off=50_000)["split"], "salt": "nl-1"}},
    }
    server = present(
        flag(
            configurations={
                "production": configuration(
                    rules=[rule], default_serve=split(on=1, off=99_999), kill=KILL
                )
            },
            description="yes: no # maybe",
            tags=["on", "1e3"],
            expires_at="2027-01-31T11:00:00.000Z",
        ),
        flag("gone", archived=True),
        segments={"beta": {"description": "", "condition": {"segment": "staff"}}},
    )
    made = manifests_of(server)
    assert list(made) == ["new.yaml", "segments/beta.yaml"]
    text = "---\n".join(map(to_yaml, made.values()))
    assert "kill" not in made["new.yaml"]["environments"]["production"]
    assert "'on'" in text, "quoted for readers of YAML 1.1"
    assert plan(tmp_path, text, server).steps == ()
