"""Every way to spoil a body by one change, made from a good one and its place in the contract."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Steps = tuple[str | int, ...]

UNKNOWN = "surprise"
MANY_OBJECTS = 201
MANY_VALUES = 10_001

# One of each JSON type, and the values at which code breaks. None is valid in many places; the
# contract says where.
WRONG_VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "huge integer": 10**30,
    "huge float": 1e300,
    "empty text": "",
    "text": "some text",
    "odd text": "ünï \U0001f600\n",
    "long text": "x" * 20_000,
    "empty array": [],
    "array": [1],
    "array of null": [None],
    "deep array": [[[[[]]]]],
    "empty object": {},
    "object": {"a": 1},
}


@dataclass(frozen=True)
class Mutation:
    """One change: `what` was done at `at`, and the body that came of it."""

    what: str
    at: Steps
    body: Any

    @property
    def field(self) -> str:
        """The place as an answer should name it."""
        path = ""
        for step in self.at:
            if isinstance(step, int):
                path += f"[{step}]"
            elif step.replace("-", "").replace("_", "").isalnum():
                path += f".{step}" if path else step
            else:
                path += f'["{step}"]'
        return path or "body"

    @property
    def parent(self) -> str:
        return Mutation(self.what, self.at[:-1], None).field


def mutations(body: Any) -> Iterator[Mutation]:
    """Yield each single change of the body: a wrong value, a missing and an unknown field."""
    for at in _places(body):
        for name, value in WRONG_VALUES.items():
            yield Mutation(name, at, _with(body, at, value))
        if at and isinstance(at[-1], str):
            yield Mutation("missing", at, _without(body, at))
        here = _at(body, at)
        if isinstance(here, dict):
            yield Mutation("unknown", (*at, UNKNOWN), _with(body, (*at, UNKNOWN), 1))
        if isinstance(here, list) and here:
            # Past the limit of a list, and yet within the size of a body where it can be.
            count = MANY_OBJECTS if isinstance(here[0], dict) else MANY_VALUES
            yield Mutation("too many", at, _with(body, at, here * count))


def _places(value: Any, at: Steps = ()) -> Iterator[Steps]:
    yield at
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _places(member, (*at, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*at, index))


def _at(body: Any, at: Steps) -> Any:
    for step in at:
        body = body[step]
    return body


def _with(body: Any, at: Steps, value: Any) -> Any:
    if not at:
        return value
    changed = deepcopy(body)
    _at(changed, at[:-1])[at[-1]] = value
    return changed


def _without(body: Any, at: Steps) -> Any:
    changed = deepcopy(body)
    del _at(changed, at[:-1])[at[-1]]
    return changed
