"""`openapi.yaml` as something that requests and answers can be held to.

What the server accepted must be a request that the contract allows, and what it answered, errors
included, must be an answer that the contract describes: no other status, header or field.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

PATH = Path(__file__).parents[2] / "openapi.yaml"
METHODS = ("get", "post", "put", "patch", "delete")
_URI = "urn:openapi"


class ContractError(AssertionError):
    """The server and its contract disagree."""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer; header names in lower case."""

    method: str
    path: str
    query: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes | None
    """None where it was not read, since it has no end."""


@dataclass(frozen=True, eq=False)
class Operation:
    method: str
    template: str
    definition: Mapping[str, Any]
    pointer: str
    parameters: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return str(self.definition["operationId"])

    @property
    def scopes(self) -> frozenset[str]:
        """Scopes of tokens of which one is needed; empty where no token would do."""
        return self._named_by("token")

    @property
    def roles(self) -> frozenset[str]:
        """The least role of a person, if one is named; empty otherwise."""
        return self._named_by("session")

    @property
    def is_open(self) -> bool:
        """Whether neither a token nor a session is needed."""
        return not self.definition["security"]

    def _named_by(self, scheme: str) -> frozenset[str]:
        choices = self.definition["security"]
        return frozenset(name for choice in choices for name in choice.get(scheme, ()))

    @property
    def body_example(self) -> Any:
        return self.definition["requestBody"]["content"]["application/json"]["example"]

    @property
    def body_pointer(self) -> str:
        return f"{self.pointer}/requestBody/content/application~1json/schema"

    def path(self) -> str:
        """Return the path with the example of each parameter in it."""
        examples = {
            parameter["name"]: str(parameter["example"])
            for parameter in self.parameters
            if parameter["in"] == "path"
        }
        return self.template.format(**examples)


