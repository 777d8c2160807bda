"""Evaluation beside a slow evaluator that walks the documents, written from the contract alone."""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any, NamedTuple

import mmh3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagd_sdk.core.evaluator import evaluate
from flagd_sdk.core.parsing import parse_flag_set
from tests.sdk.core.documents import UNIT_KEY

Json = Any
FLAGS = ("f0", "f1", "f2")
SEGMENTS = ("s0", "s1", "s2")
VARIANTS = ("v0", "v1", "v2")

TEXTS = ["", "N", "NL", "nl", "eNL", "N.L", "7", "1", "ü", "\ud800"]
VERSIONS = [
    "1.2.3",
    "1.2.10",
    "1.2.3-rc.2",
    "1.2.3-rc.10",
    "1.2.3-rc",
    "1.2.3-1",
    "1.2.3+b",
    "0.0.0",
]
TIMES = ["2026-01-01T00:00:00Z", "2026-01-01t01:00:00+01:00", "2026-01-01T00:00:00.25Z",
         "2025-12-31T23:59:59.999999999Z", "2026-01-01T00:00:00-00:30"]  # fmt: skip
NUMBERS = [0, 1, 7, -1, 2.5, 1.0, 10**30]
PATTERNS = ["^N", "L$", "n|N", "[a-z]{2}", "N.L", ""]
INSTANTS = [
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, 1, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1))),
    datetime(2026, 1, 1),  # noqa: DTZ001 - naive, which never matches
]
UNFIT: list[object] = ["1.2", "v1.2.3", "01.2.3", "2026-01-01", "2026-13-01T00:00:00Z"]
OTHERS: list[object] = [True, False, None, math.nan, math.inf, {}, b"NL"]

# What an attribute may hold, so that an operator often meets what it can use.
KNOWN: dict[str, list[Any]] = {
    "targetingKey": [*map(str, range(8)), *TEXTS, *NUMBERS, *OTHERS],
    "text": [*TEXTS, *TEXTS, True, 7, None],
    "version": [*VERSIONS, *VERSIONS, *UNFIT, 1.2],
    "time": [*TIMES, *INSTANTS, *UNFIT, 2026],
    "number": [*NUMBERS, *NUMBERS, *OTHERS, "7"],
}
# Operator → the attribute it is asked about, and what a rule may compare that with.
OPERATORS: dict[str, tuple[str, list[Any]]] = {
    "in": ("text", [*TEXTS, *NUMBERS, True, False]),
    **dict.fromkeys(("starts_with", "ends_with", "contains"), ("text", TEXTS)),
    "matches": ("text", PATTERNS),
    **dict.fromkeys(("eq", "lt", "lte", "gt", "gte"), ("number", NUMBERS)),
    **{f"semver_{op}": ("version", VERSIONS) for op in ("eq", "lt", "lte", "gt", "gte")},
    **dict.fromkeys(("before", "after"), ("time", TIMES)),
    "exists": ("time", [True, False]),
}


# --- what is drawn -------------------------------------------------------------------------------


@st.composite
def attribute_conditions(draw: st.DrawFn) -> Json:
    op = draw(st.sampled_from(sorted(OPERATORS)))
    attribute, known = OPERATORS[op]
    values = draw(st.lists(st.sampled_from(known), max_size=3))
    return {"attribute": attribute, "op": op, "values": values}


def conditions() -> st.SearchStrategy[Json]:
    # One segment and one flag that there are not.
    leaves = st.one_of(
        attribute_conditions(),
        attribute_conditions(),
        attribute_conditions(),
        st.fixed_dictionaries({"segment": st.sampled_from((*SEGMENTS, *SEGMENTS, "absent"))}),
        st.fixed_dictionaries(
            {
                "flag": st.sampled_from((*FLAGS, "absent")),
                "variants": st.lists(st.sampled_from(VARIANTS), max_size=2),
            }
        ),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.fixed_dictionaries({"all": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"any": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"not": inner}),
        ),
        max_leaves=3,
    )


@st.composite
def splits(draw: st.DrawFn) -> Json:
    bounds = sorted(draw(st.sets(st.integers(1, 99_999), max_size=4)))
    return {
        "split": {
            "bucket_by": draw(st.sampled_from(("targetingKey", "targetingKey", "number"))),
            "salt": draw(st.sampled_from(("f0", "", "sält"))),
            "allocation": [[upto, draw(st.sampled_from(VARIANTS))] for upto in (*bounds, 100_000)],
        }
    }


