"""Two states of a flag's configuration → what differs, in words and as values. Pure."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from flagd_sdk.ctl.wording import condition_words, serve_words

Json = dict[str, Any]

CONFIGURATION_FIELDS = ("enabled", "off_variant", "rules", "default_serve", "guard")
DEFINITION_FIELDS = (
    "variants",
    "description",
    "owner",
    "tags",
    "lifetime",
    "expires_at",
    "archived",
)


class Change(NamedTuple):
    """One field: its path, and its values before and after (None where there is none)."""

    path: str
    before: Any
    after: Any


def plain_serve(serve: Json, flag: str, present: Json | None = None) -> Json:
    """Return what a serve says, with nothing that the server works out or takes for granted.

    Args:
        present: what is served now; what a split leaves out stays as it is there.
    """
    if "split" not in serve:
        return {"variant": serve["variant"]}
    split = serve["split"]
    now = (present or {}).get("split", {})
    return {
        "split": {
            "bucket_by": split.get("bucket_by", "targetingKey"),
            "salt": split.get("salt", now.get("salt", flag)),
            "weights": {name: weight for name, weight in split["weights"].items() if weight},
        }
    }


def plain_configuration(document: Json, flag: str) -> Json:
    """Return of a configuration as the server gives it what a person decides."""
    return {
        "enabled": document["enabled"],
        "off_variant": document["off_variant"],
        "rules": [plain_rule(rule, flag) for rule in document["rules"]],
        "default_serve": plain_serve(document["default_serve"], flag),
        "guard": dict(document["guard"]),
    }


def plain_rule(rule: Json, flag: str, present: Json | None = None) -> Json:
    served = None if present is None else present["serve"]
    made = {
        "id": rule["id"],
        "condition": rule["condition"],
        "serve": plain_serve(rule["serve"], flag, served),
    }
    return made | ({"description": rule["description"]} if rule.get("description") else {})


def changes_between(before: Json, after: Json, prefix: str = "") -> list[Change]:
    """Return the fields of `after` whose values are others in `before`; rules and guards by part.

    Args:
        before: may lack fields of `after`; fields that are only here are left out.
    """
    found: list[Change] = []
    for name, value in after.items():
        old = before.get(name)
        if same(old, value):
            continue
        path = f"{prefix}{name}"
        if name == "guard" and isinstance(old, dict):
            found += changes_between(old, value, f"{path}.")
        elif name == "rules" and isinstance(old, list):
            found += _rule_changes(old, value, path)
        else:
            found.append(Change(path, old, value))
    return found


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are the same JSON: a number is no boolean."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _rule_changes(before: list[Json], after: list[Json], path: str) -> list[Change]:
    old = {rule["id"]: rule for rule in before}
    new = {rule["id"]: rule for rule in after}
    found = [
        Change(f"{path}.{name}", old.get(name), new.get(name))
        for name in [*new, *(name for name in old if name not in new)]
        if not same(old.get(name), new.get(name))
    ]
    kept_before = [name for name in old if name in new]
    kept_after = [name for name in new if name in old]
    if kept_before != kept_after:
        found.append(Change(f"{path} (order)", [*old], [*new]))
    return found


def change_words(change: Change) -> str:
    """Return "path: before → after" on one line; for what is new its value alone."""
    if change.before is None:
        return f"{change.path}: {value_words(change.after)}"
    before, after = value_words(change.before), value_words(change.after)
    if before == after:  # the difference is in what the words leave out, such as a salt
        before, after = (json.dumps(each, ensure_ascii=False) for each in change[1:])
    return f"{change.path}: {before} → {after}"


def value_words(value: Any) -> str:
    """Return a value of a change as one line."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        if "variant" in value or "split" in value:
            return serve_words(dict(value))
        if {"condition", "serve"} <= value.keys():
            return f"{condition_words(value['condition'])} → {serve_words(value['serve'])}"
        return "{" + ", ".join(f"{name}: {value_words(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_words, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if str(value) else '""'
