"""Pydantic's errors → faults that name a field the way a client wrote it."""

import json
import re
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flagd_server.domain.faults import Fault

MAX_FAULTS = 100
"""More faults than this say nothing new; a body of a million wrong fields gets a short answer."""

MEMBER_PREFIX = "\0"
"""Starts the tags of unions, which pydantic puts into locations; no name in a body holds NUL."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY_MARK = "[key]"

# Pydantic speaks of Python; a client wrote JSON.
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is no field of this object",
    "bool_type": "should be true or false",
    "int_type": "should be an integer",
    "float_type": "should be a number",
    "string_type": "should be a string",
    "list_type": "should be an array",
    "dict_type": "should be an object",
    "model_type": "should be an object",
    "none_required": "should be null",
}
_NOISE = re.compile(r"^(?:Input|String|List|Dictionary|Value) (?=should )| after validation")


def field_path(location: Iterable[str | int]) -> str:
    """Return a location as text: `rules[0].serve.split.weights.on`, odd names as `["a b"]`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.startswith(MEMBER_PREFIX) or step == _KEY_MARK:
            continue
        elif _PLAIN_NAME.fullmatch(step):
            path += f".{step}" if path else step
        else:
            path += f"[{json.dumps(step[:64])}]"
    return path


def fault_of(detail: ErrorDetails) -> Fault:
    message = _MESSAGES.get(detail["type"]) or _NOISE.sub("", detail["msg"])
    if detail["loc"][-1:] == (_KEY_MARK,):
        message = f"this name {message}"
    return Fault(field_path(detail["loc"]), message)


def faults_of(error: ValidationError) -> list[Fault]:
    """Return each fault, at most `MAX_FAULTS`, in the order of the body."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return [fault_of(detail) for detail in details[:MAX_FAULTS]]
