"""Units of work: what was served in one, and how it ended.

The exposure and the outcome of a unit of work are one record, so that they can't be lost apart.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from functools import lru_cache
from time import perf_counter_ns
from types import CodeType, TracebackType
from typing import Final, Protocol, Self

from flagd_sdk.core.bucketing import TARGETING_KEY, unit_of
from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.failure import Failure, error_kind
from flagd_sdk.core.looking import NO_UNITS, Finished, Witness, units_by
from flagd_sdk.core.model import Resolution, Resolver
from flagd_sdk.core.summary import MAX_SAMPLE_CHARACTERS
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices

NO_CONTEXT: Final[ContextMapping] = {}
# For a context that can't be read: sends each evaluation the long way, which tells why.
_NO_RESOLVERS: Final[Mapping[str, Resolver]] = {}
_MAX_FAILURES = 20  # of one unit of work
_MAX_FRAMES = 2_000


class Recorder(Protocol):
    """Where scopes leave what was served in them."""

    finished: deque[Finished]  # of those that did not fail
    batch: int  # so many may wait there before one of them calls `count_finished`
    witnessed: tuple[str, ...] | None  # what their witnesses tell; None where there are none

    def count_finished(self) -> None:
        """Count what waits. Never raises."""
        ...

    def count_failed(self, scope: "Scope", ended_ns: int) -> None:
        """Count one that failed, its exposures together with its failures. Never raises."""
        ...


class ScopeOwner(Protocol):
    """What a scope needs of the client that made it."""

    error_samples: bool
    notices: Notices
    on_failure: "Callable[[Scope, BaseException], object] | None"  # must not raise

    @property
    def state(self) -> FlagState:
        """Where the flag set in use is found."""
        ...

    @property
    def reporter(self) -> Recorder:
        """Where it is left at its end."""
        ...


class Scope:
    """One unit of work: a request, a job, a message. Made by `FlagClient.scope`, used once.

    That sets `owner`, `context` and `began_ns` itself: an `__init__` alone would cost a small scope
    a tenth of its time.

    It is current for the code inside its `with` block: in the thread that entered it and, through
    `contextvars`, in the asyncio tasks and `asyncio.to_thread` calls started there. What still
    runs after the block's end is evaluated as before and counted as unscoped. Of nested scopes
    the innermost is current; each is a unit of its own. Leaving them in another order, as
    suspended generators do, harms nothing.

    Attributes:
        context: what flags are evaluated with; not copied, so it must not change meanwhile.
        served: flag → resolution, each recorded at its first evaluation and handed out again at
            later ones: the memo and the record of exposures in one.
        owner: who made it; None once it has ended.
        flag_set: in use at the beginning, and `resolvers`, which are its.
        unit: `targeting_unit` of the context, worked out once for all flags.
        failures: what went wrong in it so far.
        began_ns: of `time.perf_counter_ns`; 0 until it is entered.
    """

    __slots__ = (
        "_token",
        "_told",
        "began_ns",
        "context",
        "failures",
        "flag_set",
        "outer",
        "owner",
        "resolvers",
        "served",
        "unit",
    )

    owner: ScopeOwner | None
    context: ContextMapping
    began_ns: int
    served: dict[str, Resolution]
    flag_set: FlagSet
    resolvers: Mapping[str, Resolver]
    unit: str | None
    outer: "Scope | None"
    failures: tuple[Failure, ...]
    _token: Token["Scope | None"] | None
    _told: tuple[object, ...]  # the errors behind `failures`; set with the first

    def __enter__(self) -> Self:
        """Begin the unit of work.

        Raises:
            RuntimeError: it was entered before. Two units of work in one would be counted as one
                exposure, so this is told where it is written: at its second use, every time.
        """
        if self.began_ns:
            raise RuntimeError("a scope is one unit of work: make a new one with scope()")
        self.flag_set = flag_set = self.owner.state.flag_set  # type: ignore[union-attr]
        try:
            unit = self.context.get(TARGETING_KEY)
            if type(unit) is str and unit.isascii() and unit:  # as `targeting_unit`, less a call
                self.unit = unit
            else:
                self.unit = unit_of(unit)
            self.resolvers = flag_set.resolvers
        except Exception:  # the host's edge: reading a context may run any code
            self.unit = None
            self.resolvers = _NO_RESOLVERS
        self.served = {}
        self.failures = ()
        outer = _current()
        # Not one that has ended, lest a chain of tasks, each begun in the last, keep them all.
        self.outer = None if outer is None else _open(outer)
        self._token = _set_current(self)
        self.began_ns = perf_counter_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the unit of work; it failed if an `Exception` leaves it.

        KeyboardInterrupt, SystemExit, GeneratorExit and asyncio's CancelledError are none: they
        end the work from outside and say nothing about the feature.
        """
        ended_ns = perf_counter_ns()
        owner = self.owner
        began_ns = self.began_ns
        if owner is None or not began_ns:
            return
        if error is not None:
            self._fail_with(error)
        self.owner = None
        if _current() is self:
            try:
                # Cheaper than to set what was before.
                _reset_current(self._token)  # type: ignore[arg-type] # it was set on entering
            except ValueError:  # entered in another context, of which this one is a copy
                _set_current(None)
            outer = self.outer
            if outer is not None:
                _set_current(_open(outer))
        self._token = None  # it holds the scope before, which may hold the one before that
        served = self.served
        if served:
            reporter = owner.reporter
            if self.failures:
                self._told = ()  # their frames may hold this scope
                reporter.count_failed(self, ended_ns)
                return
            finished = reporter.finished
            witness: Witness | None = None
            attributes = reporter.witnessed
            if attributes is not None:
                units = units_by(attributes, self.context) if attributes else NO_UNITS
                witness = self.unit, units, self.flag_set.unit_key, ended_ns
            finished.append((served, (ended_ns - began_ns) // 1_000, witness))
            if len(finished) >= reporter.batch:
                reporter.count_finished()

    def _fail_with(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            return
        try:
            is_told = bool(self.failures) and _is_told(error, self._told)
        except Exception:  # the host's edge: an error's own code may raise
            is_told = False
        if not is_told:
            self.fail(error)

    def fail(self, error: BaseException | int | str, flag: str | None = None) -> None:
        """Mark the unit of work as failed. Never raises; does nothing unless it is open.

        Args:
            error: an exception, an HTTP status, or a short fixed word for what went wrong (each
                word is a kind of error, of which at most 50 a flag are told apart).
            flag: links the failure to this flag alone, instead of to all flags served.
        """
        owner = self.owner
        if owner is None or not self.began_ns or len(self.failures) >= _MAX_FAILURES:
            return
        try:
            is_held = flag is None or flag in self.served  # else it counts nowhere
            failure = _failure(error, flag, owner.error_samples, self.context)
        except Exception:  # the host's edge: an error's own code may raise
            is_held = False
            failure = Failure(error_kind(type(error).__name__), flag=flag)
        told = self._told if self.failures else ()
        self._told = (*told, error) if is_held else told
        self.failures = (*self.failures, failure)
        if owner.on_failure is not None and isinstance(error, BaseException):
            owner.on_failure(self, error)

    def merged_with(self, context: ContextMapping) -> ContextMapping | None:
        """Return this scope's context with another's values over it, if both are of one unit.

        None where the other has a targeting key that is not this scope's: nothing that is known of
        this unit may then be taken for what is known of that one.
        """
        key = context.get(TARGETING_KEY)
        if key is not None and unit_of(key) != self.unit:
            return None
        return {**self.context, **context}

    def has_same_unit(self, context: ContextMapping, bucket_by: str | None) -> bool:
        """Whether another context is placed by the unit that this scope's is reported under."""
        return bucket_by is None or (
            unit_of(context.get(bucket_by)) == unit_of(self.context.get(bucket_by))
        )

    def abandon(self) -> None:
        """End it without counting anything: in a forked child, as the parent counts it."""
        self.owner = None


current_scope: Final[ContextVar[Scope | None]] = ContextVar("flagd_scope", default=None)
# Bound once, as each unit of work looks them up.
_current: Final = current_scope.get
_set_current: Final = current_scope.set
_reset_current: Final = current_scope.reset


def _open(scope: Scope | None) -> Scope | None:
    """Return the nearest scope, outwards, that has not ended."""
    while scope is not None and scope.owner is None:
        scope = scope.outer
    return scope


def scope_of(client: object) -> Scope | None:
    """Return the innermost open scope of a client."""
    scope = current_scope.get()
    while scope is not None and scope.owner is not client:
        scope = scope.outer
    return scope


def abandon_all() -> None:
    """Abandon the scopes that are open where this is called."""
    scope = current_scope.get()
    while scope is not None:
        scope.abandon()
        scope = scope.outer


# --- what a failure is reported as ---------------------------------------------------------------


def _is_told(error: BaseException | None, told: tuple[object, ...]) -> bool:
    """Whether an error is among those told, came of one, or is a group of such alone.

    One that is linked to a flag must not be held against all flags for being wrapped on its way.
    """
    for _ in range(_MAX_FAILURES):
        if error is None:
            return False
        if any(error is each for each in told):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(_is_told(each, told) for each in error.exceptions)
        error = error.__cause__ or error.__context__
    return False


def _failure(
    error: BaseException | int | str, flag: str | None, has_sample: bool, context: ContextMapping
) -> Failure:
    if isinstance(error, BaseException):
        name = type(error).__name__
        where = _where_raised(error)
        sample = f"{name}: {error}" if has_sample else ""
    elif isinstance(error, str):
        name = sample = error[:MAX_SAMPLE_CHARACTERS]
        where = _where_called()
    else:
        name, where = str(int(error)), _where_called()
        sample = f"status {name}"
    if not has_sample:
        sample = ""
    elif sample:
        key = context.get(TARGETING_KEY)
        unit = key if isinstance(key, str) else unit_of(key)
        # Messages like to name the user; no targeting key leaves the process.
        if unit:
            sample = sample[:10_000].replace(unit, "…")
    return Failure(error_kind(name), where, sample, flag)


def _where_raised(error: BaseException) -> str:
    """Name the innermost frame of the application that an exception went through."""
    found = innermost = None
    traceback = error.__traceback__
    for _ in range(_MAX_FRAMES):
        if traceback is None:
            break
        innermost = traceback
        if _is_application(traceback.tb_frame.f_code.co_filename):
            found = traceback
        traceback = traceback.tb_next
    place = found or innermost
    if place is None:
        return _where_called()  # made, but never raised
    frame = place.tb_frame
    return _describe(frame.f_globals.get("__name__"), frame.f_code, place.tb_lineno)


def _where_called() -> str:
    """Name the innermost frame of the application that is running."""
    frame = sys._getframe(1)
    for _ in range(_MAX_FRAMES):
        if _is_application(frame.f_code.co_filename) or frame.f_back is None:
            break
        frame = frame.f_back
    return _describe(frame.f_globals.get("__name__"), frame.f_code, frame.f_lineno)


def _describe(module: object, code: CodeType, line: int | None) -> str:
    return f"{module}:{code.co_qualname}:{line}"


# The standard library and this SDK.
_FOREIGN: Final = (
    "<frozen",
    *(os.path.join(os.path.dirname(f), "") for f in (os.__file__, __file__)),
)


@lru_cache(maxsize=1024)
def _is_application(filename: str) -> bool:
    """Whether code is the application's own: no library, no standard library, not this SDK."""
    return (
        "site-packages" not in filename
        and "dist-packages" not in filename
        and not filename.startswith(_FOREIGN)
    )
