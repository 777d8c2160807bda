import json

from flagd_sdk.ctl.differences import Change, change_words, changes_between
from flagd_sdk.ctl.wording import condition_words, percent, serve_words, served_words
from tests.sdk.ctl.states import KILL, configuration, split


def test_shares_are_percent() -> None:
    assert percent(5_000) == "5 %"
    assert percent(1) == "0.001 %"
    assert percent(100_000) == "100 %"
    assert serve_words(split(on=5_000, off=95_000, old=0)) == "on 5 %, off 95 %"


def test_what_is_served_follows_from_the_state() -> None:
    on = configuration(default_serve={"variant": "on"})
    assert served_words(on) == "on"
    assert served_words(on | {"enabled": False}) == "off"
    assert served_words(on | {"kill": KILL}) == "off"
    assert served_words(on | {"rules": [{}]}) == "on (after 1 rule)"


def test_a_condition_is_one_line() -> None:
    condition = {
        "all": [
            {"attribute": "country", "op": "in", "values": list("ABCDEFG")},
            {"not": {"any": [{"segment": "beta"}, {"flag": "cart", "variants": ["on", "x"]}]}},
        ]
    }
    assert condition_words(condition) == (
        "(country in A, B, C, D, E and 2 more and not (in segment beta or flag cart is on or x))"
    )


def test_a_number_is_no_boolean_and_order_of_names_does_not_matter() -> None:
    assert changes_between({"a": True}, {"a": 1}) == [Change("a", True, 1)]
    assert changes_between({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}) == []


def test_rules_are_compared_one_by_one_and_in_their_order() -> None:
    a, b, c = ({"id": name, "serve": {"variant": "on"}, "condition": {}} for name in "abc")
    changed = a | {"serve": {"variant": "off"}}
    found = changes_between({"rules": [a, b]}, {"rules": [changed, c]})
    assert [(each.path, each.before is None, each.after is None) for each in found] == [
        ("rules.a", False, False),
        ("rules.c", True, False),
        ("rules.b", False, True),
    ]
    (moved,) = changes_between({"rules": [a, b]}, {"rules": [b, a]})
    assert moved == Change("rules (order)", ["a", "b"], ["b", "a"])


def test_a_change_that_words_cannot_tell_is_shown_as_it_is() -> None:
    before, after = split(on=100_000), split(on=100_000)
    after["split"]["salt"] = "other"
    words = change_words(Change("default_serve", before, after))
    assert '"salt": "new"' in words
    assert '"salt": "other"' in words
    assert json.dumps(after) in words
