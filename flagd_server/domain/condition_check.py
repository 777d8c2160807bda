"""Walks conditions, collecting every fault and whatever they refer to."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from flagd_sdk.core.operators import compile_operator
from flagd_sdk.core.types import shown
from flagd_sdk.errors import ParseError
from flagd_server.domain.faults import Fault

# Levels of one condition, its outermost included; what a person can still read.
MAX_DEPTH: Final = 10
MAX_VALUES: Final = 1000
MAX_BRANCHES: Final = 100
# Of one configuration or segment: each may take every process that evaluates it a MiB.
MAX_PATTERNS: Final = 100

_KINDS: Final = ("attribute", "all", "any", "not", "segment", "flag")


class Prerequisite(NamedTuple):
    """A flag that a condition asks for, with the paths to name in a fault of it."""

    path: str
    variants_path: str
    flag: str
    variants: list[str]


class ConditionCheck:
    """Collects what is wrong with conditions and what they refer to.

    Attributes:
        faults: in the order they were found.
        segments: (path, key) of each use of a segment that exists.
        prerequisites: flags asked for by the conditions themselves.
    """

    def __init__(self, segments: Mapping[str, Mapping[str, Any]]) -> None:
        self.faults: list[Fault] = []
        self.segments: list[tuple[str, str]] = []
        self.prerequisites: list[Prerequisite] = []
        self._known_segments = segments
        self._patterns = 0

    def fault(self, field: str, message: str) -> None:
        self.faults.append(Fault(field, message))

    def condition(self, path: str, document: object, depth: int = 1) -> None:
        """Check a condition that stands `depth` levels deep at the path."""
        if depth > MAX_DEPTH:
            self.fault(path, f"more than {MAX_DEPTH} levels of conditions")
            return
        kinds = [kind for kind in _KINDS if kind in document] if type(document) is dict else []
        if type(document) is not dict or len(kinds) != 1:
            self.fault(path, f"{shown(document)}; expected an object with one of {_list(_KINDS)}")
            return
        (kind,) = kinds
        if kind == "attribute":
            self._attribute(path, document)
        elif kind == "segment":
            self._segment(f"{path}.segment", document["segment"])
        elif kind == "flag":
            self._flag(path, document)
        elif kind == "not":
            self.condition(f"{path}.not", document["not"], depth + 1)
        else:
            self._branches(f"{path}.{kind}", document[kind], depth)

    def _branches(self, path: str, children: object, depth: int) -> None:
        if type(children) is not list or len(children) > MAX_BRANCHES:
            self.fault(path, f"{shown(children)}; expected a list of at most {MAX_BRANCHES}")
            return
        for index, child in enumerate(children):
            self.condition(f"{path}[{index}]", child, depth + 1)

    def _attribute(self, path: str, document: Mapping[str, Any]) -> None:
        attribute, op = document["attribute"], document.get("op")
        if type(attribute) is not str or not attribute:
            self.fault(f"{path}.attribute", f"{shown(attribute)}; expected an attribute's name")
        try:
            compile_operator("attribute", op, [])
        except ParseError as error:
            self.fault(f"{path}.op", str(error).partition(": ")[2])
            return
        values = document.get("values")
        if type(values) is not list or len(values) > MAX_VALUES:
            message = f"{shown(values)}; expected a list of at most {MAX_VALUES}"
            self.fault(f"{path}.values", message)
            return
        if op == "matches":
            self._patterns += len(values)
            if self._patterns > MAX_PATTERNS:
                self.fault(f"{path}.values", f"more than {MAX_PATTERNS} patterns in all")
                return
        for index, value in enumerate(values):
            try:
                compile_operator("attribute", op, [value])
            except ParseError as error:
                self.fault(f"{path}.values[{index}]", str(error).partition(": ")[2])

    def _segment(self, path: str, key: object) -> None:
        if type(key) is str and key in self._known_segments:
            self.segments.append((path, key))
        else:
            self.fault(path, f"there is no segment {shown(key)}")

    def _flag(self, path: str, document: Mapping[str, Any]) -> None:
        flag, variants = document["flag"], document.get("variants")
        if type(flag) is not str:
            self.fault(f"{path}.flag", f"{shown(flag)}; expected a flag's key")
        elif type(variants) is not list or not variants or set(map(type, variants)) != {str}:
            self.fault(f"{path}.variants", f"{shown(variants)}; expected a list of variants")
        else:
            self.prerequisites.append(
                Prerequisite(f"{path}.flag", f"{path}.variants", flag, variants)
            )


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))
