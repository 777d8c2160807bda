"""The flags and users whose evaluation is timed; and the floors: the same decisions by hand."""

import random
from collections.abc import Mapping
from typing import Any

from mmh3 import hash as murmur3

FLAGS = 100
SET_SIZE = 1000

COUNTRIES = ("NL", "BE", "LU", "DE", "FR")


def _split(key: str, *allocation: tuple[int, str]) -> dict[str, Any]:
    pieces = [list(piece) for piece in allocation]
    return {"split": {"bucket_by": "targetingKey", "salt": key, "allocation": pieces}}


def boolean_flag(key: str) -> dict[str, Any]:
    """A boolean that is on for 25 % of the users."""
    return {
        "key": key,
        "type": "boolean",
        "version": 7,
        "enabled": True,
        "variants": {"on": True, "off": False},
        "off_variant": "off",
        "rules": [],
        "default_serve": _split(key, (25_000, "on"), (100_000, "off")),
        "kill": None,
    }


def rules_flag(key: str) -> dict[str, Any]:
    """Four variants behind three rules: a country in five; plan and version; an e-mail suffix."""
    pro = [
        {"attribute": "plan", "op": "in", "values": ["pro"]},
        {"attribute": "version", "op": "semver_gte", "values": ["2.3.0"]},
    ]
    staff = {"attribute": "email", "op": "ends_with", "values": ["@example.com"]}
    country = {"attribute": "country", "op": "in", "values": list(COUNTRIES)}
    split = _split(key, (10_000, "blue"), (20_000, "green"), (50_000, "red"), (100_000, "grey"))
    return {
        "key": key,
        "type": "string",
        "version": 3,
        "enabled": True,
        "variants": {"blue": "blue", "green": "green", "red": "red", "grey": "grey"},
        "off_variant": "grey",
        "rules": [
            {"id": "country", "condition": country, "serve": {"variant": "blue"}},
            {"id": "pro", "condition": {"all": pro}, "serve": {"variant": "green"}},
            {"id": "staff", "condition": staff, "serve": {"variant": "red"}},
        ],
        "default_serve": split,
        "kill": None,
    }


def flag_set_document(flags: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "environment": "production",
        "sequence": 1,
        "unit_key": "00112233445566778899aabbccddeeff",
        "flags": {flag["key"]: flag for flag in flags},
        "segments": {},
    }


def mixed_document() -> dict[str, Any]:
    """A thousand flags: three plain percentage splits to each one with three rules."""
    flags = [
        rules_flag(f"flag-{index}") if index % 4 == 3 else boolean_flag(f"flag-{index}")
        for index in range(SET_SIZE)
    ]
    return flag_set_document(flags)


def users(count: int) -> list[dict[str, object]]:
    """Users of whom a third meet a rule, spread over all three, and the others none."""
    draw = random.Random(20260601)
    return [
        {
            "targetingKey": f"user-{draw.randrange(10**9)}",
            "country": draw.choice((*COUNTRIES[:1], "US", "GB", "IT", "ES", "PT")),
            "plan": draw.choice(("free", "free", "pro")),
            "version": draw.choice(("1.9.12", "2.2.40", "2.3.0", "2.10.1")),
            "email": f"u{draw.randrange(10**6)}@{draw.choice(('example.com', *['mail.org'] * 9))}",
        }
        for _ in range(count)
    ]


# --- the floors --------------------------------------------------------------------------------

BY_HAND = {f"flag-{index}": (f"flag-{index}:", 25_000 * 2**32 // 100_000) for index in range(FLAGS)}


def boolean_by_hand(key: str, unit: str) -> bool:
    prefix, threshold = BY_HAND[key]
    return murmur3(prefix + unit, 0, False) < threshold


def rules_by_hand(context: Mapping[str, Any]) -> str:
    if context["country"] in COUNTRIES_BY_HAND:
        return "blue"
    if context["plan"] == "pro":
        major, minor, patch = context["version"].split(".")
        if (int(major), int(minor), int(patch)) >= (2, 3, 0):
            return "green"
    if context["email"].endswith("@example.com"):
        return "red"
    bucket = murmur3("rules-0:" + context["targetingKey"], 0, False) * 100_000 >> 32
    if bucket < 10_000:
        return "blue"
    if bucket < 20_000:
        return "green"
    if bucket < 50_000:
        return "red"
    return "grey"


COUNTRIES_BY_HAND = frozenset(COUNTRIES)
