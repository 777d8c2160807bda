"""Flag sets as they come over the wire, for tests."""

from typing import Any

UNIT_KEY = "00112233445566778899aabbccddeeff"


def flag(key: str = "f", **changes: Any) -> dict[str, Any]:
    """Return a boolean flag that is on for everyone, with changes."""
    return {
        "key": key,
        "type": "boolean",
        "version": 7,
        "enabled": True,
        "variants": {"on": True, "off": False},
        "off_variant": "off",
        "rules": [],
        "default_serve": {"variant": "on"},
        "kill": None,
        **changes,
    }


def split(
    *allocation: tuple[object, object], salt: str = "f", bucket_by: str = "targetingKey"
) -> dict[str, Any]:
    pieces = [list(piece) for piece in allocation]
    return {"split": {"bucket_by": bucket_by, "salt": salt, "allocation": pieces}}


def rule(condition: object, serve: object = None, name: str = "r") -> dict[str, Any]:
    return {"id": name, "condition": condition, "serve": serve or {"variant": "on"}}


def targeted(condition: object, key: str = "f", **changes: Any) -> dict[str, Any]:
    """Return a flag that is on where the condition holds and off elsewhere."""
    return flag(key, rules=[rule(condition)], default_serve={"variant": "off"}, **changes)


def attribute(op: str, *values: object, name: str = "a") -> dict[str, Any]:
    return {"attribute": name, "op": op, "values": list(values)}


def flag_set(*flags: dict[str, Any], **segments: object) -> dict[str, Any]:
    return {
        "environment": "production",
        "sequence": 3,
        "unit_key": UNIT_KEY,
        "flags": {each["key"]: each for each in flags},
        "segments": segments,
    }
