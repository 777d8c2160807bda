"""Holds flags and segments to their rules before they get in, naming every fault at once.

What a value or a condition must be is asked of the very functions that applications evaluate with;
this module adds what only the whole can tell: references, cycles, weights, limits.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from flagd_sdk.core.bucketing import BUCKETS
from flagd_sdk.core.conditions import Gathered, compile_condition, compile_segments
from flagd_sdk.core.types import shown
from flagd_sdk.core.values import READERS
from flagd_sdk.errors import ParseError
from flagd_server.domain.condition_check import ConditionCheck
from flagd_server.domain.configuration import DEFAULT_SPLIT
from flagd_server.domain.faults import Fault
from flagd_server.domain.references import references_of

MAX_RULES: Final = 100
MAX_VARIANTS: Final = 100
MAX_SALT: Final = 256
# What every JSON reader keeps exactly (RFC 8259, section 6): ±(2^53 - 1).
MAX_INTEGER: Final = (1 << 53) - 1


def check_variants(flag_type: str, variants: Mapping[str, object]) -> list[Fault]:
    """Return what is wrong with the variants of a flag of this type."""
    read = READERS.get(flag_type)
    if read is None:
        return [Fault("type", f"{shown(flag_type)}; expected one of {', '.join(READERS)}")]
    if not 1 <= len(variants) <= MAX_VARIANTS:
        return [Fault("variants", f"{len(variants)} variants; expected 1 to {MAX_VARIANTS}")]
    faults = []
    for name, value in variants.items():
        try:
            read(value)
        except ValueError as error:
            faults.append(Fault(f"variants.{name}", str(error)))
        else:
            if type(value) is int and abs(value) > MAX_INTEGER:
                message = f"{shown(value)}; expected an integer within ±{MAX_INTEGER}"
                faults.append(Fault(f"variants.{name}", message))
    if not faults and flag_type == "boolean" and False not in variants.values():
        message = "all are true; expected one that is false, for the flag to be off by"
        faults.append(Fault("variants", message))
    return faults


def check_segment(
    key: str, condition: object, segments: Mapping[str, Mapping[str, Any]]
) -> list[Fault]:
    """Return what is wrong with a segment.

    Flags that its condition asks for are checked with each flag that uses the segment.

    Args:
        segments: key → condition of the environment's segments, this one among them.
    """
    check = ConditionCheck(segments)
    check.condition("condition", condition)
    for path, used in check.segments:
        way = _way(used, key, lambda node: _segments_in(node, segments))
        if way is not None:
            message = f"leads back to this segment: {' → '.join((shown(key), *map(shown, way)))}"
            check.fault(path, message)
    if not check.faults:
        _check_whole([("condition", condition)], check, segments)
    return check.faults


def check_flag(
    document: Mapping[str, Any],
    flags: Mapping[str, Mapping[str, Any]],
    segments: Mapping[str, Mapping[str, Any]],
) -> list[Fault]:
    """Return what keeps a flag, as it would be delivered, from being served.

    Whether it is enabled or killed makes no difference: what is off today is on tomorrow.

    Args:
        document: the flag on the wire; allocations are not looked at.
        flags: key → document of the environment's other flags; only looked up, never walked.
        segments: key → condition of the environment's segments.
    """
    check = ConditionCheck(segments)
    check.faults.extend(check_variants(document["type"], document["variants"]))
    variants = document["variants"]
    off_variant = document["off_variant"]
    if type(off_variant) is not str or off_variant not in variants:
        check.fault("off_variant", _unknown_variant(off_variant))
    rules = document["rules"]
    if len(rules) > MAX_RULES:
        check.fault("rules", f"{len(rules)} rules; expected at most {MAX_RULES}")
        rules = rules[:MAX_RULES]
    check.faults.extend(_check_ids(rules))
    conditions: list[tuple[str, object]] = []
    for index, rule in enumerate(rules):
        path = f"rules[{index}]"
        conditions.append((f"{path}.condition", rule.get("condition")))
        check.condition(*conditions[-1])
        check.faults.extend(_check_serve(f"{path}.serve", rule.get("serve"), variants))
    check.faults.extend(_check_serve("default_serve", document["default_serve"], variants))
    _check_prerequisites(document["key"], check, flags, segments)
    if not check.faults:
        _check_whole(conditions, check, segments)
    return check.faults


def _check_ids(rules: Iterable[Mapping[str, Any]]) -> Iterable[Fault]:
    seen: dict[object, int] = {}
    for index, rule in enumerate(rules):
        name = rule.get("id")
        if type(name) is not str or not name:
            yield Fault(f"rules[{index}].id", f"{shown(name)}; expected a string, not empty")
        elif name == DEFAULT_SPLIT:
            yield Fault(f"rules[{index}].id", f"{shown(name)} is the name of the default serve")
        elif name in seen:
            message = f"{shown(name)} is also the id of rules[{seen[name]}]"
            yield Fault(f"rules[{index}].id", message)
        else:
            seen[name] = index


# --- serves ------------------------------------------------------------------------------------


def _check_serve(path: str, serve: object, variants: Mapping[str, object]) -> Iterable[Fault]:
    if type(serve) is not dict or len({"variant", "split"} & serve.keys()) != 1:
        yield Fault(path, f"{shown(serve)}; expected an object with 'variant' or 'split'")
    elif "split" in serve:
        yield from _check_split(f"{path}.split", serve["split"], variants)
    elif type(serve["variant"]) is not str or serve["variant"] not in variants:
        yield Fault(f"{path}.variant", _unknown_variant(serve["variant"]))


def _check_split(path: str, split: object, variants: Mapping[str, object]) -> Iterable[Fault]:
    if type(split) is not dict:
        yield Fault(path, f"{shown(split)}; expected an object")
        return
    bucket_by = split.get("bucket_by", "targetingKey")
    if type(bucket_by) is not str or not bucket_by:
        yield Fault(f"{path}.bucket_by", f"{shown(bucket_by)}; expected an attribute's name")
    salt = split.get("salt", "salt")
    if type(salt) is not str or not 1 <= len(salt) <= MAX_SALT or not _is_utf8(salt):
        yield Fault(f"{path}.salt", f"{shown(salt)}; expected 1 to {MAX_SALT} characters")
    weights = split.get("weights")
    if type(weights) is not dict or not weights:
        yield Fault(f"{path}.weights", f"{shown(weights)}; expected an object, not empty")
        return
    is_sound = True
    for variant, weight in weights.items():
        if variant not in variants:
            yield Fault(f"{path}.weights.{variant}", _unknown_variant(variant))
        if type(weight) is not int or not 0 <= weight <= BUCKETS:
            is_sound = False
            message = f"{shown(weight)}; expected an integer from 0 to {BUCKETS}"
            yield Fault(f"{path}.weights.{variant}", message)
    total = sum(weights.values()) if is_sound else BUCKETS
    if total != BUCKETS:
        yield Fault(f"{path}.weights", f"they sum to {total}; expected {BUCKETS}")


def _unknown_variant(name: object) -> str:
    return f"{shown(name)} is none of the flag's variants"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- references --------------------------------------------------------------------------------


def _check_prerequisites(
    key: str,
    check: ConditionCheck,
    flags: Mapping[str, Mapping[str, Any]],
    segments: Mapping[str, Mapping[str, Any]],
) -> None:
    """Check the flags that conditions ask for, by themselves or through segments."""
    asked = [*check.prerequisites]
    for path, segment in check.segments:
        found = ConditionCheck(segments)
        for used in sorted({segment, *references_of([segments[segment]], segments).segments}):
            if used in segments:
                found.condition("", segments[used])
        asked += [each._replace(path=path, variants_path=path) for each in found.prerequisites]

    def asks(node: str) -> Iterable[str]:
        return _flags_in(flags.get(node), segments)

    ways: dict[str, list[str] | None] = {}
    for path, variants_path, other, variants in asked:
        if other not in ways:
            ways[other] = _way(other, key, asks)
        way = ways[other]
        if way is not None:
            around = " → ".join((shown(key), *map(shown, way)))
            check.fault(path, f"asks for a flag that leads back to this one: {around}")
            continue
        document = flags.get(other)
        if document is None:
            check.fault(path, f"there is no flag {shown(other)}")
            continue
        for variant in variants:
            if variant not in document["variants"]:
                message = f"{shown(variant)} is none of the variants of flag {shown(other)}"
                check.fault(variants_path, message)


def _flags_in(
    document: Mapping[str, Any] | None, segments: Mapping[str, Mapping[str, Any]]
) -> Iterable[str]:
    if document is None:
        return ()
    return references_of((rule["condition"] for rule in document["rules"]), segments).flags


def _segments_in(key: str, segments: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    return references_of([segments[key]], {}).segments if key in segments else ()


def _way(start: str, goal: str, successors: Callable[[str], Iterable[str]]) -> list[str] | None:
    """Return a shortest way from start to goal, both included, or None where there is none."""
    if start == goal:
        return [goal]
    came_from: dict[str, str] = {}
    reached = [start]
    for node in reached:  # grows while it is walked: breadth first
        for successor in sorted(successors(node)):
            if successor == start or successor in came_from:
                continue
            came_from[successor] = node
            if successor == goal:
                way = [goal]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            reached.append(successor)
    return None


def _check_whole(
    conditions: Iterable[tuple[str, object]],
    check: ConditionCheck,
    segments: Mapping[str, Mapping[str, Any]],
) -> None:
    """Compile what looks sound: the evaluator's own limits count segments as written out."""
    used = {segment for _, segment in check.segments}
    used |= references_of((segments[segment] for segment in used), segments).segments
    gathered = Gathered(
        compile_segments({key: segments[key] for key in used if key in segments}).get
    )
    for path, condition in conditions:
        try:
            compile_condition(condition, gathered, 1)
        except ParseError as error:
            inner, _, message = str(error).partition(": ")
            check.fault(f"{path}.{inner}" if inner else path, message)
            return
