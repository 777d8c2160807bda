"""GrowthBook (`growthbook`): one client, to which each request gives its user's attributes.

The share is an experiment, which is what it tracks. Recording, its callback queues what it is told
for delivery; not recording, there is no callback, as by default.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from growthbook import GrowthBook as Client

from benchmarks.peers import workload
from benchmarks.peers.delivery import Delivery
from benchmarks.peers.workload import CHECKOUT, PRICING, User


def _flag(key: str, share: float, *rules: dict[str, Any]) -> dict[str, Any]:
    experiment = {
        "key": key,
        "seed": key,
        "hashAttribute": "id",
        "hashVersion": 2,
        "variations": [False, True],
        "weights": [1.0 - share, share],
        "coverage": 1.0,
    }
    return {"defaultValue": False, "rules": [*rules, experiment]}


def _features() -> dict[str, Any]:
    country = {"condition": {"country": {"$in": list(workload.COUNTRIES)}}, "force": True}
    pro = {
        "condition": {"plan": workload.PLAN, "version": {"$vgte": workload.VERSION_TEXT}},
        "force": True,
    }
    return {
        CHECKOUT: _flag(CHECKOUT, workload.CHECKOUT_SHARE),
        PRICING: _flag(PRICING, workload.PRICING_SHARE, country, pro),
    }


class GrowthBook:
    package = f"growthbook {version('growthbook')}"

    def __init__(self, is_recording: bool, sink: str) -> None:
        self.records = "an event an experiment and user, delivered" if is_recording else ""
        self._delivery = Delivery(sink)
        callback = self._track if is_recording else None
        self._client = Client(features=_features(), on_experiment_viewed=callback)

    def _track(self, experiment: Any, result: Any, user: Any) -> None:
        self._delivery.add((experiment.key, result.variationId, user.attributes))

    def prepared(self, user: User) -> dict[str, str]:
        return dict(user)

    def is_on(self, key: str, form: Any) -> object:
        self._client.set_attributes(form)
        return self._client.is_on(key)

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        set_attributes, is_on = self._client.set_attributes, self._client.is_on
        for form in forms:
            set_attributes(form)
            for key in keys:
                is_on(key)

    def close(self) -> None:
        self._client.destroy()
        self._delivery.close()


def open_contender(is_recording: bool, sink: str) -> GrowthBook:
    return GrowthBook(is_recording, sink)
