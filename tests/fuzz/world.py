"""A server with something in it, and those who call it.

Everything is set up over the API, so that it is there in the same way on a server that listens.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.contract.openapi_contract import Operation, contract
from tests.fuzz.calls import Answer, Call, InProcess, Sender
from tests.fuzz.first_database import make_first, open_app
from tests.fuzz.no_outgoing import NoOutgoing

ENVIRONMENTS = ("production", "staging")
SPARE_ENVIRONMENTS = ("preview-1", "preview-2")
SERVICE = "shop"
DIGEST = "sha256:" + "9f86d081" * 8
_BOOLEAN = {"type": "boolean", "variants": {"on": True, "off": False}}
_TEXT = {"type": "string", "variants": {"a": "alpha", "b": "beta"}}

Place = Mapping[str, str]
"""Path parameters that belong together: name → value."""


RANKS = ("viewer", "editor", "releaser", "admin")
"""Roles of people; each includes those before it."""


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        kind: for the summary.
        headers: by which they are known, names in lower case.
        scope: what a token may do; None where it opens nothing.
        role: of a person.
        environment: the only one whose contents it may see; None for all.
    """

    kind: str
    headers: Mapping[str, str]
    scope: str | None = None
    role: str | None = None
    environment: str | None = None

    @property
    def is_known(self) -> bool:
        return self.scope is not None or self.role is not None

    def may(self, operation: Operation) -> bool:
        """Whether the operation is for the likes of them, in some environment."""
        if self.role is None:
            return self.scope in operation.scopes
        rank = RANKS.index(self.role)
        return any(
            all(RANKS.index(least) <= rank for least in choice["session"])
            for choice in operation.definition["security"]
            if "session" in choice
        )


@dataclass
class World:
    """What there is to aim at.

    Attributes:
        secrets: texts that no answer may hold, but the one that makes them.
        marks: environment → text that stands in its configurations and nowhere else.
    """

    callers: list[Caller] = field(default_factory=list)
    admin: Caller = Caller("admin", {}, "admin")
    places: list[Place] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    hook_secrets: dict[str, str] = field(default_factory=dict)

    def places_of(self, names: frozenset[str]) -> list[Place]:
        return [place for place in self.places if names <= place.keys()]


def mark_of(environment: str) -> str:
    """Return the text that stands in an environment's own things and in nothing else."""
    return f"only-in-{environment}-5d41402abc4b2a76"


def build(sender: Sender, admin_token: str, database: str) -> World:
    """Set the server up, and return what there is."""
    world = World(secrets={admin_token, database})
    world.admin = Caller("admin", {"authorization": f"Bearer {admin_token}"}, "admin")
    setup = _Setup(sender, world)
    setup.make_callers(admin_token)
    setup.make_things()
    return world


