"""OFREP 0.3.0 as something that answers can be held to, whatever `openapi.yaml` says of them.

Written from the protocol's own document (open-feature/protocol: `service/openapi.yaml`, version
0.3.0, and `service/adrs/0008-sse-for-bulk-evaluation-changes.md`); the names are its. Two places
depart from its letter: a whole number is both an `integerFlag` and a `floatFlag`, which its `oneOf`
forbids; and a list is let pass as the value of an object flag, as its providers do.
"""

import json
from typing import Any

from jsonschema import Draft202012Validator

_KEY = {"type": "string"}
_METADATA = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "string", "number"]},
}
_SUCCESS = {
    "type": "object",
    "required": ["key", "reason"],
    "properties": {
        "key": _KEY,
        "reason": {"enum": ["STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"]},
        "variant": {"type": "string"},
        "metadata": _METADATA,
        "value": {"type": ["boolean", "string", "number", "object", "array"]},
    },
    # A failure is no success that says more.
    "not": {"required": ["errorCode"]},
}


def _failure(codes: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["key", "errorCode"],
        "properties": {
            "key": _KEY,
            "errorCode": {"enum": codes},
            "errorDetails": {"type": "string"},
            "metadata": _METADATA,
        },
    }


_FAILURE = _failure(["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "GENERAL"])
_EVENT_STREAM = {
    "type": "object",
    "required": ["type"],
    "oneOf": [{"required": ["url"]}, {"required": ["endpoint"]}],
    "properties": {
        "type": {"type": "string"},
        "url": {"type": "string", "format": "uri"},
        "endpoint": {
            "type": "object",
            "required": ["requestUri"],
            "properties": {
                "origin": {"type": "string", "format": "uri"},
                "requestUri": {"type": "string", "pattern": "^/"},
            },
        },
        "inactivityDelaySec": {"type": "integer", "minimum": 1},
    },
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "serverEvaluationSuccess": _SUCCESS,
    "evaluationFailure": _FAILURE,
    "flagNotFound": _failure(["FLAG_NOT_FOUND"]),
    "generalErrorResponse": {
        "type": "object",
        "properties": {"errorDetails": {"type": "string"}},
    },
    "bulkEvaluationSuccess": {
        "type": "object",
        "required": ["flags"],
        "properties": {
            "flags": {"type": "array", "items": {"oneOf": [_SUCCESS, _FAILURE]}},
            "metadata": _METADATA,
            "eventStreams": {"type": "array", "items": _EVENT_STREAM},
        },
    },
    "bulkEvaluationFailure": {
        "type": "object",
        "required": ["errorCode"],
        "properties": {"errorCode": {"type": "string"}, "errorDetails": {"type": "string"}},
    },
    "sseEventData": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string"},
            "etag": {"type": "string"},
            "lastModified": {"type": ["integer", "string"], "minimum": 0},
        },
    },
}
# Path → status → schema; None where it describes no body.
_ANSWERS: dict[bool, dict[int, str | None]] = {
    False: {
        200: "serverEvaluationSuccess",
        400: "evaluationFailure",
        401: None,
        403: None,
        404: "flagNotFound",
        429: None,
        500: "generalErrorResponse",
    },
    True: {
        200: "bulkEvaluationSuccess",
        304: None,
        400: "bulkEvaluationFailure",
        401: None,
        403: None,
        429: None,
        500: "generalErrorResponse",
    },
}


class ProtocolError(AssertionError):
    """An answer is not what the protocol says."""


def hold(name: str, instance: Any) -> None:
    """Raise `ProtocolError` where the instance is not what the schema says."""
    for error in Draft202012Validator(SCHEMAS[name]).iter_errors(instance):
        raise ProtocolError(f"{name}: {error.json_path}: {error.message}")


def check(path: str, status: int, body: bytes) -> None:
    """Raise `ProtocolError` where an answer of an evaluation is not one that may be given."""
    answers = _ANSWERS[path.rstrip("/").endswith("/flags")]
    if status not in answers:
        raise ProtocolError(f"{path} answered {status}: {body!r}")
    name = answers[status]
    if name is not None:
        hold(name, json.loads(body))
