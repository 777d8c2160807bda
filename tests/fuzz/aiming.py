"""A generated case → a call that often hits what exists: by who asks, its path, version and body.

Left as schemathesis makes them, cases would hardly ever get past 401 and 404.
"""

import json
import time
from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import quote

import requests
from schemathesis import Case

from flagd_server.domain.notifications import headers_for
from tests.contract.openapi_contract import Operation
from tests.fuzz.calls import Call, Sender
from tests.fuzz.world import SERVICE, SPARE_ENVIRONMENTS, Caller, World, tell_json

_BASE = "http://127.0.0.1"
# Set by the client library, or schemathesis's own.
_DROPPED_HEADERS = frozenset(
    ("user-agent", "accept-encoding", "connection", "content-length", "x-schemathesis-testcaseid")
)
# What would take away what the other cases need, or the callers' own tokens.
_ENDS_SESSIONS = ("log_out", "choose_password")
_SPARING = {"delete_environment": SPARE_ENVIRONMENTS}


class Aim:
    """One case's own choices, all from one number."""

    def __init__(self, world: World, sender: Sender, operation: Operation, number: int) -> None:
        self._world = world
        self._sender = sender
        self._operation = operation
        self._random = Random(number)
        self.place: Mapping[str, str] = {}

    def caller(self) -> Caller:
        """Return who asks: half the time one who may."""
        callers = self._world.callers
        able = [caller for caller in callers if caller.may(self._operation)]
        if self._operation.name in _ENDS_SESSIONS:  # of those who are not needed any more
            callers = [caller for caller in callers if caller.role is None]
            able = []
        return self._random.choice(able if able and self._chance(0.5) else callers)

    def call(self, case: Case, caller: Caller) -> Call | None:
        """Return what to send; None where HTTP has no way to say it."""
        place = self.place = self._place(case)
        path = self._operation.template.format(**place)
        options = case.as_transport_kwargs(base_url=_BASE)
        try:
            prepared = requests.Request(
                self._operation.method.upper(),
                _BASE + path,
                {name: _latin(value) for name, value in options["headers"].items()},
                params=options.get("params"),
                data=options.get("data"),
                json=options.get("json"),
            ).prepare()
        except (requests.RequestException, UnicodeError):
            return None
        headers = {
            name.lower(): value
            for name, value in prepared.headers.items()
            if name.lower() not in _DROPPED_HEADERS and isinstance(value, str)
        }
        body = prepared.body or b""
        sent = self._body(body.encode() if isinstance(body, str) else body, place)
        for name in ("authorization", "cookie", "x-flagd-csrf"):
            headers.pop(name, None)
        headers |= caller.headers
        if self._has("If-Match", "header") and self._chance(0.7):
            headers |= self._version(place)
        if self._operation.name == "take_signed" and self._chance(0.6):
            headers |= self._signature(place, sent)
        query = f"?{prepared.url.partition('?')[2]}" if "?" in str(prepared.url) else ""
        return Call(self._operation.method.upper(), path + query, headers, sent)

    def _place(self, case: Case) -> Mapping[str, str]:
        """Return path parameters, encoded: mostly of what exists."""
        made = {name: _encoded(str(value)) for name, value in (case.path_parameters or {}).items()}
        spared = _SPARING.get(self._operation.name)
        if spared is not None and self._chance(0.8):
            return {"environment": self._random.choice(spared)}
        names = frozenset(made)
        known = self._world.places_of(names)
        if known and self._chance(0.85):
            place = self._random.choice(known)
            kept = {name for name in names if self._chance(0.05)}
            return {
                name: made[name] if name in kept else quote(place[name], safe="") for name in names
            }
        if spared is not None and made.get("environment") == "production":
            made["environment"] = "elsewhere"
        return made

    def _has(self, name: str, where: str) -> bool:
        return any(
            parameter["name"] == name and parameter["in"] == where
            for parameter in self._operation.parameters
        )

    def _version(self, place: Mapping[str, str]) -> dict[str, str]:
        path = f"/api/v1/flags/{place['flag']}"
        if "environment" in place:
            path += f"/environments/{place['environment']}"
        etag = self._look(path)[1].get("etag")
        return {"if-match": etag} if etag else {}

    def _look(self, path: str) -> tuple[Any, Mapping[str, str]]:
        answer = self._sender.send(Call("GET", path, self._world.admin.headers))
        return tell_json(answer), answer.headers

    def _signature(self, place: Mapping[str, str], body: bytes) -> dict[str, str]:
        secret = self._world.hook_secrets.get(place["environment"])
        if secret is None:
            return {}
        signed = headers_for(secret, f"msg-{self._random.randrange(10)}", int(time.time()), body)
        return {name.lower(): value for name, value in signed.items()}

    def _body(self, body: bytes, place: Mapping[str, str]) -> bytes:
        """Return the body, half the time with names of what exists in it."""
        if not body or self._chance(0.5):
            return body
        try:
            document = json.loads(body)
        except ValueError:
            return body
        named = self._names(place)
        return json.dumps(self._renamed(document, named)).encode()

    def _names(self, place: Mapping[str, str]) -> dict[str, tuple[object, ...]]:
        named: dict[str, tuple[object, ...]] = {
            "flag": tuple(f"flag-{n}" for n in range(6)),
            "environment": ("production", "staging"),
            "service": (SERVICE,),
            "variant": ("on", "off", "a", "b"),
            "from_variant": ("off", "b"),
            "to_variant": ("on", "a"),
            "treatment": ("on",),
            "control": ("off",),
            "split": ("default", None, "marked"),
            "config_version": (1, 2, 3),
            "version": (1, 2, 3),
            "sequence": tuple(range(1, 40)),
            "instance": ("i-1", "i-2"),
            "segment": ("beta",),
            "template": ("standard", "careful"),
            "tag": ("checkout",),
        }
        if self._operation.name == "restore_flag":
            path = f"/api/v1/flags/{place['flag']}/environments/{place['environment']}/kill"
            found = self._look(path)[0]
            standing = found.get("kill") if isinstance(found, dict) else None
            if isinstance(standing, dict):
                named["kill"] = (standing.get("id"),)
        return named

    def _renamed(self, node: Any, named: Mapping[str, tuple[object, ...]]) -> Any:
        if isinstance(node, dict):
            return {
                name: self._random.choice(named[name])
                if name in named and not isinstance(value, dict | list) and self._chance(0.8)
                else self._renamed(value, named)
                for name, value in node.items()
            }
        if isinstance(node, list):
            return [self._renamed(item, named) for item in node]
        return node

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


