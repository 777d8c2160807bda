"""What files say of flags and segments, each field held to its shape. Pure.

    flag: new-checkout
    type: boolean
    variants: {on: true, off: false}
    environments:
      production:
        enabled: true
        default_serve: {split: {weights: {on: 5000, off: 95000}}}
    ---
    segment: beta
    environments:
      production:
        condition: {attribute: plan, op: in, values: [beta]}

The words are those of the API. What a file does not say is left as it is.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from flagd_sdk.core.instants import instant_key
from flagd_sdk.core.values import READERS
from flagd_sdk.ctl.exits import Problem
from flagd_sdk.ctl.yaml_files import Document

Json = dict[str, Any]

_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class Manifest(NamedTuple):
    """One flag or segment of a file, its shape as it should be.

    Attributes:
        key: of the flag or segment.
        value: its fields as they were written, but for `flag` or `segment` and `environments`.
        environments: environment → the fields that were written for it.
    """

    key: str
    document: Document
    value: Json
    environments: Mapping[str, Json]

    def problem(self, path: str, message: str) -> Problem:
        return Problem(self.document.place(path), message)


class Manifests(NamedTuple):
    """All that the files say, by key."""

    flags: Mapping[str, Manifest]
    segments: Mapping[str, Manifest]


_Check = Callable[[Any], str]
"""Returns what was expected instead of a value, or "" where it is sound."""


def _is(kind: type, words: str) -> _Check:
    return lambda value: "" if type(value) is kind else f"expected {words}"


def _one_of(*words: str) -> _Check:
    return lambda value: "" if value in words else f"expected one of {', '.join(words)}"


def _texts(value: Any) -> str:
    is_sound = type(value) is list and all(type(each) is str for each in value)
    return "" if is_sound else "expected a list of texts"


def _time(value: Any) -> str:
    is_sound = value is None or instant_key(value) is not None
    return "" if is_sound else "expected a time with an offset (RFC 3339), or null"


def _number(least: float, most: float) -> _Check:
    return lambda value: (
        ""
        if type(value) in (int, float) and least <= value <= most
        else f"expected a number from {least:g} to {most:g}"
    )


_text, _object, _flag = _is(str, "a text"), _is(dict, "a mapping"), _is(bool, "true or false")

_FLAG_FIELDS: Final[Mapping[str, _Check]] = {
    "type": _one_of(*READERS),
    "variants": _object,
    "description": _text,
    "owner": _text,
    "tags": _texts,
    "lifetime": _one_of("temporary", "permanent"),
    "expires_at": _time,
    "archived": _flag,
}
_CONFIGURATION_FIELDS: Final[Mapping[str, _Check]] = {
    "enabled": _flag,
    "off_variant": _text,
    "rules": _is(list, "a list of rules"),
    "default_serve": _object,
    "guard": _object,
}
# Fields that are not here are left to the server, which may be a newer one.
_GUARD_FIELDS: Final[Mapping[str, _Check]] = {
    "mode": _one_of("enforce", "observe", "off"),
    "alpha": _number(1e-300, 0.1),
    "margin": _number(1, 10),
    "guards": _texts,
    "slow": _texts,
    "on_breach": _one_of("kill", "hold", "rollback"),
    "on_burn": _one_of("hold", "kill"),
}
_SEGMENT_FIELDS: Final[Mapping[str, _Check]] = {"condition": _object, "description": _text}
_NO_KILLS: Final = "a kill is not kept in files; see flagctl kill and flagctl restore"


def read_manifests(documents: Iterable[Document], problems: list[Problem]) -> Manifests:
    """Return what the documents say; what is wrong with their shape is added to `problems`."""
    flags: dict[str, Manifest] = {}
    segments: dict[str, Manifest] = {}
    for document in documents:
        value = document.value
        kinds = {"flag", "segment"} & value.keys() if isinstance(value, dict) else set()
        if len(kinds) != 1:
            message = "expected a mapping with either 'flag' or 'segment', its key"
            problems.append(Problem(document.place(""), message))
            continue
        (kind,) = kinds
        key = value[kind]
        if type(key) is not str or not _KEY.fullmatch(key):
            message = f"{key!r}; expected letters, digits, '.', '_' and '-'"
            problems.append(Problem(document.place(kind), message))
            continue
        found = flags if kind == "flag" else segments
        if key in found:
            message = f"{kind} {key} stands in {found[key].document.place(kind)} as well"
            problems.append(Problem(document.place(kind), message))
            continue
        found[key] = _manifest(kind, key, document, problems)
    return Manifests(flags, segments)


def _manifest(kind: str, key: str, document: Document, problems: list[Problem]) -> Manifest:
    value = {name: each for name, each in document.value.items() if name != kind}
    environments = value.pop("environments", {})
    manifest = Manifest(key, document, value, {})
    _check_fields(manifest, "", value, _FLAG_FIELDS if kind == "flag" else {}, problems)
    if type(environments) is not dict:
        problems.append(manifest.problem("environments", "expected a mapping"))
        environments = {}
    fields = _CONFIGURATION_FIELDS if kind == "flag" else _SEGMENT_FIELDS
    kept: dict[str, Json] = {}
    for name, part in environments.items():
        path = f"environments.{name}"
        if type(part) is not dict:
            problems.append(manifest.problem(path, "expected a mapping"))
            continue
        kept[name] = dict(part)
        _check_fields(manifest, path, kept[name], fields, problems)
        for field, value in kept[name].get("guard", {}).items():
            expected = _GUARD_FIELDS.get(field, lambda _: "")(value)
            if expected:
                problems.append(manifest.problem(f"{path}.guard.{field}", expected))
        if kind == "segment" and "condition" not in document.value["environments"][name]:
            problems.append(manifest.problem(path, "expected a condition"))
    return manifest._replace(environments=kept)


def _check_fields(
    manifest: Manifest,
    path: str,
    value: Json,
    fields: Mapping[str, _Check],
    problems: list[Problem],
) -> None:
    for name in list(value):
        place = f"{path}.{name}" if path else name
        check = fields.get(name)
        if check is None:
            known = ", ".join([*fields, *([] if path else ["environments"])])
            expected = _NO_KILLS if name == "kill" else f"no field; expected one of {known}"
        else:
            expected = check(value[name])
        if expected:
            problems.append(manifest.problem(place, expected))
            del value[name]
