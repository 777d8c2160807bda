from pathlib import Path

import pytest

from flagd_sdk.ctl.gitops.checks import check
from tests.sdk.ctl.states import configuration, flag, manifests, present

NEW = """\
flag: new
type: boolean
variants: {on: true, off: false}
environments:
  production:
"""


def faults(tmp_path: Path, text: str, *flags: object, **server: object) -> list[str]:
    """Return "line: path: message" of everything that is wrong."""
    read, problems = manifests(tmp_path, text)
    problems += check(read, present(*flags, **server))  # type: ignore[arg-type]
    return [str(problem).partition("flags.yaml:")[2] for problem in problems]


def in_production(tmp_path: Path, *lines: str) -> list[str]:
    return faults(tmp_path, NEW + "".join(f"    {line}\n" for line in lines))


def test_a_sound_file_has_no_faults(tmp_path: Path) -> None:
    assert not in_production(
        tmp_path,
        "enabled: true",
        "off_variant: off",
        "rules: [{id: nl, condition: {attribute: c, op: in, values: [NL]}, serve: {variant: on}}]",
        "default_serve: {split: {weights: {on: 5000, off: 95000}}}",
        "guard: {mode: observe, alpha: 0.01, control: off}",
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("enabled: on", "enabled: expected true or false"),
        ("kill: {id: x}", "kill: a kill is not kept in files"),
        ("enable: true", "enable: no field; expected one of enabled, "),
        ("off_variant: nope", "off_variant: 'nope' is none of the flag's variants"),
        ("default_serve: {variant: nope}", "default_serve.variant: 'nope' is none"),
        ("default_serve: {}", "default_serve: an object; expected a mapping with 'variant' or"),
        ("default_serve: {split: {weights: {on: 1}}}", "weights: they sum to 1; expected 100000"),
        ("default_serve: {split: {weights: {on: 1.5}}}", "weights.on: 1.5; expected 0 to 100000"),
        ("default_serve: {split: {weights: {a: 100000}}}", "weights.a: 'a' is none of"),
        ("default_serve: {split: {by: x, weights: {on: 100000}}}", "split.by: is no field"),
        ("guard: {mode: loud}", "guard.mode: expected one of enforce, observe, off"),
        ("guard: {alpha: 2}", "guard.alpha: expected a number from"),
        ("guard: {control: nope}", "guard.control: 'nope' is none of"),
        ("rules: [5]", "rules[0]: expected a rule"),
    ],
)
def test_a_fault_is_named_with_its_line_and_path(tmp_path: Path, line: str, fault: str) -> None:
    (found,) = in_production(tmp_path, line)
    assert found.startswith("6: environments.production.")
    assert fault in found


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("{condition: C, serve: {variant: on}}", "rules[0].id: None; expected a name"),
        ("{id: default, condition: C, serve: {variant: on}}", "id: 'default'; expected a name"),
        ("{id: a, condition: C, serve: {variant: on}, when: 5}", "rules[0].when: is no field"),
        ("{id: a, condition: {attribute: x, op: is, values: []}, serve: {variant: on}}", ".op: "),
        ("{id: a, condition: {segment: beta}, serve: {variant: on}}", "'beta'"),
        ("{id: a, condition: {flag: o, variants: [x]}, serve: {variant: on}}", "no flag 'o'"),
        ("{id: a, serve: {variant: on}}", "rules[0].condition: None; expected a condition"),
    ],
)
def test_a_rule_is_held_to_its_shape(tmp_path: Path, rule: str, fault: str) -> None:
    rule = rule.replace("condition: C", "condition: {attribute: c, op: exists, values: []}")
    (found,) = in_production(tmp_path, f"rules: [{rule}]")
    assert fault in found


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    text = "flag: a\n---\nsegment: s\nenvironments: {production: {}}\n---\n5\n---\nflag: a\n"
    found = faults(tmp_path, text)
    assert len(found) == 5
    assert "a new flag needs type" in found[3]
    assert "flag a stands in" in "\n".join(found)


def test_an_unknown_environment_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, NEW.replace("production:", "prod: {}"))
    assert found == "5: environments.prod: there is no such environment; there are production"


def test_a_type_never_changes(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, "flag: new\ntype: string\n", flag())
    assert found.startswith("2: type: it is boolean on the server")


def test_a_variant_that_something_on_the_server_serves_cannot_be_taken_away(
    tmp_path: Path,
) -> None:
    served = flag(configurations={"production": configuration(default_serve={"variant": "on"})})
    text = "flag: new\nvariants: {no: false, off: false}\n"
    (found,) = faults(tmp_path, text, served)
    assert "default_serve.variant: 'on' is none of the flag's variants" in found


def test_values_have_the_type_of_their_flag(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, "flag: n\ntype: integer\nvariants: {a: 1, b: two}\n")
    assert found.startswith("3: variants.b: ")


def test_flags_that_ask_for_each_other_are_found_across_files_and_server(tmp_path: Path) -> None:
    asks_for_new = {
        "id": "r",
        "condition": {"flag": "new", "variants": ["on"]},
        "serve": {"variant": "on"},
    }
    other = flag("other", {"production": configuration("other", rules=[asks_for_new])})
    rule = "{id: r, condition: {not: {flag: other, variants: [on]}}, serve: {variant: on}}"
    (found,) = faults(tmp_path, f"{NEW}    rules: [{rule}]\n", other)
    assert found.endswith("flags that ask for each other: new → other → new")


def test_segments_may_use_each_other_but_not_in_a_cycle(tmp_path: Path) -> None:
    text = "segment: %s\nenvironments: {production: {condition: {segment: %s}}}\n"
    known = {
        "staff": {"key": "staff", "condition": {"attribute": "a", "op": "exists", "values": []}}
    }
    assert not faults(tmp_path, text % ("beta", "staff"), segments=known)
    found = faults(tmp_path, f"{text % ('a', 'b')}---\n{text % ('b', 'a')}")
    assert len(found) == 2
    assert "cycle" in found[0]
