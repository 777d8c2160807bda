"""Every field of every body, spoiled in every way: refused, named, and nothing changed.

The bodies are the examples of the contract, in a database where each of them succeeds. What a
spoiled body is, the contract's schema says, so that no mutation has to be classified by hand.
The rows of a telemetry summary stand each for itself: they are refused, named, and not counted.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from flagd_sdk.core.local_kill import MAX_LOCAL_KILLS
from flagd_server.api.schemas.telemetry import ROWS
from flagd_server.domain.telemetry import MAX_CELLS, MAX_ERROR_KINDS
from flagd_server.services import last_uses
from flagd_server.storage import open_storage
from flagd_server.storage.release_records import Deployment
from tests.contract.openapi_contract import Operation, contract
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION
from tests.server.api.mutations import Mutation, mutations

TELEMETRY = "report_telemetry"
# OFREP has errors of its own, and hooks say what they say to tools; both let fields be that they
# do not know: test_ofrep_request.py, test_hooks_*.py. What takes a password: test_session.py.
WITH_BODY = [
    item
    for item in contract().operations
    if "requestBody" in item.definition
    and not {"ofrep", "hooks"} & {*item.definition["tags"]}
    and item.name not in ("log_in", "choose_password")
]
# Larger bodies are refused whole, before anyone looks at a field.
READABLE_BYTES = 1 << 20
MOST_ROWS = {"cells": MAX_CELLS, "error_kinds": MAX_ERROR_KINDS, "local_kills": MAX_LOCAL_KILLS}


@pytest.fixture(autouse=True)
def unwritten_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a token was last used is written after a minute, which a busy machine may take here."""
    monkeypatch.setattr(last_uses, "_WRITE_EVERY_S", 3_600.0)


@pytest.fixture
def prepared(admin: Api, sdk: Api, checkout: str, database: str) -> str:
    """What the examples refer to; returns the id of the kill that stands in staging."""
    (telemetry,) = (item for item in WITH_BODY if item.name == TELEMETRY)
    nothing = {"instance": "i-prepared", "cells": [], "error_kinds": []}
    sdk.post(telemetry.path(), {**telemetry.body_example, **nothing})
    variants = {"on": True, "off": False}
    admin.post("/api/v1/flags", {"key": "new-cart", "type": "boolean", "variants": variants})
    beta = {"attribute": "plan", "op": "in", "values": ["beta"]}
    admin.put("/api/v1/environments/production/segments/beta", {"condition": beta})
    with closing(open_storage(database)) as storage, storage.transaction() as tx:
        tx.put_deployment(Deployment("dp-3f2c1ab09d7e4455", "production", "shop", "v1"))
    admin.put("/api/v1/environments/production/slos/shop", {"availability": 0.99})
    gate = "/api/v1/environments/production/gates/before-more-traffic"
    admin.put(gate, {"approval": True})
    staging = PRODUCTION.replace("production", "staging")
    killed = admin.post(f"{staging}/kill", {"reason": "smoke"})
    return str(killed.json["kill"]["id"])


@pytest.fixture
def changes(database: str, database_kind: str) -> Iterator["Changes"]:
    if database_kind != "sqlite":
        pytest.skip("what changes is seen in the pages of an SQLite file")
    with closing(sqlite3.connect(database)) as connection:
        yield Changes(connection)


