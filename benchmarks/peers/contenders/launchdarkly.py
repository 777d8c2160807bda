"""LaunchDarkly (`launchdarkly-server-sdk`), its flags put into its own store in memory.

Recording, events go through its processor to the sink, as by default.
"""

from collections.abc import Sequence
from importlib.metadata import version
from threading import Event
from typing import Any

from ldclient import Config, Context, LDClient
from ldclient.interfaces import FeatureStore, UpdateProcessor
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

from benchmarks.peers import workload
from benchmarks.peers.workload import CHECKOUT, PRICING, User

_ON, _OFF = 0, 1


def _clause(attribute: str, operator: str, values: list[str]) -> dict[str, Any]:
    return {"contextKind": "user", "attribute": attribute, "op": operator, "values": values}


def _rule(name: str, *clauses: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "variation": _ON, "clauses": list(clauses)}


def _flag(key: str, share: float, rules: list[dict[str, Any]]) -> dict[str, Any]:
    on = round(share * 100_000)
    variations = [{"variation": _ON, "weight": on}, {"variation": _OFF, "weight": 100_000 - on}]
    return {
        "key": key,
        "version": 1,
        "on": True,
        "salt": key,
        "variations": [True, False],
        "offVariation": _OFF,
        "fallthrough": {"rollout": {"contextKind": "user", "variations": variations}},
        "rules": rules,
        "targets": [],
        "prerequisites": [],
    }


def _flags() -> dict[str, Any]:
    rules = [
        _rule("country", _clause("country", "in", list(workload.COUNTRIES))),
        _rule(
            "pro",
            _clause("plan", "in", [workload.PLAN]),
            _clause("version", "semVerLessThan", [workload.VERSION_TEXT]) | {"negate": True},
        ),
    ]
    return {
        CHECKOUT: _flag(CHECKOUT, workload.CHECKOUT_SHARE, []),
        PRICING: _flag(PRICING, workload.PRICING_SHARE, rules),
    }


class _Given(UpdateProcessor):  # type: ignore[misc]
    """Puts the flags into the store, where the real one would ask the service for them."""

    def __init__(self, config: object, store: FeatureStore, ready: Event) -> None:
        self._store = store
        self._ready = ready

    def start(self) -> None:
        self._store.init({FEATURES: _flags(), SEGMENTS: {}})
        self._ready.set()

    def stop(self) -> None:
        pass

    def initialized(self) -> bool:
        return True


class LaunchDarkly:
    package = f"launchdarkly-server-sdk {version('launchdarkly-server-sdk')}"

    def __init__(self, is_recording: bool, sink: str) -> None:
        self.records = "summaries and contexts, to its service" if is_recording else ""
        self._client = LDClient(
            Config(
                "none",
                base_uri=sink,
                events_uri=sink,
                stream_uri=sink,
                update_processor_class=_Given,
                send_events=is_recording,
            )
        )

    def prepared(self, user: User) -> Context:
        builder = Context.builder(user["id"])
        for name in ("country", "plan", "version"):
            builder.set(name, user[name])
        return builder.build()

    def is_on(self, key: str, form: Any) -> object:
        return self._client.variation(key, form, False)

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        variation = self._client.variation
        for form in forms:
            for key in keys:
                variation(key, form, False)

    def close(self) -> None:
        self._client.close()


def open_contender(is_recording: bool, sink: str) -> LaunchDarkly:
    return LaunchDarkly(is_recording, sink)
