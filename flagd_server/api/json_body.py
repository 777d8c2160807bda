"""Bytes of a request body → a JSON document that nothing behind it has to be afraid of.

The rule: what leaves here is UTF-8 text without lone surrogates or NUL, in containers nested at
most `MAX_DEPTH` deep, with at most `MAX_NAMES` names in all, finite numbers of bounded length and
no name twice in one object (after RFC 7493, I-JSON). Everything else is `UnreadableBodyError`.
"""

import json
import math
import re
from typing import Any, NoReturn

MAX_BODY_BYTES = 1 << 20
MAX_DEPTH = 64
# The fullest summary of telemetry has half as many; what is behind looks at each.
MAX_NAMES = 100_000

# Longer numbers are refused before they are converted: the conversion is quadratic.
_MAX_NUMBER_CHARS = 100

# The only ways in which JSON text that is valid UTF-8 can spell a surrogate or NUL. Escaped
# pairs of surrogates are legal, so a hit only says that the decoded strings must be looked at.
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


class UnreadableBodyError(ValueError):
    """The body is no JSON document that this server accepts; the message says why."""


def parse_json(body: bytes) -> Any:
    """Return the document in `body`.

    Raises:
        UnreadableBodyError: it breaks the rule of this module.
    """
    if not body.strip():
        raise UnreadableBodyError("the body is empty; expected a JSON object")
    try:
        decoder = _WARY_DECODER if _LONG_NUMBER in body.translate(_DIGITS_ALIKE) else _DECODER
        document = decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UnreadableBodyError(f"not JSON at {where}: {error.msg}") from None
    except RecursionError:
        raise UnreadableBodyError(f"nested deeper than {MAX_DEPTH} levels") from None
    # As many opening brackets as levels allowed cannot nest too deep, and each name has a colon;
    # most bodies end here.
    if (
        body.count(b"[") + body.count(b"{") > MAX_DEPTH
        or body.count(b":") > MAX_NAMES
        or _SUSPECT_ESCAPE.search(body)
    ):
        _inspect(document)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise UnreadableBodyError(
                    f"the name {json.dumps(name[:64])} is in one object twice"
                )
            seen.add(name)
    return members


def _integer(text: str) -> int:
    if len(text) <= _MAX_NUMBER_CHARS:
        return int(text)
    raise UnreadableBodyError(f"a number of {len(text)} characters; at most {_MAX_NUMBER_CHARS}")


def _float(text: str) -> float:
    if len(text) > _MAX_NUMBER_CHARS:
        raise UnreadableBodyError(
            f"a number of {len(text)} characters; at most {_MAX_NUMBER_CHARS}"
        )
    number = float(text)
    if math.isfinite(number):
        return number
    raise UnreadableBodyError(f"the number {text} is outside the range of a 64-bit float")


def _constant(name: str) -> NoReturn:
    raise UnreadableBodyError(f"{name} is no JSON number")


# Made once: building a decoder costs more than decoding a small body. A call for each integer makes
# a report of telemetry take three times as long, so only a body that may hold a long one gets it.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
_WARY_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * _MAX_NUMBER_CHARS


def _inspect(document: Any) -> None:
    """Walk the document without recursion; raise where it is too deep, too full, or unsafe."""
    level = [[document]]
    names = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for container in level:
            for value in container:
                if isinstance(value, str):
                    _check_text(value)
                elif isinstance(value, dict):
                    below.append([*value, *value.values()])
                    names += len(value)
                elif isinstance(value, list):
                    below.append(value)
        if names > MAX_NAMES:
            raise UnreadableBodyError(f"more than {MAX_NAMES} names")
        if not below:
            return
        level = below
    raise UnreadableBodyError(f"nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise UnreadableBodyError("a string holds the character NUL (\\u0000)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableBodyError("a string holds half of a surrogate pair") from None
