"""Targeting operators: a table from an operator's name to the function that compiles it.

A rule's values are checked when it is compiled and refused with `ParseError`; what stands in the
context is never refused: what an operator can't use does not match, and nothing raises. A list in
the context matches where any of its elements does; any of the rule's values suffices.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from flagd_sdk.core.instants import instant_key
from flagd_sdk.core.model import Condition, Peers
from flagd_sdk.core.semver import version_key
from flagd_sdk.core.types import ContextMapping, shown
from flagd_sdk.errors import ParseError

# A pattern of 17 characters, `(\\pL|\\pN){1,300}`, takes RE2 0.5 s and 30 MB to read unless told.
_MAX_PATTERN_BYTES: Final = 1 << 20

Values: TypeAlias = Sequence[object]
_Test: TypeAlias = Callable[[Any], bool]


def compile_operator(attribute: str, op: object, values: object) -> Condition:
    """Make the function that tests an attribute.

    Raises:
        ParseError: there is no such operator, or it can't use the values.
    """
    factory = OPERATORS.get(op) if type(op) is str else None
    if factory is None:
        raise ParseError(f"op: unknown operator {shown(op)}")
    if type(values) is not list:
        raise ParseError(f"values: {shown(values)}; expected a list")
    return factory(attribute, values)


def elements(value: object) -> Iterable[object]:
    """Return what an attribute offers to match: its elements where it is a list, else itself.

    Subclasses (a StrEnum, say) are taken as the plain value they hold, so that only code of the
    interpreter's own types runs when they are compared.
    """
    kind = type(value)
    for sequence in (list, tuple, set, frozenset):
        if issubclass(kind, sequence):
            return map(_plain, sequence.__iter__(value))  # type: ignore[arg-type]
    return (_plain(value),)


def _plain(value: object) -> object:
    kind = type(value)
    if kind is bool:
        return value
    for scalar, convert in _PLAIN:
        if issubclass(kind, scalar):
            return convert(value)
    return value


_PLAIN: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


# --- conditions on one kind of value -----------------------------------------------------------


def _on_strings(attribute: str, test: _Test) -> Condition:
    def holds(context: ContextMapping, _peers: Peers) -> bool:
        value = context.get(attribute)
        if type(value) is str:
            return test(value)
        return any(type(element) is str and test(element) for element in elements(value))

    return holds


def _on_numbers(attribute: str, test: _Test) -> Condition:
    def holds(context: ContextMapping, _peers: Peers) -> bool:
        value = context.get(attribute)
        if type(value) is int:
            return test(value)
        return any(_is_number(element) and test(element) for element in elements(value))

    return holds


def _on_versions(attribute: str, test: _Test) -> Condition:
    def holds(context: ContextMapping, _peers: Peers) -> bool:
        value = context.get(attribute)
        if type(value) is str:
            key = version_key(value)
            return key is not None and test(key)
        keys = map(_version_key_of, elements(value))
        return any(key is not None and test(key) for key in keys)

    return holds


def _on_instants(attribute: str, test: _Test) -> Condition:
    def holds(context: ContextMapping, _peers: Peers) -> bool:
        keys = map(instant_key, elements(context.get(attribute)))
        return any(key is not None and test(key) for key in keys)

    return holds


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


# --- the rule's values -------------------------------------------------------------------------


def _strings(values: Values) -> Sequence[str]:
    return [_one(value, type(value) is str, "a string") for value in values]


def _numbers(values: Values) -> list[int | float]:
    return [_one(value, _is_number(value), "a finite number") for value in values]


def _one(value: Any, is_fit: bool, expected: str) -> Any:
    if not is_fit:
        raise ParseError(f"values: {shown(value)}; expected {expected}")
    return value


def _never(_context: ContextMapping, _peers: Peers) -> bool:
    return False


# --- operators ---------------------------------------------------------------------------------


def _in(attribute: str, values: Values) -> Condition:
    """Strict equality by JSON type: a boolean is no number, and 1 equals 1.0."""
    strings = frozenset([value for value in values if type(value) is str])
    others = [value for value in values if type(value) is not str]
    if not others:
        return _among_strings(attribute, strings)
    for value in others:
        is_fit = type(value) is bool or _is_number(value)
        _one(value, is_fit, "a string, a finite number or a boolean")
    booleans = frozenset(value for value in others if type(value) is bool)
    numbers = frozenset(value for value in others if type(value) is not bool)

    def is_among(element: object) -> bool:
        kind = type(element)
        if kind is str:
            return element in strings
        if kind is bool:
            return element in booleans
        return (kind is int or kind is float) and element in numbers

    def holds(context: ContextMapping, _peers: Peers) -> bool:
        return any(map(is_among, elements(context.get(attribute))))

    return holds


# The three most frequent have a function of their own: it saves a call in every evaluation.


def _among_strings(attribute: str, strings: frozenset[object]) -> Condition:
    def holds(context: ContextMapping, _peers: Peers) -> bool:
        value = context.get(attribute)
        if type(value) is str:
            return value in strings
        return any(type(element) is str and element in strings for element in elements(value))

    return holds


def _starts_with(attribute: str, values: Values) -> Condition:
    prefixes = tuple(_strings(values))

    def holds(context: ContextMapping, _peers: Peers) -> bool:
        value = context.get(attribute)
        if type(value) is str:
            return value.startswith(prefixes)
        return any(type(each) is str and each.startswith(prefixes) for each in elements(value))

    return holds


def _ends_with(attribute: str, values: Values) -> Condition:
    suffixes = tuple(_strings(values))

    def holds(context: ContextMapping, _peers: Peers) -> bool:
        value = context.get(attribute)
        if type(value) is str:
            return value.endswith(suffixes)
        return any(type(each) is str and each.endswith(suffixes) for each in elements(value))

    return holds


def _contains(attribute: str, values: Values) -> Condition:
    parts = _strings(values)
    return _on_strings(attribute, lambda text: any(part in text for part in parts))


def _matches(attribute: str, values: Values) -> Condition:
    """Search with RE2, which is linear in the text: no pattern can hang an application."""
    try:
        # Only here, so that applications without such flags neither install nor load it.
        import re2
    except ImportError:
        raise ParseError(
            "op: 'matches' needs RE2; install it with: pip install 'flagd-release[regex]'"
        ) from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_PATTERN_BYTES
    searches = []
    for pattern in _strings(values):
        try:
            searches.append(re2.compile(pattern, options).search)
        except re2.error as error:
            why = bytes(error.args[0]).decode("ascii", "backslashreplace")
            raise ParseError(f"values: {shown(pattern)} is no RE2 pattern ({why})") from None
        except UnicodeEncodeError:
            raise ParseError(
                f"values: {shown(pattern)}; expected text without surrogates"
            ) from None

    def is_match(text: str) -> bool:
        try:
            return any(search(text) is not None for search in searches)
        except UnicodeEncodeError:  # a lone surrogate: RE2 reads UTF-8
            return False

    return _on_strings(attribute, is_match)


def _ordered(
    on: Callable[[str, _Test], Condition], read: Callable[[Values], list[Any]]
) -> dict[str, Callable[[str, Values], Condition]]:
    """Make eq, lt, lte, gt and gte. Any value suffices, so only the extreme one is compared."""

    def eq(attribute: str, values: Values) -> Condition:
        return on(attribute, frozenset(read(values)).__contains__)

    def lt(attribute: str, values: Values) -> Condition:
        bound = max(read(values), default=None)
        return _never if bound is None else on(attribute, lambda key: key < bound)

    def lte(attribute: str, values: Values) -> Condition:
        bound = max(read(values), default=None)
        return _never if bound is None else on(attribute, lambda key: key <= bound)

    def gt(attribute: str, values: Values) -> Condition:
        bound = min(read(values), default=None)
        return _never if bound is None else on(attribute, lambda key: key > bound)

    def gte(attribute: str, values: Values) -> Condition:
        bound = min(read(values), default=None)
        return _never if bound is None else on(attribute, lambda key: key >= bound)

    return {"eq": eq, "lt": lt, "lte": lte, "gt": gt, "gte": gte}


def _version_key_of(value: object) -> object:
    return version_key(value) if type(value) is str else None


def _versions(values: Values) -> list[Any]:
    return _keys(values, _version_key_of, "a semantic version such as '1.4.0-rc.1'")


def _instants(values: Values) -> list[Any]:
    return _keys(values, instant_key, "an RFC 3339 time with its offset")


def _keys(values: Values, key_of: Callable[[object], Any], expected: str) -> list[Any]:
    keys = []
    for value in _strings(values):
        key = key_of(value)
        keys.append(_one(value if key is None else key, key is not None, expected))
    return keys


def _exists(attribute: str, values: Values) -> Condition:
    """`[]` and `[true]` ask for presence, `[false]` for absence; null counts as absent."""
    for value in values:
        _one(value, type(value) is bool, "a boolean")
    wanted = frozenset(values) or frozenset((True,))

    def holds(context: ContextMapping, _peers: Peers) -> bool:
        return (context.get(attribute) is not None) in wanted

    return holds


_NUMBER_OPERATORS = _ordered(_on_numbers, _numbers)
_VERSION_OPERATORS = _ordered(_on_versions, _versions)
_INSTANT_OPERATORS = _ordered(_on_instants, _instants)

OPERATORS: Final[Mapping[str, Callable[[str, Values], Condition]]] = {
    "in": _in,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "contains": _contains,
    "matches": _matches,
    **_NUMBER_OPERATORS,
    **{f"semver_{name}": factory for name, factory in _VERSION_OPERATORS.items()},
    "before": _INSTANT_OPERATORS["lt"],
    "after": _INSTANT_OPERATORS["gt"],
    "exists": _exists,
}
