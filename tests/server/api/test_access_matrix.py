"""Every route × every method × every kind of caller × tricks with paths, from the URL map.

The views are replaced by one that says that it was reached, so that nothing but access is tried,
and all of it is cheap. What is expected comes from openapi.yaml, and from the table only where in a
request the environment stands.
"""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from flask import Flask, Response, request
from werkzeug.routing import Rule
from werkzeug.test import create_environ

from flagd_server.api.access import TABLE, Where
from flagd_server.api.requests import takes_query
from flagd_server.api.wiring import Services
from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.domain.roles import Role
from flagd_server.services.deployments import NewDeployment
from flagd_server.services.first_start import InitialTokens
from flagd_server.storage import open_storage
from tests.contract.openapi_contract import Operation, contract
from tests.server.api.callers import RIGHT, WRONG, Caller, every_caller
from tests.server.api.client import Api
from tests.server.services.guarded_world import FakeClock

_ENVIRON = create_environ("/", "https://flags.example", content_type="application/json")
RANKS = {role: rank for rank, role in enumerate(("viewer", "editor", "releaser", "admin"))}
SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class Route:
    endpoint: str
    method: str
    path: str
    operation: Operation


@dataclass(frozen=True)
class Answer:
    status: int
    reached: tuple[str, str, Mapping[str, str]] | None
    """Endpoint, method and arguments of the view that was called."""


class World:
    def __init__(self, database: Path) -> None:
        self.clock = FakeClock()
        with closing(open_storage(str(database))) as storage:
            self.callers = every_caller(storage, self.clock)
        # Without limits, which would refuse the last of so many.
        settings = Settings(
            database=str(database), api_per_minute=0, open_per_minute=0, refused_per_minute=0
        )
        self.app = create_app(settings, clock=self.clock)
        self.services: Services = self.app.extensions["flagd_server"]
        self.examples = {"environment": RIGHT, **self._things_of(RIGHT)}
        self.elsewhere = {"environment": WRONG, **self._things_of(WRONG)}
        self.routes = list(_routes(self.app, self.examples))
        for endpoint in self.app.view_functions:
            self.app.view_functions[endpoint] = takes_query(_stub(endpoint))

    def caller(self, name: str) -> Caller:
        (found,) = (caller for caller in self.callers if caller.name == name)
        return found

    def send(
        self,
        caller: Caller,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        environment: str | None = RIGHT,
        document: object = None,
    ) -> Answer:
        """Send a request about the environment, with the path as it would stand on the wire."""
        body = json.dumps(document or {"environment": environment}).encode()
        environ = _ENVIRON | {
            "REQUEST_METHOD": method,
            # As gunicorn does it (PEP 3333): the bytes of the path, read as Latin-1.
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": "" if environment is None else f"environment={environment}",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        for name, value in {**caller.headers, **(headers or {})}.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        seen: list[Any] = []
        body_parts = self.app(environ, lambda status, headers, *_: seen.extend((status, headers)))
        b"".join(body_parts)
        told = dict(seen[1]).get("X-Reached")
        return Answer(int(seen[0][:3]), None if told is None else tuple(json.loads(told)))

    def _things_of(self, environment: str) -> dict[str, str]:
        image = f"shop@sha256:{'0' * 64}"
        new = NewDeployment(service="shop", version="1", image=image, environment=environment)
        deployment = self.services.deployments.register(new, actor="test").deployment.id
        token = self.services.tokens.create("sdk", "x", environment, actor="test").token.id
        return {"deployment": deployment, "token": token}


def _stub(endpoint: str) -> Callable[..., Response]:
    def reached(**arguments: object) -> Response:
        texts = {name: str(value) for name, value in arguments.items()}
        return Response(
            status=204, headers={"X-Reached": json.dumps([endpoint, request.method, texts])}
        )

    return reached


def _routes(app: Flask, examples: Mapping[str, str]) -> Iterator[Route]:
    operations = {(each.template, each.method): each for each in contract().operations}
    for rule in app.url_map.iter_rules():
        template = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted(rule.methods or ()):
            documented = operations[template, "get" if method == "HEAD" else method.lower()]
            yield Route(str(rule.endpoint), method, _path(rule, examples), documented)


def _path(rule: Rule, examples: Mapping[str, str]) -> str:
    return re.sub(
        r"<(\w+:)?(\w+)>",
        lambda match: examples.get(match[2], "1" if match[1] == "positive:" else "x"),
        rule.rule,
    )


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, sqlite_after_start: tuple[Path, InitialTokens]
) -> Iterator[World]:
    path = tmp_path_factory.mktemp("matrix") / "flagd.db"
    shutil.copy(sqlite_after_start[0], path)
    world = World(path)
    yield world
    world.services.close()


