"""Semantic versions as keys that compare by item 11 of semver.org 2.0.0.

No digit is ever converted to an integer: without leading zeros, numbers compare as (length, text),
so a version of any length is cheap and none can raise.
"""

import re
from functools import lru_cache
from typing import Final, TypeAlias

_NUMBER = r"(?:0|[1-9][0-9]*+)"
_LABEL = rf"(?:{_NUMBER}(?![0-9A-Za-z-])|[0-9]*+[A-Za-z-][0-9A-Za-z-]*+)"
# Possessive, so that it takes time linear in a text of any length. Compiled when first used (`re`
# keeps it): compiling is most of what importing this would take.
_VERSION = (
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_LABEL}(?:\.{_LABEL})*+))?"
    r"(?:\+[0-9A-Za-z-]++(?:\.[0-9A-Za-z-]++)*+)?"
)

# (length, text) of major, minor and patch, then the pre-release: () sorts before everything, so a
# release, which is newer than its pre-releases, gets a key of its own.
VersionKey: TypeAlias = tuple[int, str, int, str, int, str, tuple[tuple[int, int, str], ...]]
_RELEASE = ((2, 0, ""),)
_MAX_REMEMBERED_CHARACTERS: Final = 64


def version_key(text: str) -> VersionKey | None:
    """Return what to compare a version by, or None where the text is no semantic version.

    Build metadata is left out: it has no part in precedence (item 10).
    """
    # The users of an application have a handful of versions between them.
    return _remembered(text) if len(text) <= _MAX_REMEMBERED_CHARACTERS else _version_key(text)


def _version_key(text: str) -> VersionKey | None:
    parts = text.split(".")
    if len(parts) == 3 and text.isascii():
        # Plain releases are nearly all that is asked about, and this is three times as fast.
        major, minor, patch = parts
        if (
            major.isdigit()
            and minor.isdigit()
            and patch.isdigit()
            # Digits without a leading zero: all that sort from "1" on, and "0" itself.
            and (major >= "1" or major == "0")
            and (minor >= "1" or minor == "0")
            and (patch >= "1" or patch == "0")
        ):
            return len(major), major, len(minor), minor, len(patch), patch, _RELEASE
    match = re.fullmatch(_VERSION, text)
    if match is None:
        return None
    major, minor, patch, labels = match.groups()
    precedence = _RELEASE if labels is None else tuple(map(_label_key, labels.split(".")))
    return len(major), major, len(minor), minor, len(patch), patch, precedence


_remembered = lru_cache(maxsize=1_024)(_version_key)


def _label_key(label: str) -> tuple[int, int, str]:
    """Numeric identifiers sort by value and before the others, those by ASCII (11.4.1 to 11.4.3).

    A tuple that is a prefix of another sorts first, as 11.4.4 wants.
    """
    return (0, len(label), label) if label.isdigit() else (1, 0, label)