@st.composite
def flags(draw: st.DrawFn, key: str) -> Json:
    serves = st.one_of(
        st.fixed_dictionaries({"variant": st.sampled_from(VARIANTS)}), splits(), splits()
    )
    rules = draw(st.lists(st.tuples(conditions(), serves), max_size=2))
    return {
        "key": key,
        "type": "integer",
        "version": draw(st.integers(1, 9)),
        "enabled": draw(st.integers(0, 9)) > 0,
        "variants": {name: number for number, name in enumerate(VARIANTS)},
        "off_variant": draw(st.sampled_from(VARIANTS)),
        "rules": [
            {"id": f"r{number}", "condition": condition, "serve": serve}
            for number, (condition, serve) in enumerate(rules)
        ],
        "default_serve": draw(serves),
        "kill": {"id": "k"} if draw(st.integers(0, 9)) == 0 else None,
    }


def flag_sets() -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {
            "environment": st.just("production"),
            "sequence": st.just(1),
            "unit_key": st.just(UNIT_KEY),
            "flags": st.fixed_dictionaries({key: flags(key) for key in FLAGS}),
            "segments": st.fixed_dictionaries({key: conditions() for key in SEGMENTS}),
        }
    )


def contexts() -> st.SearchStrategy[dict[str, Any]]:
    def held(known: list[Any]) -> st.SearchStrategy[Any]:
        one = st.sampled_from(known)
        return st.one_of(one, one, one, st.lists(one, max_size=3))

    attributes = {name: held(known) for name, known in KNOWN.items()}
    return st.one_of(
        st.fixed_dictionaries(attributes), st.fixed_dictionaries({}, optional=attributes)
    )


# --- the slow evaluator --------------------------------------------------------------------------


class Served(NamedTuple):
    variant: str | None
    reason: str
    split: str | None


BROKEN = Served(None, "ERROR", None)


class SlowEvaluator:
    """Finds out everything anew, for one context."""

    def __init__(self, document: Json, context: dict[str, Any]) -> None:
        self.flags = document["flags"]
        self.segments = document["segments"]
        self.context = context

    def evaluate(self, key: str) -> Served:
        flag = self.flags[key]
        off = flag["off_variant"]
        if flag["kill"] is not None or not flag["enabled"]:
            return Served(off, "DISABLED", None)
        asked = self.asked_by(key)
        if asked is None or self.is_cyclic(key):
            return BROKEN
        for rule in flag["rules"]:
            if self.holds(rule["condition"]):
                return self.serve(rule["serve"], rule["id"], "TARGETING_MATCH", off)
        return self.serve(flag["default_serve"], "default", "STATIC", off)

    def asked_by(self, key: str) -> set[str] | None:
        """Return the flags whose value a flag may need, or None where it can't be understood."""
        flag = self.flags.get(key)
        if flag is None or flag["kill"] is not None or not flag["enabled"]:
            return set()
        try:
            return {name for rule in flag["rules"] for name in self.names(rule["condition"], ())}
        except LookupError:
            return None

    def names(self, condition: Json, way: tuple[str, ...]) -> Iterator[str]:
        """Yield the flags asked for; LookupError for segments that are absent or in a cycle."""
        if "flag" in condition:
            yield condition["flag"]
        elif "segment" in condition:
            name = condition["segment"]
            if name in way or name not in self.segments:
                raise LookupError(name)
            yield from self.names(self.segments[name], (*way, name))
        else:
            inner = condition.get("all", condition.get("any", []))
            for child in [*inner, *([condition["not"]] if "not" in condition else [])]:
                yield from self.names(child, way)

    def is_cyclic(self, key: str) -> bool:
        reached: set[str] = set()
        ahead = [key]
        while ahead:
            for name in self.asked_by(ahead.pop()) or ():
                if name not in reached:
                    reached.add(name)
                    ahead.append(name)
        return key in reached

    def serve(self, serve: Json, split: str, reason: str, off: str) -> Served:
        if "variant" in serve:
            return Served(serve["variant"], reason, None)
        split_document = serve["split"]
        unit = as_unit(self.context.get(split_document["bucket_by"]))
        if unit is None:
            return Served(off, "DEFAULT", None)
        hashed = mmh3.mmh3_32_uintdigest(f"{split_document['salt']}:{unit}".encode())
        bucket = hashed * 100_000 // 2**32
        for upto, variant in split_document["allocation"]:
            if bucket < upto:
                return Served(variant, "SPLIT", split)
        raise AssertionError("the last bound is 100,000")

    def holds(self, condition: Json) -> bool:
        if "all" in condition:
            return all(self.holds(child) for child in condition["all"])
        if "any" in condition:
            return any(self.holds(child) for child in condition["any"])
        if "not" in condition:
            return not self.holds(condition["not"])
        if "segment" in condition:
            return self.holds(self.segments[condition["segment"]])
        if "flag" in condition:
            key = condition["flag"]
            return key in self.flags and self.evaluate(key).variant in condition["variants"]
        value = self.context.get(condition["attribute"])
        op, values = condition["op"], condition["values"]
        if op == "exists":
            return (value is not None) in (values or [True])
        found = value if isinstance(value, list) else [value]
        return any(matches(op, each, wanted) for each in found for wanted in values)


