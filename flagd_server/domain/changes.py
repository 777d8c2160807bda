"""From the configuration that stands and what is asked for to the one that follows. Pure.

What users see is moved as little as can be: a split keeps its allocation, and with it every user
whom the new weights don't force to move, as long as its salt and `bucket_by` stay.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.allocation import Allocation, reallocate
from flagd_server.domain.configuration import Configuration, JsonObject
from flagd_server.domain.guard_policy import complete_policy

DEFAULT_BUCKET_BY = "targetingKey"


def first_configuration(off_variant: str) -> Configuration:
    """Return what a new flag has in every environment: off, and off still when switched on."""
    return Configuration(
        enabled=False,
        off_variant=off_variant,
        rules=(),
        default_serve={"variant": off_variant},
        guard=complete_policy({}),
    )


def reaches_users(before: Configuration, after: Configuration) -> bool:
    """Tell whether users may be served something else after the change.

    A flag that is not enabled serves its off variant, whatever else is configured.
    """
    return before.enabled or after.enabled or before.off_variant != after.off_variant


def changed(
    present: Configuration, changes: JsonObject, flag_key: str, version: int
) -> Configuration:
    """Return the configuration in which each given field replaces the present one whole.

    A split that names no salt keeps the one its predecessor of the same name had, else it gets
    the flag's key; the salt is what keeps a user's place for life. A rule without an id gets
    one that no version of the flag has had.

    Args:
        changes: any of enabled, off_variant, rules, default_serve, guard, in the shape the API
            documents. Weights that don't hold are left without an allocation, for validation to
            name.
        version: the number that the result will have.
    """
    off_variant = changes.get("off_variant", present.off_variant)
    serves = _serves(present)
    updates: dict[str, Any] = {
        name: changes[name] for name in ("enabled", "off_variant") if name in changes
    }
    if "guard" in changes:
        updates["guard"] = complete_policy(changes["guard"])
    if "default_serve" in changes:
        updates["default_serve"] = with_allocation(
            changes["default_serve"], present.default_serve, flag_key, off_variant
        )
    if "rules" in changes:
        updates["rules"] = tuple(
            rule
            | {
                "serve": with_allocation(
                    rule["serve"], serves.get(rule["id"]), flag_key, off_variant
                )
            }
            for rule in _with_ids(changes["rules"], version)
        )
    return replace(present, **updates)


def rolled_back(present: Configuration, old: Configuration) -> Configuration:
    """Return the old configuration as it is to be served from now on.

    A kill that stands, stands on. A split that exists in both, with the same salt, gets back its
    old allocation where that moves nobody needlessly (undoing a ramp meets the very users it had
    before), and otherwise the one nearest to the present that has the old weights.
    """
    serves = _serves(present)
    return replace(
        old,
        kill=present.kill,
        default_serve=_returned(old.default_serve, present.default_serve, old.off_variant),
        rules=tuple(
            {**rule, "serve": _returned(rule["serve"], serves.get(rule["id"]), old.off_variant)}
            for rule in old.rules
        ),
    )


def is_same(first: Configuration, second: Configuration) -> bool:
    """Tell whether two configurations say the same in JSON, where `1` is neither `true` nor 1.0."""
    return _canonical(first) == _canonical(second)


def _canonical(configuration: Configuration) -> str:
    return json.dumps(configuration.to_document(), sort_keys=True)


def _serves(configuration: Configuration) -> dict[str, JsonObject]:
    return {rule["id"]: rule["serve"] for rule in configuration.rules}


def _with_ids(rules: Iterable[JsonObject], version: int) -> list[dict[str, Any]]:
    rules = list(rules)
    taken = {rule["id"] for rule in rules if "id" in rule}
    # The version makes an id new for good: telemetry of a rule long gone is never mixed with it.
    fresh = (name for n in count(1) if (name := f"r{version}-{n}") not in taken)
    return [dict(rule) if "id" in rule else {"id": next(fresh), **rule} for rule in rules]


def with_allocation(
    serve: JsonObject, predecessor: JsonObject | None, flag_key: str, off_variant: str
) -> dict[str, Any]:
    """Return a serve as it is kept: a split with the allocation nearest to its predecessor's."""
    if "split" not in serve:
        return dict(serve)
    asked = serve["split"]
    before = (predecessor or {}).get("split", {})
    split = {
        "bucket_by": asked.get("bucket_by", DEFAULT_BUCKET_BY),
        "salt": asked.get("salt", before.get("salt", flag_key)),
        "weights": dict(asked["weights"]),
    }
    is_kept = bool(before) and _has_same_units(before, split)
    if is_kept and "rested" in before:
        split["rested"] = before["rested"]
    if _are_sound(split["weights"]):
        held = before["allocation"] if is_kept else None
        split["allocation"] = nearest(held, split, off_variant)
    return {"split": split}


def _returned(old: JsonObject, present: JsonObject | None, off_variant: str) -> JsonObject:
    before = (present or {}).get("split")
    if "split" not in old or before is None or not _has_same_units(before, old["split"]):
        return old
    split = old["split"]
    held = before["allocation"]
    if "rested" in before:
        # Who has met a fault rests on, whatever was served before it was known.
        split = {**split, "rested": before["rested"]}
    new = nearest(held, split, off_variant)
    if "rested" not in split and (
        _moved_buckets(held, split["allocation"]) == _moved_buckets(held, new)
    ):
        return old
    return {"split": {**split, "allocation": new}}


def nearest(held: Allocation | None, split: JsonObject, off_variant: str) -> list[list[int | str]]:
    """Return the allocation for a split's weights that moves least of what is held."""
    # Lists, as they come back from JSON.
    found = reallocate(held, split["weights"], off_variant, split.get("rested", ()))
    return [[upto, variant] for upto, variant in found]


def _moved_buckets(first: Allocation, second: Allocation) -> int:
    """Count the buckets to which the two give different variants."""
    bounds = sorted({int(upto) for upto, _ in (*first, *second)})
    moved = start = 0
    for upto in bounds:
        if _variant_at(first, start) != _variant_at(second, start):
            moved += upto - start
        start = upto
    return moved


def _variant_at(allocation: Allocation, bucket: int) -> object:
    return next(variant for upto, variant in allocation if bucket < int(upto))


def _are_sound(weights: Mapping[str, Any]) -> bool:
    return (
        all(type(weight) is int and weight >= 0 for weight in weights.values())
        and sum(weights.values()) == BUCKETS
    )


def _has_same_units(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return bool(first["salt"] == second["salt"] and first["bucket_by"] == second["bucket_by"])
