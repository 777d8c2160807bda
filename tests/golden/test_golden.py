"""Runs the golden vectors, and recomputes those that were generated in another, slower way."""

import json
from pathlib import Path
from typing import Any

import pytest

from flagd_sdk.core.bucketing import BUCKETS, bucket, unit_of
from flagd_sdk.core.evaluator import evaluate
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.core.semver import version_key
from flagd_server.domain.allocation import reallocate
from tests.sdk.core.documents import flag_set, targeted


def vectors(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))


# --- bucketing ---------------------------------------------------------------------------------


def murmur3_by_the_book(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0, from Austin Appleby's description."""

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & 0xFFFFFFFF

    def scrambled(block: int) -> int:
        return rotated(block * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    state = 0
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        state ^= scrambled(int.from_bytes(data[start : start + 4], "little"))
        state = (rotated(state, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    state ^= scrambled(int.from_bytes(data[whole:], "little")) if whole < len(data) else 0
    state ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = (state ^ state >> shift) * factor & 0xFFFFFFFF
    return state


def test_the_hash_by_the_book_gives_its_published_values() -> None:
    # From the test vectors on Wikipedia's "MurmurHash" page.
    assert murmur3_by_the_book(b"") == 0
    assert murmur3_by_the_book(b"test") == 0xBA6BD213
    assert murmur3_by_the_book(b"Hello, world!") == 0xC0363E43
    assert murmur3_by_the_book(b"The quick brown fox jumps over the lazy dog") == 0x2E4FF723


@pytest.mark.parametrize("vector", vectors("bucketing")["buckets"])
def test_bucketing(vector: dict[str, Any]) -> None:
    text = f"{vector['salt']}:{vector['unit']}"
    assert murmur3_by_the_book(text.encode()) == vector["hash"]
    assert vector["bucket"] == vector["hash"] * 100_000 // 2**32
    assert bucket(vector["salt"], vector["unit"]) == vector["bucket"]


@pytest.mark.parametrize("vector", vectors("bucketing")["units"])
def test_units(vector: dict[str, Any]) -> None:
    assert unit_of(vector["value"]) == vector["unit"]


# --- allocation --------------------------------------------------------------------------------


def reallocated_one_by_one(
    buckets: list[str] | None, weights: dict[str, int], off_variant: str
) -> list[str]:
    """The rules of `reallocate`, a bucket at a time."""
    base = off_variant if off_variant in weights else [*weights][-1]
    buckets = [base] * BUCKETS if buckets is None else [*buckets]
    free = []
    for variant in {*buckets, *weights}:
        held = [index for index, holder in enumerate(buckets) if holder == variant]
        surplus = max(len(held) - weights.get(variant, 0), 0)
        free += held[:surplus] if variant == base else held[len(held) - surplus :]
    free.sort()
    for index in free:
        buckets[index] = ""
    for variant in [*(name for name in weights if name != base), base]:
        missing = weights.get(variant, 0) - buckets.count(variant)
        for index in free[:missing]:
            buckets[index] = variant
        free = free[missing:]
    return buckets


def expanded(allocation: list[list[Any]]) -> list[str]:
    buckets: list[str] = []
    for upto, variant in allocation:
        buckets += [variant] * (upto - len(buckets))
    return buckets


@pytest.mark.parametrize("run", vectors("allocation"), ids=lambda run: run["name"])
def test_allocation(run: dict[str, Any]) -> None:
    held, buckets, before = None, None, None
    for step in run["steps"]:
        weights = step["weights"]
        held = reallocate(held, weights, run["off_variant"])
        assert held == step["allocation"]
        after = expanded(held)
        buckets = reallocated_one_by_one(before, weights, run["off_variant"])
        assert after == buckets
        if before is not None:
            moved = sum(old != new for old, new in zip(before, after, strict=True))
            shares = [before.count(name) for name in weights]
            distance = sum(abs(n - w) for n, w in zip(shares, weights.values(), strict=True)) // 2
            assert moved == step["moved"] == distance
        before = after


# --- operators ---------------------------------------------------------------------------------

OPERATORS = vectors("operators")


def cases_of(kind: str) -> list[tuple[str, list[Any], Any]]:
    return [
        (vector["op"], vector["values"], value) for vector in OPERATORS for value in vector[kind]
    ]


def holds(op: object, values: object, value: object) -> bool:
    condition = {"attribute": "a", "op": op, "values": values}
    compiled = parse_flag_set(flag_set(targeted(condition)))
    assert not compiled.faults
    context = {} if value == {"$": "absent"} else {"a": value}
    resolution = compiled.resolve("f", context)
    assert resolution.error_code is None
    return bool(resolution.value)


@pytest.mark.parametrize(("op", "values", "value"), cases_of("holds"))
def test_operators_hold(op: str, values: list[Any], value: object) -> None:
    assert holds(op, values, value)


@pytest.mark.parametrize(("op", "values", "value"), cases_of("fails"))
def test_operators_fail(op: str, values: list[Any], value: object) -> None:
    assert not holds(op, values, value)


@pytest.mark.parametrize("vector", vectors("operator_faults"))
def test_operators_refuse(vector: dict[str, Any]) -> None:
    condition = {"attribute": "a", **vector}
    compiled = parse_flag_set(flag_set(targeted(condition)))
    assert list(compiled.faults) == ["f"]
    assert compiled.resolve("f", {}).error_code == "PARSE_ERROR"


# --- semantic versions -------------------------------------------------------------------------


def test_versions_ascend() -> None:
    for versions in vectors("semver")["ascending"]:
        keys = [version_key(version) for version in versions]
        assert None not in keys
        for older in range(len(keys)):
            for newer in range(older + 1, len(keys)):
                assert keys[older] < keys[newer], (versions[older][:20], versions[newer][:20])


def test_versions_that_are_the_same() -> None:
    for versions in vectors("semver")["equal"]:
        assert len({version_key(version) for version in versions}) == 1
        assert version_key(versions[0]) is not None


@pytest.mark.parametrize("text", vectors("semver")["invalid"])
def test_texts_that_are_no_version(text: str) -> None:
    assert version_key(text) is None


# --- evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize("group", vectors("evaluation"), ids=lambda group: group["name"])
def test_evaluation(group: dict[str, Any]) -> None:
    flags = parse_flag_set(group["flag_set"])
    for case in group["cases"]:
        details = evaluate(flags, case["flag"], case["default"], case["context"])
        found = {
            "value": details.value,
            "variant": details.variant,
            "reason": details.reason,
            "error_code": details.error_code,
            "split": details.flag_metadata.get("split"),
        }
        assert found == {name: case[name] for name in found}, case
        assert type(details.value) is type(case["value"]), case
        assert (details.error_message is None) == (case["error_code"] is None), case