def learn(world: World, operation: Operation, place: Mapping[str, str], document: Any) -> None:
    """Note what an answer has made, for the cases to come."""
    if not isinstance(document, dict):
        return
    made = document.get("id")
    for name in ("rollout", "deployment", "token"):
        starts = {"rollout": "start_rollout", "deployment": "register_deployment"}
        if operation.name == starts.get(name) and isinstance(made, str):
            world.places.append({**place, name: made})
    if operation.name == "list_evidence":
        for item in document.get("items", ()):
            world.places.append({**place, "evidence": item["id"]})
    if operation.name == "create_flag":
        key = document["key"]
        world.places += [{"flag": key}, {"flag": key, "environment": "production", "version": "1"}]
    if operation.name == "create_token":
        world.secrets.add(document["text"])
        world.places.append({"token": made})
    if operation.name == "renew_hook_secret":
        world.hook_secrets[place["environment"]] = document["secret"]
        world.secrets.add(document["secret"])


def _encoded(text: str) -> str:
    """Return a path segment as it is sent: schemathesis has encoded most of it already."""
    return quote(text, safe="%") or "%20"


def _latin(value: Any) -> str:
    """Return a header's value as HTTP carries it.

    Raises:
        UnicodeError: it can't.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    text.encode("latin-1")
    return text
