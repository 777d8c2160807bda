"""This project's client. Recording, it counts an exposure with its outcome and duration."""

from collections.abc import Sequence
from typing import Any

import benchmarks._flags as flags
from benchmarks.peers import workload
from benchmarks.peers.workload import CHECKOUT, PRICING, User
from flagd_sdk.client import FlagClient


def _flag(key: str, share: float, rules: list[dict[str, Any]]) -> dict[str, Any]:
    allocation = [[round(share * 100_000), "on"], [100_000, "off"]]
    split = {"bucket_by": "targetingKey", "salt": key, "allocation": allocation}
    return {**flags.boolean_flag(key), "default_serve": {"split": split}, "rules": rules}


def _rule(name: str, condition: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "condition": condition, "serve": {"variant": "on"}}


def _flag_set() -> dict[str, Any]:
    country = {"attribute": "country", "op": "in", "values": list(workload.COUNTRIES)}
    plan = {"attribute": "plan", "op": "in", "values": [workload.PLAN]}
    version = {"attribute": "version", "op": "semver_gte", "values": [workload.VERSION_TEXT]}
    rules = [_rule("country", country), _rule("pro", {"all": [plan, version]})]
    return flags.flag_set_document(
        [
            _flag(CHECKOUT, workload.CHECKOUT_SHARE, []),
            _flag(PRICING, workload.PRICING_SHARE, rules),
        ]
    )


class FlagdRelease:
    package = "this commit"

    def __init__(self, is_recording: bool, sink: str) -> None:
        # The counts of unscoped evaluations cannot be turned off: they are what "without" records.
        self.records = "exposures, outcomes, durations" if is_recording else "a count a flag"
        self._client = FlagClient(sink, "none", bootstrap=_flag_set(), cache_dir=None)
        self.ask_all = self._in_scopes if is_recording else self._unscoped

    def prepared(self, user: User) -> dict[str, str]:
        return {"targetingKey": user["id"], **user}

    def is_on(self, key: str, form: Any) -> object:
        return self._client.is_enabled(key, context=form)

    def _in_scopes(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        scope, is_enabled = self._client.scope, self._client.is_enabled
        for form in forms:
            with scope(form):
                for key in keys:
                    is_enabled(key)

    def _unscoped(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        is_enabled = self._client.is_enabled
        for form in forms:
            for key in keys:
                is_enabled(key, False, form)

    def close(self) -> None:
        self._client.close()


def open_contender(is_recording: bool, sink: str) -> FlagdRelease:
    return FlagdRelease(is_recording, sink)
