"""One flag or segment as JSON → functions, in a single pass.

Unknown fields are left alone, so that an older SDK reads a newer server. An unknown operator,
condition or serve is a fault of its flag: guessing could show a feature to the wrong users. A
killed or disabled flag needs none of its rules, so a fault in them can't keep it from going off.
"""

from collections.abc import Mapping
from typing import Any, Final

from flagd_sdk.core.bucketing import BUCKETS, TARGETING_KEY, compile_split, hash_threshold
from flagd_sdk.core.conditions import Gathered, compile_condition, located
from flagd_sdk.core.model import (
    Condition,
    Flag,
    Peers,
    Remembered,
    Resolution,
    Resolver,
    Segment,
    always,
)
from flagd_sdk.core.types import ContextMapping, JsonValue, Reason, shown
from flagd_sdk.core.values import READERS
from flagd_sdk.errors import ErrorCode, ParseError

_NONE: Final[frozenset[str]] = frozenset()


def compile_flag(key: str, document: object, segments: Mapping[str, Segment]) -> Flag:
    """Compile a flag of the wire; one that can't be understood comes back with its `fault`."""
    try:
        flag = _compile_flag(key, document, segments)
        flag.document = document
        return flag
    except ParseError as error:
        known: dict[str, Any] = document if type(document) is dict else {}
        version, kind = known.get("version"), known.get("type")
        return broken_flag(
            key,
            kind if type(kind) is str else "",
            version if type(version) is int else 0,
            str(error).removeprefix(": "),
        )


def broken_flag(key: str, kind: str, version: int, fault: str) -> Flag:
    """Return a flag that resolves to ERROR for everyone, with the fault as its message."""
    resolution = error_resolution(key, ErrorCode.PARSE_ERROR, fault, version, kind)
    return Flag(key, kind, version, False, False, {}, _NONE, always(resolution), fault)


def error_resolution(
    key: str, code: ErrorCode, message: str, version: int = 0, kind: str = ""
) -> Resolution:
    """Return the resolution of a flag that can't be evaluated."""
    return Resolution(key, None, None, Reason.ERROR, None, None, version, kind, code, message)


def _compile_flag(key: str, document: object, segments: Mapping[str, Segment]) -> Flag:
    if type(document) is not dict:
        raise ParseError(f": {shown(document)}; expected an object")
    own_key = document.get("key", key)
    if type(own_key) is not str or own_key != key:
        raise ParseError(f"key: {shown(own_key)}; expected {shown(key)}")
    version = document.get("version")
    if type(version) is not int or version < 0:
        raise ParseError(f"version: {shown(version)}; expected an integer from 0")
    enabled = document.get("enabled")
    if type(enabled) is not bool:
        raise ParseError(f"enabled: {shown(enabled)}; expected a boolean")
    kind = document.get("type")
    if type(kind) is not str or kind not in READERS:
        raise ParseError(f"type: {shown(kind)}; expected one of {', '.join(READERS)}")
    values = _values(document.get("variants"), kind)
    off_variant = document.get("off_variant")
    if type(off_variant) is not str or off_variant not in values:
        raise ParseError(f"off_variant: {shown(off_variant)}; expected one of the variants")
    killed = document.get("kill") is not None
    if killed or not enabled:
        resolution = Resolution(
            key,
            values[off_variant],
            off_variant,
            Reason.DISABLED,
            None,
            None,
            version,
            kind,
            kill=_kill(document.get("kill")),
        )
        return Flag(key, kind, version, enabled, killed, values, _NONE, always(resolution))
    serving = _Serving(key, kind, version, values, off_variant)
    served = serving.serve(document.get("default_serve"), "default", Reason.STATIC)
    default = always(served) if isinstance(served, Resolution) else served
    rules = document.get("rules")
    if rules is None or (type(rules) is list and not rules):
        return Flag(key, kind, version, enabled, killed, values, _NONE, default)
    gathered = Gathered(segments.get)
    resolve = _with_rules(serving.rules(rules, gathered), default)
    if gathered.prerequisites:
        resolve = _remembering(resolve)
    prerequisites = frozenset(gathered.prerequisites)
    return Flag(key, kind, version, enabled, killed, values, prerequisites, resolve)


def _kill(kill: object) -> tuple[str, str] | None:
    if type(kill) is not dict:
        return None
    source, reason = kill.get("source"), kill.get("reason")
    return (
        source if type(source) is str else "",
        reason if type(reason) is str else "",
    )


def _values(variants: object, kind: str) -> dict[str, JsonValue]:
    if type(variants) is not dict or not variants:
        raise ParseError(f"variants: {shown(variants)}; expected an object that is not empty")
    read = READERS[kind]
    values = {}
    for name, value in variants.items():
        if type(name) is not str:
            raise ParseError(f"variants: {shown(name)}; expected names that are strings")
        try:
            values[name] = read(value)
        except ValueError as error:
            raise ParseError(f"variants.{name}: {error}") from None
    return values


_Outcome = Resolution | Resolver


def _with_rules(rules: list[tuple[Condition, _Outcome]], default: Resolver) -> Resolver:
    """Serve the first rule that holds, else the default."""
    chain = tuple(rules)

    def resolve(context: ContextMapping, peers: Peers, unit: str | None) -> Resolution:
        for holds, served in chain:
            if holds(context, peers):
                if isinstance(served, Resolution):
                    return served
                return served(context, peers, unit)
        return default(context, peers, unit)

    return resolve


