"""OpenFeature's SDK with its in-memory provider: the price of the standard's own machinery.

It has no percentages, so the flags decide by a function each, the same as this project's floors.
It records nothing, so recording or not it is the same.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from mmh3 import hash as murmur3
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from benchmarks.peers import workload
from benchmarks.peers.workload import CHECKOUT, PRICING, User

_ON = FlagResolutionDetails(value=True, reason=Reason.SPLIT, variant="on")
_OFF = FlagResolutionDetails(value=False, reason=Reason.SPLIT, variant="off")

Decision = Callable[[InMemoryFlag[bool], EvaluationContext], FlagResolutionDetails[bool]]


def _share(key: str, share: float) -> Decision:
    threshold = round(share * 2**32)

    def decide(_flag: object, context: EvaluationContext) -> FlagResolutionDetails[bool]:
        hashed = murmur3(f"{key}:{context.targeting_key}", 0, False)
        return _ON if hashed < threshold else _OFF

    return decide


def _pricing() -> Decision:
    others = _share(PRICING, workload.PRICING_SHARE)

    def decide(flag: InMemoryFlag[bool], context: EvaluationContext) -> FlagResolutionDetails[bool]:
        attributes: Any = context.attributes
        if attributes["country"] in workload.COUNTRIES:
            return _ON
        if attributes["plan"] == workload.PLAN:
            major, minor, patch = attributes["version"].split(".")
            if (int(major), int(minor), int(patch)) >= workload.VERSION:
                return _ON
        return others(flag, context)

    return decide


def _flag(decide: Decision) -> InMemoryFlag[bool]:
    return InMemoryFlag("off", {"on": True, "off": False}, context_evaluator=decide)


class OpenFeatureInMemory:
    package = f"openfeature-sdk {version('openfeature-sdk')}"
    records = ""

    def __init__(self) -> None:
        checkout = _flag(_share(CHECKOUT, workload.CHECKOUT_SHARE))
        api.set_provider_and_wait(
            InMemoryProvider({CHECKOUT: checkout, PRICING: _flag(_pricing())})
        )
        self._client = api.get_client()

    def prepared(self, user: User) -> EvaluationContext:
        return EvaluationContext(user["id"], {k: user[k] for k in user if k != "id"})

    def is_on(self, key: str, form: Any) -> object:
        return self._client.get_boolean_value(key, False, form)

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        get_boolean_value = self._client.get_boolean_value
        for form in forms:
            for key in keys:
                get_boolean_value(key, False, form)

    def close(self) -> None:
        api.shutdown()


def open_contender(is_recording: bool, sink: str) -> OpenFeatureInMemory:
    return OpenFeatureInMemory()