class Contract:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        resource = Resource(contents=document, specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)
        self._validators: dict[str, Draft202012Validator] = {}
        self.operations = tuple(self._read_operations())

    def check(self, exchange: Exchange) -> None:
        """Raise `ContractError` where the exchange isn't what the contract says."""
        templates = [
            template
            for template in self.document["paths"]
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), exchange.path)
        ]
        if not templates:
            self._check_answer(exchange, self._shared("NotFound", 404))
            return
        candidates = [
            operation
            for operation in self.operations
            if operation.template in templates
            and operation.method == ("get" if exchange.method == "head" else exchange.method)
        ]
        if not candidates:
            self._check_answer(exchange, self._shared("MethodNotAllowed", 405))
            return
        operation = candidates[0]
        self._check_answer(exchange, self._documented(operation, exchange))
        if exchange.status < 400:
            self._check_request(operation, exchange)

    def faults(self, pointer: str, instance: Any) -> list[str]:
        """Return what the schema at the pointer has against the instance."""
        return [
            f"{error.json_path}: {error.message[:300]}"
            for error in self._validator(pointer).iter_errors(instance)
        ]

    def _faults_by_item(self, pointer: str, instance: Any) -> Iterator[tuple[str, str]]:
        """Yield each fault behind the item of a list in the body, `cells[0]`, that it is in."""
        for error in self._validator(pointer).iter_errors(instance):
            item = "".join(
                f"[{step}]" if isinstance(step, int) else step
                for step in list(error.absolute_path)[:2]
            )
            yield item, f"{error.json_path}: {error.message[:300]}"

    def is_allowed(self, pointer: str, instance: Any) -> bool:
        """Return whether there are no faults; cheaper, since it ends at the first."""
        return bool(self._validator(pointer).is_valid(instance))

    def _validator(self, pointer: str) -> Draft202012Validator:
        if pointer not in self._validators:
            self._validators[pointer] = Draft202012Validator(
                {"$ref": f"{_URI}#{pointer}"},
                registry=self._registry,
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
        return self._validators[pointer]

    def resolve(self, node: Any, pointer: str) -> tuple[Any, str]:
        """Follow references; return what is there, and where."""
        while isinstance(node, Mapping) and "$ref" in node:
            pointer = node["$ref"].removeprefix("#")
            node = self.document
            for step in pointer.split("/")[1:]:
                node = node[step.replace("~1", "/").replace("~0", "~")]
        return node, pointer

    def _read_operations(self) -> Iterator[Operation]:
        for template, item in self.document["paths"].items():
            base = "/paths/" + template.replace("~", "~0").replace("/", "~1")
            for method in METHODS:
                if method not in item:
                    continue
                parameters = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                yield Operation(
                    method=method,
                    template=template,
                    definition=item[method],
                    pointer=f"{base}/{method}",
                    parameters=tuple(self.resolve(parameter, "")[0] for parameter in parameters),
                )

    def _shared(self, name: str, status: int) -> tuple[Mapping[str, Any], str, int]:
        return (
            self.document["components"]["responses"][name],
            f"/components/responses/{name}",
            status,
        )

    def _documented(
        self, operation: Operation, exchange: Exchange
    ) -> tuple[Mapping[str, Any], str, int]:
        responses = operation.definition["responses"]
        status = str(exchange.status)
        if status not in responses:
            raise ContractError(
                f"{operation.name} answered {status}, which is not documented: {exchange.body!r}"
            )
        definition, pointer = self.resolve(
            responses[status], f"{operation.pointer}/responses/{status}"
        )
        return definition, pointer, exchange.status

    def _check_answer(
        self, exchange: Exchange, documented: tuple[Mapping[str, Any], str, int]
    ) -> None:
        definition, pointer, status = documented
        where = f"{exchange.method} {exchange.path} → {exchange.status}"
        if exchange.status != status:
            raise ContractError(f"{where}: expected {status}: {exchange.body!r}")
        for name, header in definition.get("headers", {}).items():
            header, at = self.resolve(header, f"{pointer}/headers/{name}")
            value = exchange.headers.get(name.lower())
            if value is None:
                raise ContractError(f"{where}: the header {name} is missing")
            self._hold(f"{at}/schema", value, f"{where}: header {name}")
        content = definition.get("content")
        if content is None:
            if exchange.body:
                raise ContractError(f"{where}: a body where none is documented")
            return
        media_type = exchange.headers.get("content-type", "").partition(";")[0]
        if media_type not in content:
            raise ContractError(f"{where}: {media_type!r}, expected one of {list(content)}")
        if exchange.body is None or exchange.method == "head":
            return
        body: Any = exchange.body.decode()
        if media_type.endswith("json"):
            body = json.loads(body, parse_constant=_refuse_constant)
        escaped = media_type.replace("/", "~1")
        self._hold(f"{pointer}/content/{escaped}/schema", body, where)

    def _check_request(self, operation: Operation, exchange: Exchange) -> None:
        where = f"{operation.name} accepted"
        given = {
            "query": dict(parse_qsl(exchange.query, keep_blank_values=True)),
            "header": exchange.request_headers,
        }
        for index, parameter in enumerate(operation.parameters):
            if parameter["in"] == "path":
                continue
            name = parameter["name"]
            value = given[parameter["in"]].get(
                name.lower() if parameter["in"] == "header" else name
            )
            if value is not None:
                pointer = self._parameter_pointer(operation, index)
                self._hold(f"{pointer}/schema", value, f"{where} {name}")
            elif parameter.get("required"):
                raise ContractError(f"{where} a request without {name}")
        declared = {
            parameter["name"] for parameter in operation.parameters if parameter["in"] == "query"
        }
        # OFREP lets be what it does not describe, and the probes of an orchestrator are its own.
        is_strict = not operation.is_open and "ofrep" not in operation.definition["tags"]
        if is_strict and not given["query"].keys() <= declared:
            raise ContractError(f"{where} the query {exchange.query!r}")
        if "requestBody" in operation.definition and not _is_duplicate(exchange):
            body = json.loads(exchange.request_body)
            refused = _refused_items(exchange)
            faults = [
                fault
                for item, fault in self._faults_by_item(operation.body_pointer, body)
                if item not in refused
            ]
            if faults:
                raise ContractError(f"{where} a body: " + "; ".join(faults[:5]))

    def _parameter_pointer(self, operation: Operation, index: int) -> str:
        item = self.document["paths"][operation.template]
        shared = len(item.get("parameters", ()))
        base = operation.pointer.rpartition("/")[0]
        if index < shared:
            node, pointer = item["parameters"][index], f"{base}/parameters/{index}"
        else:
            node = operation.definition["parameters"][index - shared]
            pointer = f"{operation.pointer}/parameters/{index - shared}"
        return self.resolve(node, pointer)[1]

    def _hold(self, pointer: str, instance: Any, where: str) -> None:
        faults = self.faults(pointer, instance)
        if faults:
            raise ContractError(f"{where}: " + "; ".join(faults[:5]))


def _is_duplicate(exchange: Exchange) -> bool:
    """Whether the answer says that this was taken before, whatever now stands in it."""
    answer = json.loads(exchange.body) if exchange.body else None
    return isinstance(answer, dict) and answer.get("duplicate") is True


def _refused_items(exchange: Exchange) -> frozenset[str]:
    """Return the items of lists in the request that its answer names as left out."""
    answer = json.loads(exchange.body) if exchange.body else None
    refused = answer.get("refused", ()) if isinstance(answer, dict) else ()
    return frozenset(fault["field"].partition("]")[0] + "]" for fault in refused)


def _refuse_constant(name: str) -> Any:
    raise ContractError(f"{name} is no JSON")


@cache
def contract() -> Contract:
    return Contract(yaml.safe_load(PATH.read_text(encoding="utf-8")))