def _remembering(resolve: Resolver) -> Resolver:
    """Evaluate each prerequisite at most once, however often the flags above it ask.

    Without it, flags that ask twice for flags that ask twice take time exponential in their depth.
    """

    def resolve_once(context: ContextMapping, peers: Peers, unit: str | None) -> Resolution:
        if type(peers) is not Remembered:
            peers = Remembered(context, peers, unit)
        return resolve(context, peers, unit)

    return resolve_once


class _Serving:
    """What the serves of one flag have in common."""

    __slots__ = ("key", "kind", "off_variant", "values", "version")

    def __init__(
        self, key: str, kind: str, version: int, values: dict[str, JsonValue], off_variant: str
    ) -> None:
        self.key = key
        self.kind = kind
        self.version = version
        self.values = values
        self.off_variant = off_variant

    def rules(self, rules: object, gathered: Gathered) -> list[tuple[Condition, _Outcome]]:
        if type(rules) is not list:
            raise ParseError(f"rules: {shown(rules)}; expected a list")
        compiled = []
        for index, rule in enumerate(rules):
            try:
                compiled.append(self._rule(rule, gathered))
            except ParseError as error:
                raise located(f"rules[{index}]", error) from None
        return compiled

    def _rule(self, rule: object, gathered: Gathered) -> tuple[Condition, _Outcome]:
        if type(rule) is not dict:
            raise ParseError(f": {shown(rule)}; expected an object")
        name = rule.get("id")
        if type(name) is not str or not name:
            raise ParseError(f"id: {shown(name)}; expected a string that is not empty")
        try:
            holds = compile_condition(rule.get("condition"), gathered, 1)
        except ParseError as error:
            raise located("condition", error) from None
        return holds, self.serve(rule.get("serve"), name, Reason.TARGETING_MATCH)

    def serve(self, serve: object, split: str, reason: Reason) -> _Outcome:
        """Compile what a rule or the default serves; `split` names it in telemetry."""
        try:
            if type(serve) is not dict:
                raise ParseError(f": {shown(serve)}; expected an object")
            if "variant" in serve:
                return self._resolution(serve["variant"], reason, None, None)
            if "split" in serve:
                return self._split(serve["split"], split)
            raise ParseError(": unknown kind; expected 'variant' or 'split'")
        except ParseError as error:
            raise located("default_serve" if split == "default" else "serve", error) from None

    def _resolution(
        self, variant: object, reason: Reason, split: str | None, bucket_by: str | None
    ) -> Resolution:
        if type(variant) is not str or variant not in self.values:
            raise ParseError(f"variant: {shown(variant)}; expected one of the variants")
        return Resolution(
            self.key,
            self.values[variant],
            variant,
            reason,
            split,
            bucket_by,
            self.version,
            self.kind,
        )

    def _split(self, document: object, split: str) -> Resolver:
        if type(document) is not dict:
            raise ParseError(f"split: {shown(document)}; expected an object")
        bucket_by = document.get("bucket_by", TARGETING_KEY)
        if type(bucket_by) is not str or not bucket_by:
            raise ParseError(f"split.bucket_by: {shown(bucket_by)}; expected an attribute's name")
        salt = document.get("salt", self.key)
        if type(salt) is not str:
            raise ParseError(f"split.salt: {shown(salt)}; expected a string")
        if not salt.isascii():
            _require_utf8(salt)
        try:
            thresholds, served = self._outcomes(document.get("allocation"), split, bucket_by)
        except ParseError as error:
            raise located("split", error) from None
        return compile_split(bucket_by, salt, thresholds, served, self._unplaced(bucket_by))

    def _unplaced(self, bucket_by: str) -> Resolution:
        return Resolution(
            self.key,
            self.values[self.off_variant],
            self.off_variant,
            Reason.DEFAULT,
            None,
            None,
            self.version,
            self.kind,
            ErrorCode.TARGETING_KEY_MISSING,
            f"the context has no {shown(bucket_by)} to be placed by",
        )

    def _outcomes(
        self, allocation: object, split: str, bucket_by: str
    ) -> tuple[list[int], list[Resolution]]:
        if type(allocation) is not list or not allocation:
            raise ParseError(f"allocation: {shown(allocation)}; expected a list that is not empty")
        made: dict[object, Resolution] = {}
        thresholds = []
        served = []
        last = 0
        for entry in allocation:
            if type(entry) is not list or len(entry) != 2:
                raise ParseError(f"allocation: {shown(entry)}; expected [upper bound, variant]")
            upto, variant = entry
            if type(upto) is not int or not last < upto <= BUCKETS:
                raise ParseError(
                    f"allocation: {shown(upto)} after {last}; expected bounds rising to {BUCKETS}"
                )
            last = upto
            if type(variant) is not str:
                raise ParseError(f"allocation: {shown(variant)}; expected one of the variants")
            resolution = made.get(variant)
            if resolution is None:
                resolution = self._resolution(variant, Reason.SPLIT, split, bucket_by)
                made[variant] = resolution
            served.append(resolution)
            if upto != BUCKETS:
                thresholds.append(hash_threshold(upto))
        if last != BUCKETS:
            raise ParseError(f"allocation: ends at {last}; expected {BUCKETS}")
        return thresholds, served


def _require_utf8(salt: str) -> None:
    try:
        salt.encode()
    except UnicodeEncodeError:
        raise ParseError(f"split.salt: {shown(salt)}; expected text without surrogates") from None
