"""Notices as they go from one server to the others: short enough for any way there."""

import json
from typing import cast

from flagd_server.domain.configuration import JsonObject
from flagd_server.errors import StorageError

MAX_BYTES = 7_500
"""Postgres carries 8,000 at the most, the topic and what else a transport adds included."""


def encode_notice(topic: str, document: JsonObject) -> str:
    """Return both as one line of ASCII.

    Raises:
        StorageError: it takes more than `MAX_BYTES`.
    """
    text = json.dumps([topic, document], separators=(",", ":"))
    if len(text) > MAX_BYTES:
        raise StorageError(f"a notice of {topic!r} takes {len(text)} bytes, expected {MAX_BYTES}")
    return text


def decode_notice(text: str) -> tuple[str, JsonObject]:
    """Return (topic, document)."""
    return cast("tuple[str, JsonObject]", tuple(json.loads(text)))
