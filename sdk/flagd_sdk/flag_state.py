"""What this process knows of the flags: one immutable flag set, swapped by a single assignment.

Readers take `FlagState.flag_set` without a lock. Only the stream thread applies changes.
"""

import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from flagd_sdk.core.evaluator import EMPTY_FLAG_SET, FlagSet
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.errors import ParseError
from flagd_sdk.notices import Notices


class ClientStatus(StrEnum):
    """How far the values can be trusted, in OpenFeature's words for a provider's status."""

    NOT_READY = "NOT_READY"  # nothing is known: callers get their defaults
    READY = "READY"  # in touch with the server
    STALE = "STALE"  # values are known, but the server is out of reach
    ERROR = "ERROR"  # nothing is known, and the server refuses the token


class FlagsChanged(NamedTuple):
    """Tells a listener which flags changed, and as of which sequence."""

    keys: frozenset[str]
    sequence: int


Listener = Callable[[FlagsChanged], object]


class FlagState:
    """Holds the flag set and the rule that an older one never replaces a newer one."""

    def __init__(self, notices: Notices) -> None:
        """Begin empty."""
        self.flag_set: FlagSet = EMPTY_FLAG_SET
        # Called when the server should hear at once what was applied: the first flag set, or a
        # kill. Must not block.
        self.on_urgent: Callable[[], None] = lambda: None
        self.status = ClientStatus.NOT_READY
        self.document: dict[str, Any] | None = None  # of `flag_set`, for the disk
        # A bootstrap is of unknown age: any word of the server replaces it.
        self.is_from_server = False
        # The server was put back to an older state than the one held, as from a backup. Its next
        # change is newer than both, but says nothing of where else the two differ.
        self.is_diverged = False
        self._notices = notices
        self._ready = threading.Event()
        self._lock = threading.Lock()  # guards _listeners
        self._listeners: tuple[list[Listener], ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether the server's flag set was applied in this process."""
        return self._ready.is_set()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait for the first flag set from the server."""
        return self._ready.wait(timeout_s)

    def preload(self, document: object, is_from_server: bool) -> None:
        """Serve what disk or bootstrap hold until the server answers.

        Raises:
            ParseError: the document is no flag set.
        """
        self.flag_set = parse_flag_set(document)
        self.document = dict(document) if isinstance(document, Mapping) else None
        self.is_from_server = is_from_server
        self.status = ClientStatus.STALE

    def apply_flags(self, document: object) -> None:
        """Take over a whole flag set from the server, unless it is older than the one held.

        Raises:
            ParseError: it can't be read; nothing of it is used.
        """
        parsed = parse_flag_set(document)
        assert isinstance(document, dict)  # else it would not have been parsed
        held = self.flag_set
        if self.is_from_server and parsed.sequence < held.sequence:
            self._notices.tell(
                "state:older",
                "The server offered flags of sequence %d; %d is held and stays",
                parsed.sequence,
                held.sequence,
            )
            self.is_diverged = True
            self._connected()
            return
        self.is_diverged = False
        changed = _changed_keys(self.document, document)
        self.document = document
        self.is_from_server = True
        self._swap(parsed, changed)

    def apply_flag(self, document: object) -> bool:
        """Take over one flag, unless the flag set held is as new already; return whether it was.

        Raises:
            ParseError: the change can't be read, or there is no flag set that it belongs to.
        """
        if (
            not isinstance(document, dict)
            or type(sequence := document.get("sequence")) is not int
            or not isinstance(key := document.get("key"), str)
            or "flag" not in document
        ):
            raise ParseError("a flag's change: expected sequence, key and flag")
        if not self.is_from_server or self.document is None:
            raise ParseError("a flag's change came before the flag set that it belongs to")
        if sequence <= self.flag_set.sequence:
            return False
        flag = document["flag"]
        changed = self.flag_set.with_flag(sequence, key, flag)
        flags = dict(self.document["flags"])
        if flag is None:
            flags.pop(key, None)
        else:
            flags[key] = flag
        self.document = {**self.document, "sequence": sequence, "flags": flags}
        self._swap(changed, frozenset((key,)))
        return True

    def confirm(self) -> None:
        """Note that the server is in reach and what is held is current."""
        self._connected()

    def lose_touch(self, is_refused: bool) -> None:
        """Note that the server is out of reach, or refuses the token."""
        if self.flag_set is not EMPTY_FLAG_SET:
            self.status = ClientStatus.STALE
        else:
            self.status = ClientStatus.ERROR if is_refused else ClientStatus.NOT_READY

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call a listener after each change; the callable returned ends that."""
        # A list of one is told from another: the same listener may be given twice.
        subscription = [listener]
        with self._lock:
            self._listeners = (*self._listeners, subscription)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(
                    known for known in self._listeners if known is not subscription
                )

        return unsubscribe

    def after_fork(self) -> None:
        """Replace, in a child process, what another thread may have held in the parent."""
        was_ready = self._ready.is_set()
        self._ready = threading.Event()
        if was_ready:
            self._ready.set()
        self._lock = threading.Lock()

    def _swap(self, flag_set: FlagSet, changed: frozenset[str]) -> None:
        held, self.flag_set = self.flag_set, flag_set
        is_first = not self._ready.is_set()
        self._connected()
        if is_first or _has_new_kill(held, flag_set, changed):
            self.on_urgent()
        for key in changed & flag_set.faults.keys():
            self._notices.tell(
                f"flag:{key}", "Flag %s can't be evaluated: %s", key, flag_set.faults[key]
            )
        if changed:
            event = FlagsChanged(changed, flag_set.sequence)
            for (listener,) in self._listeners:
                try:
                    listener(event)
                except Exception:  # the host's code, on our thread
                    name = getattr(listener, "__qualname__", type(listener).__name__)
                    self._notices.crash(f"listener:{name}", "The change listener %s raised", name)

    def _connected(self) -> None:
        self.status = ClientStatus.READY
        self._ready.set()


def _changed_keys(held: dict[str, Any] | None, new: dict[str, Any]) -> frozenset[str]:
    flags: dict[str, Any] = new["flags"]
    if held is None:
        return frozenset(flags)
    before: dict[str, Any] = held["flags"]
    if held.get("segments") != new.get("segments"):
        return frozenset(before.keys() | flags.keys())
    return frozenset(
        key for key in before.keys() | flags.keys() if before.get(key) != flags.get(key)
    )


def _has_new_kill(held: FlagSet, new: FlagSet, changed: frozenset[str]) -> bool:
    for key in changed:
        flag, before = new.flags.get(key), held.flags.get(key)
        if flag is not None and flag.killed and not (before is not None and before.killed):
            return True
    return False
