"""Values of variants: reading them by the flag's type, and handing them on without sharing."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from flagd_sdk.core.types import JsonValue, shown

# As deep as json.loads and a copy can go without coming near the interpreter's recursion limit.
MAX_VALUE_HEIGHT: Final = 64


def own_copy(value: JsonValue) -> JsonValue:
    """Return a value that its receiver may change: objects and lists are copied, all the way."""
    if type(value) is dict:
        return {name: own_copy(member) for name, member in value.items()}
    if type(value) is list:
        return [own_copy(member) for member in value]
    return value


def _boolean(value: object) -> JsonValue:
    if type(value) is not bool:
        raise ValueError(f"{shown(value)}; expected a boolean")
    return value


def _string(value: object) -> JsonValue:
    if type(value) is not str:
        raise ValueError(f"{shown(value)}; expected a string")
    return value


def _integer(value: object) -> JsonValue:
    if type(value) is not int:
        raise ValueError(f"{shown(value)}; expected an integer")
    return value


def _float(value: object) -> JsonValue:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            pass
    raise ValueError(f"{shown(value)}; expected a finite number")


def _object(value: object) -> JsonValue:
    if type(value) is not dict and type(value) is not list:
        raise ValueError(f"{shown(value)}; expected an object or a list")
    return _json(value, MAX_VALUE_HEIGHT)


def _json(value: object, height: int) -> JsonValue:
    kind = type(value)
    if kind is dict or kind is list:
        if height == 0:
            raise ValueError(f"nested more than {MAX_VALUE_HEIGHT} levels deep")
        if type(value) is list:
            return [_json(member, height - 1) for member in value]
        members: dict[object, object] = value  # type: ignore[assignment]
        copy = {}
        for name, member in members.items():
            if type(name) is not str:
                raise ValueError(f"has the member {shown(name)}; expected names that are strings")
            copy[name] = _json(member, height - 1)
        return copy
    if value is None or kind is bool or kind is str or kind is int:
        return value  # type: ignore[return-value]
    if type(value) is float and math.isfinite(value):
        return value
    raise ValueError(f"holds {shown(value)}; expected JSON")


# A flag's type → the function that reads a value of it, which raises ValueError with what is wrong.
READERS: Final[Mapping[str, Callable[[object], JsonValue]]] = {
    "boolean": _boolean,
    "string": _string,
    "integer": _integer,
    "float": _float,
    "object": _object,
}
