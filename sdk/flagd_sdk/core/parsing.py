"""A flag set as JSON → `FlagSet`."""

import json

from flagd_sdk.core.compiling import compile_flag
from flagd_sdk.core.conditions import compile_segments
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.types import shown
from flagd_sdk.errors import ParseError

UNIT_KEY_BYTES = 16
# A sequence is a time in Unix milliseconds or shortly behind one; this is in the year 2248. What
# claims to be newer is damaged, and taken over it would stand against every true one.
MAX_SEQUENCE = 2**43


def decode_json(text: str | bytes) -> object:
    """Decode JSON, and nothing that is only nearly JSON.

    Raises:
        ParseError: it is none, holds NaN or an infinity, or a name stands twice in one object.
        RecursionError: it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except ValueError as error:
        raise ParseError("flags: no JSON") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")  # which of the two is meant can't be known
    return members


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def parse_flag_set(document: object) -> FlagSet:
    """Compile a flag set as `json.loads` gives it.

    A flag that can't be understood is kept, broken, and named in `.faults`; it spoils no other.

    Raises:
        ParseError: what holds the flags together can't be read; nothing of it may be used.
    """
    if type(document) is not dict:
        raise ParseError(f"flag set: {shown(document)}; expected an object")
    environment = document.get("environment")
    if type(environment) is not str or not environment:
        raise ParseError(f"environment: {shown(environment)}; expected a string, not empty")
    sequence = read_sequence(document)
    flags = _members(document, "flags")
    segments = compile_segments(_members(document, "segments"))
    return FlagSet(
        environment,
        sequence,
        _unit_key(document.get("unit_key")),
        {key: compile_flag(key, flag, segments) for key, flag in flags.items()},
        segments,
    )


def read_sequence(document: dict[str, object]) -> int:
    """Return the sequence of a flag set or of a flag's change.

    Raises:
        ParseError: it can't be one.
    """
    sequence = document.get("sequence")
    if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
        raise ParseError(f"sequence: {shown(sequence)}; expected an integer from 0 to 2^43")
    return sequence


def _members(document: dict[str, object], name: str) -> dict[str, object]:
    members = document.get(name)
    if type(members) is not dict:
        raise ParseError(f"{name}: {shown(members)}; expected an object")
    for key in members:
        if type(key) is not str:
            raise ParseError(f"{name}: {shown(key)}; expected keys that are strings")
    return members


def _unit_key(text: object) -> bytes:
    if type(text) is str and len(text) == 2 * UNIT_KEY_BYTES and text.isalnum():
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise ParseError(f"unit_key: expected {2 * UNIT_KEY_BYTES} hexadecimal digits")
