"""Unleash (`UnleashClient`), whose evaluation is compiled Rust; its flags from its bootstrap.

It counts evaluations in its engine whatever it is told; recording, it reports them too.
"""

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from UnleashClient import UnleashClient
from UnleashClient.cache import FileCache

from benchmarks.peers import workload
from benchmarks.peers.workload import CHECKOUT, PRICING, User


def _strategy(key: str, share: float, *constraints: dict[str, Any]) -> dict[str, Any]:
    parameters = {"rollout": f"{share:.0%}"[:-1], "stickiness": "userId", "groupId": key}
    return {
        "name": "flexibleRollout",
        "parameters": parameters,
        "constraints": list(constraints),
    }


def _flag(key: str, *strategies: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": key,
        "type": "release",
        "enabled": True,
        "impressionData": False,
        "strategies": list(strategies),
        "variants": [],
    }


def _features() -> dict[str, Any]:
    country = {
        "contextName": "country",
        "operator": "IN",
        "values": list(workload.COUNTRIES),
    }
    plan = {"contextName": "plan", "operator": "IN", "values": [workload.PLAN]}
    version_from = {
        "contextName": "version",
        "operator": "SEMVER_LT",
        "value": workload.VERSION_TEXT,
        "inverted": True,
    }
    return {
        "version": 2,
        "features": [
            _flag(CHECKOUT, _strategy(CHECKOUT, workload.CHECKOUT_SHARE)),
            _flag(
                PRICING,
                _strategy(PRICING, 1.0, country),
                _strategy(PRICING, 1.0, plan, version_from),
                _strategy(PRICING, workload.PRICING_SHARE),
            ),
        ],
    }


class Unleash:
    package = f"UnleashClient {version('UnleashClient')}"

    def __init__(self, is_recording: bool, sink: str) -> None:
        self.records = "counts a flag, to its server" if is_recording else "counts a flag"
        self._folder = tempfile.TemporaryDirectory()
        cache = FileCache("peers", directory=self._folder.name)
        cache.bootstrap_from_dict(_features())
        self._client = UnleashClient(
            sink, "peers", cache=cache, disable_metrics=not is_recording, disable_registration=True
        )
        self._client.initialize_client(fetch_toggles=False)

    def prepared(self, user: User) -> dict[str, Any]:
        return {"userId": user["id"], "properties": {k: user[k] for k in user if k != "id"}}

    def is_on(self, key: str, form: Any) -> object:
        return self._client.is_enabled(key, form)

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        is_enabled = self._client.is_enabled
        for form in forms:
            for key in keys:
                is_enabled(key, form)

    def close(self) -> None:
        self._client.destroy()
        self._folder.cleanup()


def open_contender(is_recording: bool, sink: str) -> Unleash:
    return Unleash(is_recording, sink)