def expected(caller: Caller, route: Route, environment: str | None) -> str:
    """Return "in", "unknown" (401) or "not allowed" (403).

    Args:
        environment: what the request is about.
    """
    operation = route.operation
    if operation.is_open:
        return "in"
    if caller.scope is not None:
        return "in" if caller.scope in operation.scopes else "not allowed"
    is_for_people = any("session" in choice for choice in operation.definition["security"])
    if caller.roles is None or not is_for_people:
        return "unknown"
    if not caller.is_safe and route.method not in SAFE:
        return "not allowed"
    if not operation.roles:
        return "in"
    (least,) = operation.roles
    where = TABLE[route.endpoint].where
    places = {
        Where.SOMEWHERE: {None, RIGHT, WRONG},
        Where.EVERYWHERE: {None},
    }.get(where, {None, environment})
    has_role = any(
        RANKS[role] >= RANKS[least] for place, role in caller.roles.items() if place in places
    )
    return "in" if has_role and not caller.is_new else "not allowed"


STATUSES = {"in": 204, "unknown": 401, "not allowed": 403}


def test_every_route_has_a_row_and_every_row_a_route(world: World) -> None:
    assert TABLE.keys() == {route.endpoint for route in world.routes}


def test_the_contract_says_what_the_table_says(world: World) -> None:
    for route in world.routes:
        right = TABLE[route.endpoint].right
        choices = [{"token": [scope]} for scope in right.scopes]
        csrf = {} if route.method in SAFE else {"csrf": []}
        if right.role is not None or right.is_for_any_person:
            choices.append({"session": [] if right.role is None else [right.role.value], **csrf})
        assert route.operation.definition["security"] == choices, route


def test_there_is_a_caller_of_each_kind(world: World) -> None:
    assert len({caller.name for caller in world.callers}) == len(world.callers)
    assert {caller.scope for caller in world.callers} >= {"admin", "read", "kill", "deploy", "sdk"}
    assert {role for caller in world.callers for role in (caller.roles or {}).values()} == set(Role)


def test_each_caller_reaches_what_it_may_and_nothing_else(world: World) -> None:
    wrong = []
    for route in world.routes:
        # HEAD asks the same row as GET; some callers are enough to see that.
        callers = world.callers[::6] if route.method == "HEAD" else world.callers
        for caller in callers:
            answer = world.send(caller, route.method, route.path)
            verdict = expected(caller, route, RIGHT)
            reached = answer.reached is not None and answer.reached[:2] == (
                route.endpoint,
                route.method,
            )
            if answer.status != STATUSES[verdict] or reached != (verdict == "in"):
                wrong.append((route.method, route.path, caller.name, verdict, answer))
    assert wrong == []


TRICKS: dict[str, Callable[[str], str]] = {
    "plain": lambda path: path,
    "double slash at the start": lambda path: "/" + path,
    "double slash inside": lambda path: _before_last(path, "/"),
    "dot": lambda path: _before_last(path, "/."),
    "dot dot": lambda path: _before_last(path, "/x/.."),
    "dot dot from what is open": lambda path: "/healthz/.." + path,
    "escaped dot": lambda path: _before_last(path, "/%2e"),
    "escaped dot dot": lambda path: "/healthz/%2e%2e" + path,
    "escaped slash": lambda path: _before_last(path, "%2f"),
    "all slashes escaped": lambda path: "/" + path[1:].replace("/", "%2F"),
    "parameter at the end": lambda path: path + ";x",
    "parameter inside": lambda path: path.replace("/", ";x/", 2).replace(";x/", "/", 1),
    "upper case": lambda path: path.upper(),
    "one letter in upper case": lambda path: path[:2].upper() + path[2:],
    "one letter escaped": lambda path: "/%" + f"{ord(path[1]):02x}" + path[2:],
    "escaped twice": lambda path: "/%25" + f"{ord(path[1]):02x}" + path[2:],
    "trailing slash": lambda path: path + "/",
    "trailing dot": lambda path: path + "/.",
    "NUL": lambda path: path + "%00",
    "NUL and an ending": lambda path: path + "%00.txt",
    "line break": lambda path: path + "%0d%0aX: y",
    "space": lambda path: path + "%20",
    "backslash": lambda path: path.replace("/", "\\"),
    "overlong UTF-8": lambda path: path.replace("/", "%c0%af"),
    "full-width slash": lambda path: path.replace("/", "%ef%bc%8f"),
    "other environment above": lambda path: path.replace(RIGHT, f"{WRONG}/../{RIGHT}"),
    "other environment, escaped": lambda path: path.replace(RIGHT, f"{WRONG}%2f..%2f{RIGHT}"),
    "environment in upper case": lambda path: path.replace(RIGHT, RIGHT.upper()),
    "environment with a space": lambda path: path.replace(RIGHT, f"{RIGHT}%20"),
    "environment with NUL": lambda path: path.replace(RIGHT, f"{RIGHT}%00"),
}
TRICKSTERS = ("nobody", "sdk server token of staging", "kill server token of None", "admin wrong")


