"""The body of an OFREP request → the evaluation context in it.

What the protocol does not describe is let be, as it asks; what it does describe is held to it, and
a context is bounded, for anyone with a page's token can send one.
"""

from typing import Any

from flagd_sdk.core.bucketing import TARGETING_KEY
from flagd_sdk.core.types import shown
from flagd_sdk.errors import InvalidContextError, ParseError

MAX_CONTEXT_BYTES = 64 * 1024
MAX_ATTRIBUTES = 256
MAX_CONTEXT_DEPTH = 8


def read_context(document: Any) -> dict[str, Any]:
    """Return the context, empty where there is none. `document` is JSON, nested to a limit.

    Raises:
        ParseError: the body is no object.
        InvalidContextError: the context is none, or beyond a limit.
    """
    if type(document) is not dict:
        raise ParseError(f"the body is {shown(document)}; expected an object")
    context = document.get("context", {})
    if type(context) is not dict:
        raise InvalidContextError(f"context is {shown(context)}; expected an object")
    targeting_key = context.get(TARGETING_KEY, "")
    if type(targeting_key) is not str:
        raise InvalidContextError(
            f"context.{TARGETING_KEY} is {shown(targeting_key)}; expected a string"
        )
    if len(context) > MAX_ATTRIBUTES:
        raise InvalidContextError(
            f"context has {len(context)} attributes; at most {MAX_ATTRIBUTES} are taken"
        )
    if not _is_flat_enough(context, MAX_CONTEXT_DEPTH):
        raise InvalidContextError(f"context is nested deeper than {MAX_CONTEXT_DEPTH} levels")
    return context


def _is_flat_enough(value: Any, levels: int) -> bool:
    if type(value) is not dict and type(value) is not list:
        return True
    members = value.values() if type(value) is dict else value
    return levels > 0 and all(_is_flat_enough(member, levels - 1) for member in members)