def matches(op: str, value: object, wanted: Any) -> bool:
    """Apply an operator to one element and one value of the rule."""
    if op == "in":
        kinds = [bool, str, (int, float)]
        kind = next(kind for kind in kinds if isinstance(wanted, kind))
        return (
            isinstance(value, kind)
            and isinstance(value, bool) == (kind is bool)
            and value == wanted
        )
    if op in ("starts_with", "ends_with", "contains", "matches"):
        if not isinstance(value, str):
            return False
        if op == "matches":
            return "\ud800" not in value and re.search(wanted, value) is not None
        size = len(wanted)
        cuts = {
            "starts_with": [value[:size]],
            "ends_with": [value[len(value) - size :]] if size <= len(value) else [],
            "contains": [value[start : start + size] for start in range(len(value) + 1)],
        }
        return wanted in cuts[op]
    if op.startswith("semver_"):
        order = compare_versions(value, wanted)
        op = op.removeprefix("semver_")
    elif op in ("before", "after"):
        at, bound = as_instant(value), as_instant(wanted)
        assert bound is not None
        order = None if at is None else sign(at, bound)
        op = {"before": "lt", "after": "gt"}[op]
    else:
        order = None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            order = sign(Fraction(value), Fraction(wanted))
    wanted_orders = {"eq": (0,), "lt": (-1,), "lte": (-1, 0), "gt": (1,), "gte": (0, 1)}
    return order in wanted_orders[op]


def sign(left: Any, right: Any) -> int:
    return (left > right) - (left < right)


def compare_versions(value: object, wanted: str) -> int | None:
    """Compare by item 11 of semver.org; None where the value is none of the versions above."""
    if value not in VERSIONS:
        return None
    (left, left_labels), (right, right_labels) = parts_of(str(value)), parts_of(wanted)
    if left != right:
        return sign(left, right)
    if not left_labels or not right_labels:
        return sign(not left_labels, not right_labels)
    for one, other in zip(left_labels, right_labels, strict=False):
        if one != other:
            if one.isdigit() and other.isdigit():
                return sign(int(one), int(other))
            if one.isdigit() or other.isdigit():
                return -1 if one.isdigit() else 1
            return sign(one, other)
    return sign(len(left_labels), len(right_labels))


def parts_of(version: str) -> tuple[list[int], list[str]]:
    core, _, labels = version.partition("+")[0].partition("-")
    return [int(part) for part in core.split(".")], labels.split(".") if labels else []


def as_instant(value: object) -> Fraction | None:
    """Return the seconds since 2020 of a time that is one of those above."""
    if value in TIMES:
        text = str(value).upper()
        fraction = re.search(r"\.([0-9]+)", text)
        whole = datetime.fromisoformat(re.sub(r"\.[0-9]+", "", text))
        beyond = Fraction(int(fraction[1]), 10 ** len(fraction[1])) if fraction else Fraction(0)
    elif isinstance(value, datetime) and value.tzinfo is not None:
        whole, beyond = value, Fraction(0)
    else:
        return None
    elapsed = whole - datetime(2020, 1, 1, tzinfo=UTC)
    return Fraction(elapsed // timedelta(microseconds=1), 10**6) + beyond


def as_unit(value: object) -> str | None:
    if isinstance(value, bool) or value == "" or value == "\ud800":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return None


# --- the comparison ------------------------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(flag_sets(), st.lists(contexts(), min_size=4, max_size=8))
def test_the_compiled_flag_set_says_what_walking_its_documents_says(
    document: Json, questions: list[dict[str, Any]]
) -> None:
    flag_set = parse_flag_set(document)
    for context in questions:
        slow = SlowEvaluator(document, context)
        for key in FLAGS:
            expected = slow.evaluate(key)
            details = evaluate(flag_set, key, -1, context)
            split = details.flag_metadata.get("split")
            assert (details.variant, str(details.reason), split) == expected
            assert details.value == (
                -1 if expected.variant is None else VARIANTS.index(expected.variant)
            )
            assert (details.error_code == "PARSE_ERROR") == (expected == BROKEN)
