"""No client at all: the same decisions written out as two functions. It is nobody's peer, but what
the interpreter itself takes, and what two threads cost it.
"""

from collections.abc import Sequence
from typing import Any

from mmh3 import hash as murmur3

from benchmarks.peers import workload
from benchmarks.peers.workload import CHECKOUT, PRICING, User

_CHECKOUT_BELOW = round(workload.CHECKOUT_SHARE * 2**32)
_PRICING_BELOW = round(workload.PRICING_SHARE * 2**32)
_COUNTRIES = frozenset(workload.COUNTRIES)


def _checkout(user: User) -> bool:
    return murmur3("checkout:" + user["id"], 0, False) < _CHECKOUT_BELOW


def _pricing(user: User) -> bool:
    if user["country"] in _COUNTRIES:
        return True
    if user["plan"] == workload.PLAN:
        major, minor, patch = user["version"].split(".")
        if (int(major), int(minor), int(patch)) >= workload.VERSION:
            return True
    return murmur3("pricing:" + user["id"], 0, False) < _PRICING_BELOW


_FLAGS = {CHECKOUT: _checkout, PRICING: _pricing}


class ByHand:
    package = "two functions"
    records = ""

    def prepared(self, user: User) -> dict[str, str]:
        return dict(user)

    def is_on(self, key: str, form: Any) -> object:
        return _FLAGS[key](form)

    def ask_all(self, keys: Sequence[str], forms: Sequence[Any]) -> None:
        for form in forms:
            for key in keys:
                _FLAGS[key](form)

    def close(self) -> None:
        pass


def open_contender(is_recording: bool, sink: str) -> ByHand:
    return ByHand()