def _before_last(path: str, inserted: str) -> str:
    head, _, last = path.rpartition("/")
    return f"{head}{inserted}/{last}" if inserted != "%2f" else f"{head}%2f{last}"


def _may_have_reached(world: World, caller: Caller, answer: Answer) -> bool:
    """Tell whether the view that was called, if one was, is one that the caller may call."""
    if answer.reached is None:
        return True
    endpoint, method, arguments = answer.reached
    route = next(
        each for each in world.routes if (each.endpoint, each.method) == (endpoint, method)
    )
    about = arguments.get("environment", RIGHT)
    return expected(caller, route, about) == "in"


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_with_the_path_opens_anything(world: World, trick: str) -> None:
    callers = [world.caller(name) for name in TRICKSTERS]
    wrong = []
    for route in world.routes:
        if route.method == "HEAD":
            continue
        path = TRICKS[trick](route.path)
        for caller in callers:
            answer = world.send(caller, route.method, path)
            is_refused = answer.status in (308, 400, 401, 403, 404, 405)
            if not _may_have_reached(world, caller, answer) or not (answer.reached or is_refused):
                wrong.append((route.method, path, caller.name, answer))
    assert wrong == []


METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "X",
)
OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")


def test_no_other_method_and_no_header_that_names_one_opens_anything(world: World) -> None:
    admin, nobody, viewer = (
        world.caller(name) for name in ("admin server token of None", "nobody", "viewer right")
    )
    allowed: dict[str, set[str]] = {}
    for route in world.routes:
        allowed.setdefault(route.path, set()).add(route.method)
    wrong = []
    for path, methods in allowed.items():
        for method in METHODS:
            answer = world.send(admin, method, path)
            if (answer.status == 405) != (method not in methods):
                wrong.append((method, path, answer))
        for caller in (nobody, viewer):
            for header in OVERRIDES:
                answer = world.send(caller, "GET", path, {header: "DELETE"})
                if answer.reached is not None and answer.reached[1] != "GET":
                    wrong.append((header, path, answer))
                if not _may_have_reached(world, caller, answer):
                    wrong.append((header, path, answer))
    assert wrong == []


def test_what_a_thing_belongs_to_counts_and_not_what_the_request_says(world: World) -> None:
    """Where the path names a deployment or a token, its environment is looked up."""
    wrong = []
    for route in world.routes:
        if TABLE[route.endpoint].where in (Where.DEPLOYMENT, Where.OF_TOKEN):
            path = route.path
            for name in ("deployment", "token"):
                path = path.replace(world.examples[name], world.elsewhere[name])
            for caller in world.callers:
                verdict = expected(caller, route, WRONG)
                answer = world.send(caller, route.method, path, environment=RIGHT)
                if answer.status != STATUSES[verdict]:
                    wrong.append((route.method, path, caller.name, verdict, answer))
    assert wrong == []


def test_what_is_answered_before_flask_is_held_to_the_same_rows(world: World) -> None:
    """The poll of who holds the newest flags, and a report that is in order."""
    etag = world.services.snapshots.current(RIGHT).etag
    routes = {route.endpoint: route for route in world.routes if route.method != "HEAD"}
    operations = {operation.name: operation for operation in contract().operations}
    report = operations["report_telemetry"].body_example
    for number, caller in enumerate(world.callers):
        held = {"If-None-Match": etag}
        poll = world.send(caller, "GET", "/sdk/v1/flags", held, environment=None)
        mine = report | {"instance": f"i-{number}"}
        told = world.send(caller, "POST", "/sdk/v1/telemetry", environment=None, document=mine)
        for endpoint, answer, short in (
            ("sdk.get_flags", poll, 304),
            ("sdk.report_telemetry", told, 200),
        ):
            verdict = expected(caller, routes[endpoint], RIGHT)
            is_short = verdict == "in" and (short == 200 or caller.environment == RIGHT)
            assert answer.status == (short if is_short else STATUSES[verdict]), caller.name
            assert (answer.reached is None) == (is_short or verdict != "in")


def test_without_an_environment_all_of_them_are_meant(world: World) -> None:
    caller = world.caller("admin right")
    for route in world.routes:
        if TABLE[route.endpoint].where in (Where.QUERY, Where.BODY):
            assert world.send(caller, route.method, route.path).status == 204
            for unclear in ("", "nowhere", f"{RIGHT}&environment={RIGHT}"):
                answer = world.send(caller, route.method, route.path, environment=unclear)
                assert answer.status == 403, (route.path, unclear)


def test_a_new_route_is_closed_until_it_has_a_row(app: Flask, admin: Api) -> None:
    app.add_url_rule("/api/v1/new", "new", lambda: "open")
    headers = {"Authorization": f"Bearer {admin.token}"}
    answer = app.test_client().get("/api/v1/new", headers=headers)
    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["detail"] == "nobody may do this"
