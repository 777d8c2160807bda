"""Bytes of a request body → a JSON document that nothing behind it has to be afraid of.

The rule: what leaves here is UTF-8 text without lone surrogates or NUL, in containers nested at
most `MAX_DEPTH` deep, with finite numbers of bounded length and no name twice in one object
(after RFC 7493, I-JSON). Everything else is `UnreadableBodyError`.
"""

import json
import math
import re
from typing import Any, NoReturn

MAX_BODY_BYTES = 1 << 20
MAX_DEPTH = 64

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
        document = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UnreadableBodyError(f"not JSON at {where}: {error.msg}") from None
    except RecursionError:
        raise UnreadableBodyError(f"nested deeper than {MAX_DEPTH} levels") from None
    # As many opening brackets as levels allowed cannot nest too deep; most bodies end here.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH or _SUSPECT_ESCAPE.search(body):
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


# One decoder for all requests: building one costs more than decoding a small body.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _inspect(document: Any) -> None:
    """Walk the document without recursion; raise where it is too deep or a string is unsafe."""
    level = [[document]]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for container in level:
            for value in container:
                if isinstance(value, str):
                    _check_text(value)
                elif isinstance(value, dict):
                    below.append([*value, *value.values()])
                elif isinstance(value, list):
                    below.append(value)
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