class Changes:
    """Sees every commit of others, whatever it is in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def dump(self) -> list[str]:
        return list(self._connection.iterdump())

    def dump_without_instances(self) -> list[str]:
        return [line for line in self.dump() if not line.startswith('INSERT INTO "instances"')]

    def error_kinds(self) -> list[tuple[Any, ...]]:
        return self._connection.execute("SELECT * FROM error_kinds").fetchall()

    def local_kills(self) -> list[tuple[Any, ...]]:
        return self._connection.execute("SELECT id, instance, document FROM local_kills").fetchall()


def _prepared_operation(
    admin: Api, operation: Operation, kill_id: str
) -> tuple[str, dict[str, Any], Any]:
    """Return (path, options, body) with which the operation succeeds."""
    path, body = operation.path(), deepcopy(operation.body_example)
    needs_version = any(
        parameter["name"] == "If-Match" and parameter["required"]
        for parameter in operation.parameters
    )
    if operation.name == "restore_flag":
        path = path.replace("production", "staging")
        body["kill"] = kill_id
    if operation.name == "change_person":
        admin.post("/api/v1/people", {"name": "ann", "roles": []})
    if operation.name == "start_rollout":
        # The other flag is held off by a process, and nothing is rolled out against that.
        path = path.replace("new-checkout", "new-cart")
    if "{rollout}" in operation.template:
        path = _started_rollout(admin, operation) + path[path.rindex("/") :]
    return path, {"if_match": 2} if needs_version else {}, body


def _started_rollout(admin: Api, operation: Operation) -> str:
    """Return the path of a rollout with which the operation succeeds."""
    path = f"{PRODUCTION.replace('new-checkout', 'new-cart')}/rollouts"
    stages = [{"percent": 5, "approval": True}, {"percent": 50}]
    path += f"/{admin.post(path, {'stages': stages}).json['id']}"
    # Nobody reports, so it waits, and from then on nothing about it changes by itself.
    while admin.get(path).json["state"] != "waiting":
        time.sleep(0.05)
    if operation.name == "resume_rollout":
        admin.post(f"{path}/pause", {})
    return path


def _is_in_a_row(operation: Operation, mutation: Mutation) -> bool:
    """Return whether it spoils rows of a summary only, and leaves them in a list."""
    return (
        operation.name == TELEMETRY
        and mutation.at[:1] in {(name,) for name in ROWS}
        and isinstance(rows := mutation.body.get(mutation.at[0]), list)
        and len(rows) <= MOST_ROWS[str(mutation.at[0])]
    )


@cache
def _sorted_out(operation: Operation) -> tuple[list[Mutation], list[Mutation]]:
    """Return the mutations of the example that the contract forbids, and those it allows."""
    spoiled: list[Mutation] = []
    allowed: list[Mutation] = []
    for mutation in mutations(operation.body_example):
        is_allowed = contract().is_allowed(operation.body_pointer, mutation.body)
        (allowed if is_allowed else spoiled).append(mutation)
    return spoiled, allowed


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.name)
def test_a_spoiled_field_is_named_and_changes_nothing(
    admin: Api, sdk: Api, prepared: str, changes: Changes, operation: Operation
) -> None:
    api = sdk if operation.scopes == {"sdk"} else admin
    path, options, body = _prepared_operation(admin, operation, prepared)
    before, version = changes.dump(), changes.version()
    spoiled, _ = _sorted_out(operation)
    assert len(spoiled) > 20
    for mutation in spoiled:
        if _is_in_a_row(operation, mutation):
            continue
        answer = api.request(
            operation.method.upper(), path, raw=json.dumps(mutation.body).encode(), **options
        )
        _assert_refused(answer.status_code, answer.json, mutation)
        assert changes.version() == version, f"{mutation.what} at {mutation.field} was written"
    assert changes.dump() == before
    # Only now is it sure that the refusals were for the field, and not for all else.
    good = api.request(operation.method.upper(), path, body, **options)
    assert good.status_code in (200, 201), good.json


@pytest.mark.parametrize("rows", ROWS)
def test_a_spoiled_row_of_a_summary_is_named_and_not_counted(
    admin: Api, sdk: Api, prepared: str, changes: Changes, rows: str
) -> None:
    (operation,) = (item for item in WITH_BODY if item.name == TELEMETRY)
    path, _, body = _prepared_operation(admin, operation, prepared)
    good = sdk.post(path, body).json
    assert (good["accepted"], good["refused"]) == (1, [])
    before, kinds = changes.dump_without_instances(), changes.error_kinds()
    local_kills = changes.local_kills()
    spoiled = [
        mutation
        for mutation in _sorted_out(operation)[0]
        if _is_in_a_row(operation, mutation) and mutation.at[0] == rows
    ]
    assert len(spoiled) > 50
    for sequence, mutation in enumerate(spoiled, 2):
        sent = mutation.body | {"sequence": sequence}
        answer = sdk.post(path, sent)
        if len(json.dumps(sent)) > READABLE_BYTES:
            assert answer.status_code == 413
            continue
        what = f"{mutation.what} at {mutation.field}: {answer.status_code} {answer.json}"
        assert answer.status_code == 200, what
        assert answer.json["duplicate"] is False, what
        assert answer.json["accepted"] == (0 if rows == "cells" else 1), what
        assert any(_is_at(mutation, fault["field"]) for fault in answer.json["refused"]), what
    if rows == "cells":
        assert changes.dump_without_instances() == before
    if rows == "error_kinds":
        assert changes.error_kinds() == kinds
    assert changes.local_kills() == local_kills


def _assert_refused(status: int, problem: dict[str, Any], mutation: Mutation) -> None:
    what = f"{mutation.what} at {mutation.field}: {status} {problem}"
    if len(json.dumps(mutation.body)) > READABLE_BYTES:
        assert status == 413, what
        return
    assert status == 422, what
    named = [fault["field"] for fault in problem["errors"]]
    assert any(_is_at(mutation, field) for field in named), what
    assert all(fault["message"] for fault in problem["errors"])


def _is_at(mutation: Mutation, field: str) -> bool:
    # A condition without its telling field is none at all: the fault is then the condition's.
    # What replaces a whole object is at fault in each field that it lacks.
    within = (f"{mutation.field}.", f"{mutation.field}[")
    return not mutation.at or field in (mutation.field, mutation.parent) or field.startswith(within)


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.name)
def test_what_the_contract_allows_is_never_a_mistake_of_the_server(
    admin: Api, sdk: Api, prepared: str, operation: Operation
) -> None:
    """A change that the schema allows may be refused for its meaning; it may not fail."""
    api = sdk if operation.scopes == {"sdk"} else admin
    path, options, _ = _prepared_operation(admin, operation, prepared)
    _, allowed = _sorted_out(operation)
    for mutation in allowed:
        if options:
            options = {"if_match": admin.get(path.removesuffix("/rollback")).json["version"]}
        answer = api.request(operation.method.upper(), path, mutation.body, **options)
        assert answer.status_code in (200, 201, 404, 409, 422), f"{mutation.what} {mutation.field}"
