"""The compiled flag set, and what applications ask of it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from flagd_sdk.core.bucketing import targeting_unit
from flagd_sdk.core.compiling import broken_flag, compile_flag, error_resolution
from flagd_sdk.core.cycles import describe_cycle, find_cycles
from flagd_sdk.core.model import Flag, Resolution, Resolver, Segment
from flagd_sdk.core.types import ContextMapping, Reason, ResolutionDetails, shown
from flagd_sdk.core.values import own_copy
from flagd_sdk.errors import ErrorCode

Default = TypeVar("Default")

_NO_RESOLVERS: Final[Mapping[str, Resolver]] = {}


class FlagSet:
    """All flags of one environment at one sequence; immutable, shared by threads without a lock.

    Attributes:
        sequence: grows with every change of the environment.
        unit_key: key of the hash under which failing units are reported.
        flags: key → compiled flag, broken ones too.
        faults: key → why that flag can't be evaluated.
        resolvers: key → its function of (context, resolvers, targeting_unit(context)), for callers
            that evaluate many flags for one context; they catch what the context's code raises,
            and go through `resolve` where a key is missing. All are after `be_heard`.
    """

    __slots__ = (
        "_cyclic",
        "_resolvers",
        "_segments",
        "environment",
        "faults",
        "flags",
        "resolvers",
        "sequence",
        "unit_key",
    )

    def __init__(
        self,
        environment: str,
        sequence: int,
        unit_key: bytes,
        flags: Mapping[str, Flag],
        segments: Mapping[str, Segment],
    ) -> None:
        """Take flags as compiled; those whose prerequisites lead back to them become broken."""
        self.environment = environment
        self.sequence = sequence
        self.unit_key = unit_key
        self._segments = segments
        self._cyclic = _cyclic(flags.values())
        self.flags = {**flags, **{key: broken for key, (_, broken) in self._cyclic.items()}}
        self._resolvers = {key: flag.resolve for key, flag in self.flags.items()}
        self.resolvers: Mapping[str, Resolver] = self._resolvers
        self.faults: Mapping[str, str] = {
            key: flag.fault for key, flag in self.flags.items() if flag.fault is not None
        }

    def resolve(self, key: str, context: ContextMapping) -> Resolution:
        """Evaluate a flag for a context. Never raises, whatever key and context are."""
        try:
            resolvers = self._resolvers
            return resolvers[key](context, resolvers, targeting_unit(context))
        except Exception as error:  # the host's edge: a context's values may run any code
            return self._failure(key, context, error)

    def _failure(self, key: object, context: ContextMapping, error: Exception) -> Resolution:
        if type(key) is not str:
            if issubclass(type(key), str):  # compares as it likes: take the text it holds
                return self.resolve(str.__str__(key), context)
            key = shown(key)
        flag = self.flags.get(key)
        if flag is None:
            return error_resolution(key, ErrorCode.FLAG_NOT_FOUND, f"there is no flag {shown(key)}")
        if isinstance(error, RecursionError):
            code, message = ErrorCode.GENERAL, "prerequisites or the caller nested too deep"
        elif not issubclass(type(context), Mapping):
            code = ErrorCode.INVALID_CONTEXT
            message = f"the context is {shown(context)}; expected a mapping"
        else:
            code = ErrorCode.INVALID_CONTEXT
            message = f"reading the context raised {type(error).__name__}"
        return error_resolution(key, code, message, flag.version, flag.type)

    def be_heard(self) -> None:
        """Offer no resolvers any more: somebody wants to be told of each evaluation.

        So those to whom nobody listens are spared the question whether there is somebody.
        """
        self.resolvers = _NO_RESOLVERS

    def with_flag(self, sequence: int, key: str, document: object | None) -> "FlagSet":
        """Return the flag set with one flag put in its place, or removed (the document is None)."""
        flag = None if document is None else compile_flag(key, document, self._segments)
        held = self.flags.get(key)
        if (
            (held is not None and held.prerequisites)
            or key in self._cyclic
            or (flag is not None and flag.prerequisites)
        ):
            flags = {**self.flags, **{key: flag for key, (flag, _) in self._cyclic.items()}}
            _put(flags, key, flag)
            return FlagSet(self.environment, sequence, self.unit_key, flags, self._segments)
        # Nothing can have joined or left a cycle: copy, which is far cheaper than to build anew.
        copy = FlagSet.__new__(FlagSet)
        copy.environment = self.environment
        copy.sequence = sequence
        copy.unit_key = self.unit_key
        copy._segments = self._segments
        copy._cyclic = self._cyclic
        copy.flags = _put(dict(self.flags), key, flag)
        resolve = None if flag is None else flag.resolve
        copy.resolvers = copy._resolvers = _put(dict(self._resolvers), key, resolve)
        copy.faults = _put(dict(self.faults), key, None if flag is None else flag.fault)
        return copy


Entry = TypeVar("Entry")


def _put(entries: dict[str, Entry], key: str, entry: Entry | None) -> dict[str, Entry]:
    if entry is None:
        entries.pop(key, None)
    else:
        entries[key] = entry
    return entries


def _cyclic(flags: Iterable[Flag]) -> dict[str, tuple[Flag, Flag]]:
    """Return the flags in cycles of prerequisites: key → (as compiled, as broken)."""
    asking = {flag.key: flag for flag in flags if flag.prerequisites}
    edges = {key: flag.prerequisites for key, flag in asking.items()}
    cyclic = {}
    for group in find_cycles(edges):
        fault = f"prerequisites in a cycle ({describe_cycle(edges, group)})"
        for key in group:
            flag = asking[key]
            cyclic[key] = flag, broken_flag(key, flag.type, flag.version, fault)
    return cyclic


EMPTY_FLAG_SET: Final = FlagSet("", 0, b"", {}, {})


# --- typed by the default ----------------------------------------------------------------------

_TYPES: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (bool, ("boolean",)),
    (int, ("integer",)),
    (float, ("float", "integer")),
    (str, ("string",)),
    (Mapping, ("object",)),
    (list, ("object",)),
    (tuple, ("object",)),
)


def value_of(resolution: Resolution, default: Default) -> Default:
    """Return the value resolved where it is of the default's type, else the default.

    An integer flag suits a float default, an object flag a mapping or a list, any flag None.
    What comes back is the caller's own, to change at will.
    """
    value: Any = resolution.value
    kind = type(value)
    if kind is not type(default) or kind not in IMMUTABLE:
        value = _fitted(resolution, default)[0]
    return cast("Default", value)


IMMUTABLE: Final = frozenset((bool, int, float, str))


def _fitted(resolution: Resolution, default: Any) -> tuple[Any, str | None]:
    """Return the value for a default, and why it is not the resolved one where it is not."""
    if resolution.reason is Reason.ERROR:
        return default, resolution.error_message
    value = resolution.value
    if default is None:
        return own_copy(value), None
    kind = type(default)
    for base, types in _TYPES:
        if issubclass(kind, base):
            if resolution.type not in types:
                break
            if base is not float:
                return own_copy(value), None
            try:
                return float(value), None  # type: ignore[arg-type]
            except OverflowError:
                break
    message = f"the flag is of type {resolution.type}; the default is {shown(default)}"
    return default, message


def details_of(key: str, resolution: Resolution, default: Default) -> ResolutionDetails[Default]:
    """Return everything about an evaluation, typed by the default as in `value_of`."""
    value, problem = _fitted(resolution, default)
    metadata: dict[str, bool | int | float | str] = {"version": resolution.version}
    if resolution.split is not None:
        metadata["split"] = resolution.split
    if resolution.kill is not None:
        metadata["killed_by"], metadata["kill_reason"] = resolution.kill
    if problem is None:
        return ResolutionDetails(
            key, value, resolution.variant, resolution.reason, None, None, metadata
        )
    is_error = resolution.reason is Reason.ERROR
    code = resolution.error_code if is_error else ErrorCode.TYPE_MISMATCH
    return ResolutionDetails(key, value, None, Reason.ERROR, code, problem, metadata)


def evaluate(
    flag_set: FlagSet, key: str, default: Default, context: ContextMapping
) -> ResolutionDetails[Default]:
    """Evaluate a flag for a context. Never raises: what goes wrong is in the details."""
    return details_of(key, flag_set.resolve(key, context), default)


def all_flags(flag_set: FlagSet, context: ContextMapping) -> dict[str, ResolutionDetails[Any]]:
    """Evaluate every flag; the value is None where one can't be evaluated."""
    return {key: details_of(key, flag_set.resolve(key, context), None) for key in flag_set.flags}
