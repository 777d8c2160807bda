"""Sentry: an error carries the flags that were served in the unit of work in which it happened.

flags = FlagClient(…)
sentry_sdk.init(…, integrations=[FlagdIntegration(flags)])

They are read when Sentry captures an event, so evaluations cost nothing. Where an error is captured
after its unit of work has ended, as by a middleware around the one that opened it, they come with
the exception.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.scope import add_global_event_processor
from sentry_sdk.types import Event, Hint

from flagd_sdk.client import FlagClient
from flagd_sdk.core.model import Resolution
from flagd_sdk.scope import Scope, current_scope

# As many as Sentry's own integrations send, which keep the last.
_MAX_FLAGS = 100
# Of exceptions that led to one another.
_MAX_CHAIN = 20
# Where an exception keeps what was served in the units of work that it was raised in.
_SERVED: Final = "__flagd_served__"
# Sentry has words for neither variants nor values that are no booleans.
_VARIANTS: Final = "flag variants"


class FlagdIntegration(Integration):
    """Adds what a client has served to errors: Sentry's feature flags, and a context of variants.

    Of nested units of work all count, the innermost first where they differ.
    """

    identifier = "flagd_release"

    def __init__(self, flags: FlagClient) -> None:
        """Take the client whose flags are told."""
        self._flags = flags
        flags._engine.on_failure = _keep_on

    @staticmethod
    def setup_once() -> None:
        """Hook into Sentry; it calls this once a process."""
        add_global_event_processor(_add_flags)

    def served(self, error: BaseException | None) -> dict[str, Resolution]:
        """Return what was served where this is called, and where an error was raised."""
        found: dict[str, Resolution] = {}
        for owner, served in (*_open_units(current_scope.get()), *_kept_units(error)):
            if owner is self._flags._engine:
                # A copy, as another thread may still add to it.
                found = {**served.copy(), **found}
        return found


# The client's engine and what was served, of each unit of work, the innermost first.
_Units: TypeAlias = tuple[tuple[object, dict[str, Resolution]], ...]


class _Kept:
    """What an exception keeps of the units of work in which it was raised."""

    __slots__ = ("units",)

    def __init__(self, units: _Units) -> None:
        self.units = units

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # Exceptions are pickled with all that is on them, as by Celery and multiprocessing.
        return type(None), ()


def _open_units(scope: Scope | None) -> _Units:
    units = []
    while scope is not None:
        units.append((scope.owner, scope.served))
        scope = scope.outer
    return tuple(units)


def _keep_on(scope: Scope, error: BaseException) -> None:
    """Note on an exception what was served where it was raised. Never raises."""
    try:
        kept = getattr(error, _SERVED, None)
        if isinstance(kept, _Kept) and any(served is scope.served for _, served in kept.units):
            return  # on its way outwards
        # Not by a method of its class, which may forbid it.
        BaseException.__setattr__(error, _SERVED, _Kept(_open_units(scope)))
    except Exception:  # noqa: S110 - a class that can do without attributes: no flags are told
        pass


def _kept_units(error: BaseException | None) -> Iterator[tuple[object, dict[str, Resolution]]]:
    for _ in range(_MAX_CHAIN):
        if error is None:
            return
        kept = getattr(error, _SERVED, None)
        if isinstance(kept, _Kept):
            yield from kept.units
        error = error.__cause__ or error.__context__


def _add_flags(event: Event, hint: Hint) -> Event:
    integration = sentry_sdk.get_client().get_integration(FlagdIntegration)
    # Errors have no type.
    if not isinstance(integration, FlagdIntegration) or event.get("type") is not None:
        return event
    error = (hint.get("exc_info") or (None, None))[1]
    served = integration.served(error)
    if not served:
        return event
    contexts: dict[str, Any] = event.setdefault("contexts", {})
    booleans = {key: each.value for key, each in served.items() if type(each.value) is bool}
    if booleans:
        flags = contexts.setdefault("flags", {})
        # Those that the application told Sentry of itself.
        told = {item["flag"]: item["result"] for item in flags.get("values", ())}
        told = {key: told[key] for key in told if key not in booleans} | booleans
        flags["values"] = [{"flag": key, "result": told[key]} for key in _last(told)]
    contexts[_VARIANTS] = {key: served[key].variant for key in _last(served)}
    return event


def _last(keys: Iterable[str]) -> list[str]:
    return list(keys)[-_MAX_FLAGS:]
