"""What this process knows of the flags: one immutable flag set, swapped by a single assignment.

Readers take `FlagState.flag_set` without a lock. Only the stream thread applies what the server
says; any thread may take a flag off by this process's own evidence.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Final, NamedTuple

from flagd_sdk.core.evaluator import EMPTY_FLAG_SET, FlagSet
from flagd_sdk.core.local_kill import MAX_LOCAL_KILLS, LocalKill
from flagd_sdk.core.parsing import parse_flag_set, read_sequence
from flagd_sdk.core.types import ContextMapping, Evaluation, ResolutionDetails, shown
from flagd_sdk.errors import ParseError
from flagd_sdk.listeners import Listeners
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
StatusListener = Callable[[ClientStatus], object]

# Whether a listener of evaluations runs: what it evaluates itself is not told, lest it hear of that
# for ever.
_is_telling: Final[ContextVar[bool]] = ContextVar("flagd_telling", default=False)


class FlagState:
    """Holds the flag set and the rule that an older one never replaces a newer one.

    Attributes:
        flag_set: in use: what the server said, less what is held off here.
        document: what the server said, for the disk.
        local_kills: flag → what holds it off in this process; replaced as a whole.
        lifted: ids of local kills that the server has ended.
    """

    def __init__(self, notices: Notices, environment: str | None = None) -> None:
        """Begin empty.

        Args:
            environment: the one that the server's flags must be of; by default that of the first.
        """
        self.flag_set: FlagSet = EMPTY_FLAG_SET
        # Called when the server should hear at once what was applied: the first flag set, or a
        # kill. Must not block.
        self.on_urgent: Callable[[], None] = lambda: None
        self.status = ClientStatus.NOT_READY
        self.document: dict[str, Any] | None = None
        self.local_kills: Mapping[str, LocalKill] = {}
        self.lifted: deque[str] = deque(maxlen=MAX_LOCAL_KILLS)
        # Called with flags that the server holds off: their evidence is of the past.
        self.on_killed: Callable[[Iterable[str]], None] = lambda flags: None
        # A bootstrap is of unknown age: any word of the server replaces it.
        self.is_from_server = False
        # The server was put back to an older state than the one held, as from a backup. Its next
        # change is newer than both, but says nothing of where else the two differ.
        self.is_diverged = False
        # A change was taken over nonetheless, since it may be a kill. What is held then has the
        # server's sequence and not its flags, so it is nothing to begin with another time.
        self.is_mixed = False
        self._notices = notices
        self._environment = environment
        self._ready = threading.Event()
        self.change_listeners: Listeners[FlagsChanged] = Listeners(notices, "change")
        # Told the status after each word of the server, and each failed attempt to hear one.
        self.status_listeners: Listeners[ClientStatus] = Listeners(notices, "status")
        self.evaluation_listeners: Listeners[Evaluation] = Listeners(notices, "evaluation")
        # Guards the change of flag_set, document and local_kills together; no code of the host and
        # no parsing of a flag set runs under it. A signal handler may use flags while it is held.
        self._writing = threading.RLock()
        self._untold: deque[LocalKill | str] = deque()

    @property
    def is_ready(self) -> bool:
        """Whether the server's flag set was applied in this process."""
        return self._ready.is_set()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait for the first flag set from the server."""
        return self._ready.wait(timeout_s)

    def preload(
        self, document: object, is_from_server: bool, kills: Iterable[LocalKill] = ()
    ) -> None:
        """Serve what disk or bootstrap hold until the server answers.

        Args:
            kills: what held flags off here when it was kept.

        Raises:
            ParseError: the document is no flag set.
        """
        parsed = parse_flag_set(document)
        if is_from_server:
            self._require_environment(parsed)
        self._hold(parsed)
        self.document = dict(document) if isinstance(document, Mapping) else None
        self.is_from_server = is_from_server
        for kill in kills:
            self._hold_off(kill)
        self.status = ClientStatus.STALE

    def apply_flags(self, document: object) -> None:
        """Take over a whole flag set from the server, unless it is older than the one held.

        Raises:
            ParseError: it can't be read; nothing of it is used.
        """
        parsed = parse_flag_set(document)
        assert isinstance(document, dict)  # else it would not have been parsed
        self._require_environment(parsed)
        held = self.flag_set
        if self.is_from_server and parsed.sequence < held.sequence:
            self._notices.tell(
                "state:older",
                "The server offered flags of sequence %d; %d is held and stays",
                parsed.sequence,
                held.sequence,
            )
            self.is_diverged = True
            self.confirm()
            return
        changed = _changed_keys(self.document, document)
        self.is_from_server = True
        self._swap(document, parsed, changed)
        self.is_diverged = self.is_mixed = False

    def apply_flag(self, document: object) -> bool:
        """Take over one flag, unless the flag set held is as new already; return whether it was.

        Raises:
            ParseError: the change can't be read, or there is no flag set that it belongs to.
        """
        if (
            not isinstance(document, dict)
            or not isinstance(key := document.get("key"), str)
            or "flag" not in document
        ):
            raise ParseError("a flag's change: expected sequence, key and flag")
        sequence = read_sequence(document)
        if not self.is_from_server or self.document is None:
            raise ParseError("a flag's change came before the flag set that it belongs to")
        if sequence <= self.flag_set.sequence:
            return False
        flag = document["flag"]
        flags = dict(self.document["flags"])
        if flag is None:
            flags.pop(key, None)
        else:
            flags[key] = flag
        held = {**self.document, "sequence": sequence, "flags": flags}
        self.is_mixed = self.is_diverged
        self._swap(held, None, frozenset((key,)))
        return True

    def kill_locally(self, kill: LocalKill) -> bool:
        """Take a flag off in this process; return whether that changed anything.

        Scopes that begin from now on see it; `tell_local` says so to everybody else.
        """
        with self._writing:
            is_new = self._hold_off(kill)
        if is_new:
            self._untold.append(kill)
        return is_new

    def lift(self, ids: Collection[str]) -> bool:
        """End local kills by the server's word; return whether one of them stood."""
        with self._writing:
            self.lifted.extend(each for each in ids if each not in self.lifted)
            held = self.local_kills
            self.local_kills = {flag: kill for flag, kill in held.items() if kill.id not in ids}
            ended = held.keys() - self.local_kills.keys()
            for flag in ended:
                self._hold(self._with(self.flag_set, flag))
        self._untold.extend(ended)
        return bool(ended)

    def tell_local(self) -> None:
        """Log and tell listeners what has changed by local kills; for a thread of ours."""
        while self._untold:
            news = self._untold.popleft()
            if isinstance(news, str):
                self._notices.mention(f"lifted:{news}", "Flag %s is no longer held off here", news)
                self._tell(frozenset((news,)))
                continue
            self._notices.tell(
                f"local-kill:{news.flag}",
                "Flag %s is off in this process by its own errors: %s",
                news.flag,
                news.reason,
            )
            self._tell(frozenset((news.flag,)))

    def confirm(self) -> None:
        """Note that the server is in reach and what is held is current."""
        self._connected()
        self.status_listeners.tell(ClientStatus.READY)

    def lose_touch(self, is_refused: bool) -> None:
        """Note that the server is out of reach, or refuses the token."""
        if self.flag_set is not EMPTY_FLAG_SET:
            self.status = ClientStatus.STALE
        else:
            self.status = ClientStatus.ERROR if is_refused else ClientStatus.NOT_READY
        self.status_listeners.tell(self.status)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call a listener after each change; the callable returned ends that."""
        return self.change_listeners.add(listener)

    def hear(self, listener: Callable[[Evaluation], object]) -> Callable[[], None]:
        """Have a listener told of evaluations; the callable returned ends that."""
        remove = self.evaluation_listeners.add(listener)
        self.flag_set.be_heard()
        return remove

    def tell(
        self, details: ResolutionDetails[Any], context: ContextMapping, flag_set: FlagSet
    ) -> None:
        """Tell the listeners of an evaluation, unless it is one of theirs. Never raises."""
        if not self.evaluation_listeners or _is_telling.get():
            return
        token = _is_telling.set(True)
        try:
            self.evaluation_listeners.tell(Evaluation(details, context, flag_set.environment))
        finally:
            _is_telling.reset(token)

    def after_fork(self) -> None:
        """Replace, in a child process, what another thread may have held in the parent."""
        was_ready = self._ready.is_set()
        self._ready = threading.Event()
        if was_ready:
            self._ready.set()
        self._writing = threading.RLock()
        self._untold = deque()  # the parent tells
        # The fork may have come between the two that belong together.
        if self.document is not None and self.document["sequence"] == self.flag_set.sequence:
            for key in self.local_kills:
                self.flag_set = self._with(self.flag_set, key)

    def _hold(self, flag_set: FlagSet) -> None:
        # Asked after the assignment: whoever begins to listen now finds this flag set already.
        self.flag_set = flag_set
        if self.evaluation_listeners:
            flag_set.be_heard()

    def _require_environment(self, parsed: FlagSet) -> None:
        # As a cache between the two answers that does not tell tokens apart.
        if self._environment is None:
            self._environment = parsed.environment
        elif parsed.environment != self._environment:
            raise ParseError(
                f"environment: {shown(parsed.environment)}; expected {shown(self._environment)}"
            )

    def _swap(
        self, document: dict[str, Any], parsed: FlagSet | None, changed: frozenset[str]
    ) -> None:
        """Put what the server says in place, less what is held off here.

        Args:
            parsed: the document's flag set; None where only what has changed is to be compiled.
        """
        flags: dict[str, Any] = document["flags"]
        with self._writing:
            before, self.document = self.document, document
            self.local_kills = {
                flag: kill
                for flag, kill in self.local_kills.items()
                if kill.stands_against(flags.get(flag))
            }
            flag_set = self.flag_set if parsed is None else parsed
            for key in changed if parsed is None else self.local_kills:
                flag_set = self._with(flag_set, key)
            self._hold(flag_set)
        killed = {key for key in changed if _is_killed(document, key)}
        is_first = not self._ready.is_set()
        self._connected()
        if killed:
            self.on_killed(killed)
        if is_first or any(not _is_killed(before, key) for key in killed):
            self.on_urgent()
        self.status_listeners.tell(ClientStatus.READY)
        self._tell(changed)

    def _hold_off(self, kill: LocalKill) -> bool:
        """Add a local kill, if it is of the version served; the caller may write."""
        if (
            self.document is None
            or kill.flag in self.local_kills
            or len(self.local_kills) >= MAX_LOCAL_KILLS
            or not kill.stands_against(self.document["flags"].get(kill.flag))
        ):
            return False
        self.local_kills = {**self.local_kills, kill.flag: kill}
        self._hold(self._with(self.flag_set, kill.flag))
        return True

    def _with(self, flag_set: FlagSet, key: str) -> FlagSet:
        """Return a flag set with one flag as the document has it, or as it is held off here."""
        assert self.document is not None
        flag, kill = self.document["flags"].get(key), self.local_kills.get(key)
        served = flag if kill is None else kill.held_off(flag)
        return flag_set.with_flag(self.document["sequence"], key, served)

    def _tell(self, changed: frozenset[str]) -> None:
        flag_set = self.flag_set
        for key in changed & flag_set.faults.keys():
            self._notices.tell(
                f"flag:{key}", "Flag %s can't be evaluated: %s", key, flag_set.faults[key]
            )
        if changed:
            self.change_listeners.tell(FlagsChanged(changed, flag_set.sequence))

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


def _is_killed(document: Mapping[str, Any] | None, key: str) -> bool:
    """Return whether the server holds the flag off."""
    flag = None if document is None else document["flags"].get(key)
    return isinstance(flag, dict) and flag.get("kill") is not None
