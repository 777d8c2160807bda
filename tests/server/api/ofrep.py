"""A client of OFREP, which holds each answer to the protocol besides `openapi.yaml`."""

import json
from collections.abc import Mapping
from typing import Any

from werkzeug.test import TestResponse

from tests.contract import ofrep_protocol
from tests.server.api.client import Api

BULK = "/ofrep/v1/evaluate/flags"
STREAM = "/ofrep/v1/stream"
USER = {"targetingKey": "user-42"}

# Type → variants, of which the first is served.
FLAGS: dict[str, dict[str, Any]] = {
    "boolean": {"on": True, "off": False},
    "string": {"blue": "blå", "red": "rød"},
    "integer": {"many": 42, "none": 0},
    "float": {"whole": 1, "half": 0.5},  # a whole number without its point
    "object": {"full": {"a": [1, 2.0, None], "b": {"c": "d"}}, "empty": {}},
}


def evaluate(
    api: Api,
    key: str | None = None,
    context: Mapping[str, Any] | None = None,
    **options: Any,
) -> TestResponse:
    """Evaluate a flag, or all of them where no key is given."""
    path = BULK if key is None else f"{BULK}/{key}"
    if "raw" not in options:
        options["raw"] = json.dumps({"context": USER if context is None else context}).encode()
    answer = api.post(path, **options)
    ofrep_protocol.check(path, answer.status_code, answer.data)
    return answer


def create_flags(admin: Api, environment: str = "production") -> None:
    """Create a flag of each type, enabled, with the type as its key."""
    for kind, variants in FLAGS.items():
        serve(admin, kind, kind, variants, {"variant": next(iter(variants))}, environment)


def serve(
    admin: Api,
    key: str,
    kind: str,
    variants: Mapping[str, Any],
    default_serve: Any,
    environment: str = "production",
    **changes: Any,
) -> None:
    document = {"key": key, "type": kind, "variants": variants}
    created = admin.post("/api/v1/flags", document)
    assert created.status_code == 201, created.json
    changes = {"enabled": True, "default_serve": default_serve, **changes}
    path = f"/api/v1/flags/{key}/environments/{environment}"
    changed = admin.patch(path, changes, if_match=1)
    assert changed.status_code == 200, changed.json