class _Setup:
    def __init__(self, sender: Sender, world: World) -> None:
        self._sender = sender
        self._world = world

    def _ask(self, method: str, path: str, body: Any = None, if_match: int | None = None) -> Any:
        return self._ask_as(self._world.admin.headers, method, path, body, if_match)

    def _ask_as(
        self,
        who: Mapping[str, str],
        method: str,
        path: str,
        body: Any = None,
        if_match: int | None = None,
    ) -> Any:
        answer = self._send(who, method, path, body, if_match)
        return json.loads(answer.body) if answer.body else None

    def _send(
        self, who: Mapping[str, str], method: str, path: str, body: Any, if_match: int | None = None
    ) -> Answer:
        headers = dict(who)
        if body is not None:
            headers["content-type"] = "application/json"
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        sent = b"" if body is None else json.dumps(body).encode()
        answer = self._sender.send(Call(method, path, headers, sent))
        assert answer.status < 300, (method, path, answer)
        return answer

    def make_callers(self, admin_token: str) -> None:
        world = self._world
        garbage = (
            "Bearer fr_admin_" + "x" * 43,
            "Basic " + "YWRtaW46YWRtaW4=",
            "Bearer " + "y" * 5_000,
            f"Bearer {admin_token[:-1]}",
            f"Bearer {admin_token}x",
            admin_token,
        )
        world.callers += [
            Caller("none", {}),
            *(Caller("garbage", {"authorization": each}) for each in garbage),
            Caller("garbage", {"cookie": "__Host-flagd_session=" + "z" * 43, "x-flagd-csrf": "z"}),
            world.admin,
        ]
        for scope in ("read", "kill", "deploy"):
            self._add(scope, {"scope": scope})
        for environment in ENVIRONMENTS:
            common = {"scope": "sdk", "environment": environment}
            self._add("sdk server", {**common, "kind": "server"})
            self._add("sdk client", {**common, "kind": "client"})
            self._add("ofrep", {"scope": "ofrep", "environment": environment})
        revoked = self._ask("POST", "/api/v1/tokens", {"scope": "admin", "name": "gone"})
        self._ask("DELETE", f"/api/v1/tokens/{revoked['id']}")
        header = {"authorization": f"Bearer {revoked['text']}"}
        world.callers.append(Caller("revoked", header))
        for role in RANKS:
            self._add_person(role, None)
        self._add_person("viewer", "staging")
        for number in range(2):
            spare = {"name": f"spare-{number}", "roles": [{"environment": None, "role": "viewer"}]}
            self._ask("POST", "/api/v1/people", spare)
            world.places.append({"person": spare["name"]})

    def _add_person(self, role: str, environment: str | None) -> None:
        """Have somebody log in and choose a password, and keep the session."""
        name = f"{role}-{environment or 'everywhere'}"
        given = [{"environment": environment, "role": role}]
        made = self._ask("POST", "/api/v1/people", {"name": name, "roles": given})
        headers: dict[str, str] = {}
        chosen = f"a password that only {name} knows"
        login = {"name": name, "password": made["one_time_password"]}
        choice = {"current_password": made["one_time_password"], "new_password": chosen}
        for path, body in (("/api/v1/session", login), ("/api/v1/session/password", choice)):
            answer = self._send(headers, "POST", path, body)
            cookie = re.search(r"__Host-flagd_session=([^;]+)", answer.headers["set-cookie"])
            assert cookie is not None
            headers = {"cookie": cookie[0], "x-flagd-csrf": tell_json(answer)["csrf_token"]}
            self._world.secrets.add(cookie[1])
        self._world.secrets |= {made["one_time_password"], chosen}
        self._world.callers.append(
            Caller(f"person: {role}", headers, role=role, environment=environment)
        )

    def _add(self, kind: str, body: dict[str, str]) -> None:
        made = self._ask("POST", "/api/v1/tokens", {**body, "name": kind})
        self._world.secrets.add(made["text"])
        self._world.callers.append(
            Caller(
                kind,
                {"authorization": f"Bearer {made['text']}"},
                body["scope"],
                environment=body.get("environment"),
            )
        )

    def make_things(self) -> None:
        for key in SPARE_ENVIRONMENTS:
            self._ask("POST", "/api/v1/environments", {"key": key, "name": key})
        flags = {f"flag-{n}": _BOOLEAN if n % 3 else _TEXT for n in range(6)}
        for key, values in flags.items():
            made = {"key": key, **values, "tags": ["checkout"]}
            self._ask("POST", "/api/v1/flags", made)
        for environment in (*ENVIRONMENTS, *SPARE_ENVIRONMENTS):
            self._furnish(environment, flags)
        for _ in range(3):
            spare = self._ask("POST", "/api/v1/tokens", {"scope": "read", "name": "spare"})
            self._world.places.append({"token": spare["id"]})
        self._world.places += [{"key": key} for key in flags] + [{"flag": key} for key in flags]

    def _furnish(self, environment: str, flags: Mapping[str, Any]) -> None:
        places = self._world.places
        base = f"/api/v1/environments/{environment}"
        examples = {operation.name: operation for operation in contract().operations}
        mark = {"attribute": "mark", "op": "in", "values": [mark_of(environment)]}
        self._ask("PUT", f"{base}/segments/beta", {"condition": mark})
        self._ask("PUT", f"{base}/slos/{SERVICE}", examples["put_slo"].body_example)
        gate = {"approval": True, "description": mark_of(environment)}
        self._ask("PUT", f"{base}/gates/before-more-traffic", gate)
        hook = {"url": f"https://hooks.example/{mark_of(environment)}", "format": "json"}
        self._ask("PUT", f"{base}/webhooks/team-chat", hook)
        secret = self._ask("PUT", f"{base}/hook-secret")["secret"]
        self._world.hook_secrets[environment] = secret
        self._world.secrets.add(secret)
        deployed = {
            "service": SERVICE,
            "version": "3f2c1ab",
            "image": f"registry.example/shop@{DIGEST}",
            "environment": environment,
        }
        deployment = self._ask("POST", "/api/v1/deployments", deployed)["id"]
        places.append({"deployment": deployment})
        for key, values in flags.items():
            path = f"/api/v1/flags/{key}/environments/{environment}"
            first, second = values["variants"]
            share = 0 if key == "flag-1" else 25_000  # that one is released
            split = {"split": {"weights": {first: share, second: 100_000 - share}}}
            rule = {"id": "marked", "condition": {"segment": "beta"}, "serve": {"variant": first}}
            if key == "flag-5":
                rule["condition"] = mark
            changes = {"enabled": True, "default_serve": split}
            changes |= {"rules": [rule]} if key in ("flag-4", "flag-5") else {}
            self._ask("PATCH", path, changes, if_match=1)
            place = {"flag": key, "environment": environment, "version": "2"}
            if key == "flag-1":
                started = self._ask("POST", f"{path}/rollouts", {"template": "standard"})
                place["rollout"] = started["id"]
            if key == "flag-2":
                self._ask("POST", f"{path}/kill", {"reason": "seeded"})
            places.append(place)
        places.append(
            {
                "environment": environment,
                "segment": "beta",
                "service": SERVICE,
                "gate": "before-more-traffic",
                "webhook": "team-chat",
            }
        )


class Template:
    """A database that was set up once, from which each world in process is a copy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "template.db"
        tokens = make_first(self._file)
        with self._opened(self._file) as sender:
            self._world = build(sender, tokens.admin, self._file.name)
            self._world.secrets.update(tokens.sdk.values())

    @contextmanager
    def copy(self) -> Iterator[tuple[World, Sender]]:
        """Open a fresh copy of the world."""
        file = self._folder / "world.db"
        for old in self._folder.glob("world.db*"):
            old.unlink()
        shutil.copy(self._file, file)
        world = World(
            callers=self._world.callers,
            admin=self._world.admin,
            places=list(self._world.places),
            secrets={*self._world.secrets, file.name},
            hook_secrets=dict(self._world.hook_secrets),
        )
        with self._opened(file) as sender:
            yield world, sender

    @contextmanager
    def _opened(self, file: Path) -> Iterator[Sender]:
        with patch("flagd_server.parts.OutgoingHttp", NoOutgoing):
            app = open_app(file)
        try:
            yield InProcess(app)
        finally:
            app.extensions["flagd_server"].close()


class ErrorLog(logging.Handler):
    """Keeps what the server logs as an error: also of threads that answer nobody."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(logging.Formatter().format(record))

    def take(self) -> list[str]:
        taken, self.messages = self.messages, []
        return taken


def tell_json(answer: Answer) -> Any:
    """Return the document of an answer, None where it is none."""
    try:
        return json.loads(answer.body) if answer.body else None
    except ValueError:
        return None
