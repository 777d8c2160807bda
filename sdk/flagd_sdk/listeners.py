"""Whom to tell of something: the application's own functions, which may do and raise anything."""

from collections.abc import Callable
from typing import Generic, TypeVar

from flagd_sdk.notices import Notices

Event = TypeVar("Event")


class Listeners(Generic[Event]):
    """Functions that are called with each event, in the order in which they came.

    Thread-safe without a lock, which a fork could leave taken: each step is one operation on a
    dict.
    """

    __slots__ = ("_kind", "_listeners", "_notices")

    def __init__(self, notices: Notices, kind: str) -> None:
        """Begin with none; `kind` names them in the log."""
        self._notices = notices
        self._kind = kind
        self._listeners: dict[object, Callable[[Event], object]] = {}

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call a listener from now on; the callable returned ends that."""
        # Not the listener, which may be given twice.
        subscription = object()
        self._listeners[subscription] = listener

        def remove() -> None:
            self._listeners.pop(subscription, None)

        return remove

    def tell(self, event: Event) -> None:
        """Call each listener; what one raises is logged and keeps none of the others."""
        for listener in tuple(self._listeners.values()):
            try:
                listener(event)
            except Exception:  # the host's code, called by us
                name = getattr(listener, "__qualname__", type(listener).__name__)
                self._notices.crash(
                    f"listener:{name}", "The %s listener %s raised", self._kind, name
                )
