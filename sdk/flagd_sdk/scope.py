"""Units of work: what was served in one, and how it ended.

The exposure and the outcome of a unit of work are one record, so that they can't be lost apart.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from time import perf_counter_ns
from types import CodeType, TracebackType
from typing import Final, Protocol, Self

from flagd_sdk.core.evaluator import FlagSet
from flagd_sdk.core.model import Resolution, Resolver
from flagd_sdk.core.summary import MAX_SAMPLE_CHARACTERS, Failure, error_kind
from flagd_sdk.core.types import ContextMapping

NO_CONTEXT: Final[ContextMapping] = {}
_MAX_FAILURES = 20  # of one unit of work
_MAX_FRAMES = 2_000


class ScopeOwner(Protocol):
    """What a scope needs of its client."""

    @property
    def flag_set(self) -> FlagSet:
        """The flag set in use now."""
        ...

    @property
    def error_samples(self) -> bool:
        """Whether messages of errors may be reported."""
        ...

    def finish(self, scope: "Scope", duration_us: int, now_s: float) -> None:
        """Count a scope in which something was served. Never raises."""
        ...


class Scope:
    """One unit of work: a request, a job, a message. Made by `FlagClient.scope`, used once.

    It is current for the code inside its `with` block: in the thread that entered it and, through
    `contextvars`, in the asyncio tasks and `asyncio.to_thread` calls started there. What still
    runs after the block's end is evaluated as before and counted as unscoped. Of nested scopes
    the innermost is current; each is a unit of its own. Leaving them in another order, as
    suspended generators do, harms nothing.

    Attributes:
        context: what flags are evaluated with; not copied, so it must not change meanwhile.
        served: flag → resolution, each recorded at its first evaluation and handed out again at
            later ones: the memo and the record of exposures in one.
        owner: the client while the scope is open, else None.
        resolvers: of the flag set that was in use at the beginning.
    """

    __slots__ = (
        "_began_ns",
        "_client",
        "_failures",
        "_linked",
        "context",
        "flag_set",
        "outer",
        "owner",
        "resolvers",
        "served",
    )

    def __init__(self, client: ScopeOwner, context: ContextMapping | None) -> None:
        self._client = client
        self.context = NO_CONTEXT if context is None else context
        self.owner: ScopeOwner | None = None
        self.served: dict[str, Resolution] | None = None

    flag_set: FlagSet
    resolvers: Mapping[str, Resolver]
    outer: "Scope | None"
    _began_ns: int
    _failures: tuple[Failure, ...]
    _linked: BaseException | None

    def __enter__(self) -> Self:
        """Begin the unit of work.

        Raises:
            RuntimeError: it was entered before. Two units of work in one would be counted as one
                exposure, so this is told where it is written: at its second use, every time.
        """
        if self.served is not None:
            raise RuntimeError("a scope is one unit of work: make a new one with scope()")
        client = self._client
        flag_set = client.flag_set
        self.flag_set = flag_set
        self.resolvers = flag_set.resolvers
        self.served = {}
        self.owner = client
        self._failures = ()
        self._linked = None
        self.outer = current_scope.get()
        current_scope.set(self)
        self._began_ns = perf_counter_ns()
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
        client = self.owner
        if client is None:
            return
        if isinstance(error, Exception) and error is not self._linked:
            self.fail(error)
        self.owner = None
        if current_scope.get() is self:
            current_scope.set(self.outer if self.outer is None else _open(self.outer))
        if self.served:
            client.finish(self, (ended_ns - self._began_ns) // 1_000, ended_ns / 1e9)

    @property
    def failures(self) -> Sequence[Failure]:
        """What went wrong in it so far."""
        return self._failures

    def fail(self, error: BaseException | int | str, flag: str | None = None) -> None:
        """Mark the unit of work as failed. Never raises; does nothing once it has ended.

        Args:
            error: an exception, an HTTP status, or a short fixed word for what went wrong (each
                word is a kind of error, of which at most 50 a flag are told apart).
            flag: links the failure to this flag alone, instead of to all flags served.
        """
        if self.owner is None or len(self._failures) >= _MAX_FAILURES:
            return
        try:
            failure = _failure(error, flag, self.owner.error_samples, self.context)
        except Exception:  # the host's edge: an error's own code may raise
            failure = Failure(error_kind(type(error).__name__), flag=flag)
        self._failures = (*self._failures, failure)
        if flag is not None and isinstance(error, BaseException):
            self._linked = error

    def abandon(self) -> None:
        """End it without counting anything: in a forked child, as the parent counts it."""
        self.owner = None


current_scope: Final[ContextVar[Scope | None]] = ContextVar("flagd_scope", default=None)


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
        unit = context.get("targetingKey")
        # Messages like to name the user; no targeting key leaves the process.
        if isinstance(unit, str) and unit:
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
