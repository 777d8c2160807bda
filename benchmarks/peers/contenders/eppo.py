"""Eppo (`eppo-server-sdk`), whose evaluation is compiled Rust.

Its client hands each assignment to a logger of the application's, which here queues it for
delivery, as its manual's loggers do. Not recording, the flags say that nothing is to be logged.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import eppo_client

from benchmarks.peers import workload
from benchmarks.peers.delivery import Delivery
from benchmarks.peers.workload import CHECKOUT, PRICING, User

_SHARDS = 10_000


class _Logger(eppo_client.AssignmentLogger):  # type: ignore[misc]
    def __init__(self, delivery: Delivery) -> None:
        self._add = delivery.add

    def log_assignment(self, event: object) -> None:
        self._add(event)


def _split(variant: str, key: str, begin: float, end: float) -> dict[str, Any]:
    ranges = [{"start": round(begin * _SHARDS), "end": round(end * _SHARDS)}]
    return {"variationKey": variant, "shards": [{"salt": key, "ranges": ranges}]}


def _condition(attribute: str, operator: str, value: object) -> dict[str, Any]:
    return {"attribute": attribute, "operator": operator, "value": value}


def _flag(key: str, share: float, do_log: bool, rules: list[dict[str, Any]]) -> dict[str, Any]:
    allocations: list[dict[str, Any]] = [
        {
            "key": "share",
            "rules": [],
            "splits": [
                _split("on", key, 0.0, share),
                _split("off", key, share, 1.0),
            ],
            "doLog": do_log,
        },
    ]
    if rules:
        everyone = [{"variationKey": "on", "shards": []}]
        allocations.insert(
            0, {"key": "targeted", "rules": rules, "splits": everyone, "doLog": do_log}
        )
    return {
        "key": key,
        "enabled": True,
        "variationType": "BOOLEAN",
        "variations": {"on": {"key": "on", "value": True}, "off": {"key": "off", "value": False}},
        "allocations": allocations,
        "totalShards": _SHARDS,
    }


def _configuration(do_log: bool) -> bytes:
    rules = [
        {"conditions": [_condition("country", "ONE_OF", list(workload.COUNTRIES))]},
        {
            "conditions": [
                _condition("plan", "ONE_OF", [workload.PLAN]),
                _condition("version", "GTE", workload.VERSION_TEXT),
            ]
        },
    ]
    document = {
        "createdAt": "2026-01-01T00:00:00.000Z",
        "format": "SERVER",
        "environment": {"name": "production"},
        "flags": {
            CHECKOUT: _flag(CHECKOUT, workload.CHECKOUT_SHARE, do_log, []),
            PRICING: _flag(PRICING, workload.PRICING_SHARE, do_log, rules),
        },
    }
    return json.dumps(document).encode()


class Eppo:
    package = f"eppo-server-sdk {version('eppo-server-sdk')}"

    def __init__(self, is_recording: bool, sink: str) -> None:
        self.records = "an event an evaluation, delivered" if is_recording else ""
        self._delivery = Delivery(sink)
        self._client = eppo_client.init(
            eppo_client.ClientConfig(
                api_key="none",
                base_url=sink,
                assignment_logger=_Logger(self._delivery),
                poll_interval_seconds=None,
                initial_configuration=eppo_client.Configuration(
                    flags_configuration=_configuration(is_recording)
                ),
            )
        )

    def prepared(self, user: User) -> tuple[str, dict[str, str]]:
        return user["id"], dict(user)

    def is_on(self, key: str, form: Any) -> object:
        return self._client.get_boolean_assignment(key, form[0], form[1], False)

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        assignment = self._client.get_boolean_assignment
        for user, attributes in forms:
            for key in keys:
                assignment(key, user, attributes, False)

    def close(self) -> None:
        self._client.shutdown()
        self._delivery.close()


def open_contender(is_recording: bool, sink: str) -> Eppo:
    return Eppo(is_recording, sink)
