"""The client: what an application calls. The work behind it is `engine.py`'s."""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, cast

from flagd_sdk.backoff import Backoff
from flagd_sdk.config import AUTO, ClientConfig
from flagd_sdk.core.evaluator import IMMUTABLE, FlagSet, all_flags, details_of
from flagd_sdk.core.local_kill import LocalKill
from flagd_sdk.core.openfeature import openfeature_details
from flagd_sdk.core.types import ContextMapping, Evaluation, Reason, ResolutionDetails
from flagd_sdk.engine import Engine
from flagd_sdk.errors import ErrorCode
from flagd_sdk.flag_state import ClientStatus, Listener, StatusListener
from flagd_sdk.handles import Declared, Declaring
from flagd_sdk.paths import choose_path
from flagd_sdk.scope import NO_CONTEXT, Scope, current_scope, scope_of
from flagd_sdk.transport import Transport

Default = TypeVar("Default")
P = ParamSpec("P")
R = TypeVar("R")

_current_scope = current_scope.get  # bound once, as each evaluation looks it up


class FlagClient(Declaring):
    """Answers for flags in process, keeps them current, and reports what was served.

    Make one per process and share it: every method is thread-safe, and it goes on working in
    forked children. Nothing that happens to the server, the network or the disk makes a method
    raise; after `close`, the last known values stay in use.
    """

    _engine_type: ClassVar[type[Engine]] = Engine

    def __init__(
        self,
        url: str,
        token: str,
        *,
        service: str = "",
        service_version: str = "",
        bootstrap: str | PathLike[str] | Mapping[str, object] | None = None,
        cache_dir: str | PathLike[str] | None = AUTO,
        instance: str | None = None,
        transport: Transport | None = None,
        error_samples: bool = True,
        connect_timeout_s: float = 5.0,
        request_timeout_s: float = 10.0,
        stream_silence_s: float = 30.0,
        poll_interval_s: float = 10.0,
        report_interval_s: float = 1.0,
        heartbeat_interval_s: float = 10.0,
        exit_timeout_s: float = 2.0,
        local_breaker: bool = True,
        backoff: Backoff | None = None,
    ) -> None:
        """Start in the background; see `ClientConfig` for the settings.

        Raises:
            ConfigurationError: a setting can't be used; the message names it.
        """
        config = ClientConfig(
            url=url,
            token=token,
            service=service,
            service_version=service_version,
            bootstrap=bootstrap,
            cache_dir=cache_dir,
            instance=instance,
            error_samples=error_samples,
            connect_timeout_s=connect_timeout_s,
            request_timeout_s=request_timeout_s,
            stream_silence_s=stream_silence_s,
            poll_interval_s=poll_interval_s,
            report_interval_s=report_interval_s,
            heartbeat_interval_s=heartbeat_interval_s,
            exit_timeout_s=exit_timeout_s,
            local_breaker=local_breaker,
            backoff=backoff or Backoff(),
        ).checked()
        self._config = config
        self._engine = engine = self._engine_type(config, transport)
        self._state = engine.state
        self._declared = Declared(engine.state, engine.notices)
        self._is_heard = False  # whether anybody ever listened to evaluations
        # A client that nobody holds any more ends its threads, without waiting for them; at the
        # interpreter's exit the engine sees to it itself.
        weakref.finalize(self, engine.stop).atexit = False
        engine.ensure_started()

    def __repr__(self) -> str:
        return f"<FlagClient {self._config.url} {self.status}>"

    # --- evaluation: never raises, never blocks, takes no lock --------------------------------

    def is_enabled(
        self, key: str, default: bool = False, context: ContextMapping | None = None
    ) -> bool:
        """Return a boolean flag's value, or the default where it can't be evaluated.

        Args:
            context: evaluate with this instead of the current scope's context. The evaluation is
                then no exposure of the scope's unit and counts as unscoped; for a batch of users
                open a scope for each.
        """
        try:
            scope = _current_scope()
            if scope is not None and context is None and scope.owner is self._engine:
                served = scope.served
                if key in served:
                    value = served[key].value
                    return value if value is True or value is False else default
                resolvers = scope.resolvers
                resolution = resolvers[key](scope.context, resolvers, scope.unit)
                value = resolution.value
                if value is True or value is False:
                    served[key] = resolution
                    return value
        except Exception:  # noqa: S110 - whatever it was, the long way answers it with its reason
            pass
        return self._value(key, default, context)

    def value(self, key: str, default: Default, context: ContextMapping | None = None) -> Default:
        """Return a flag's value where it is of the default's type, else the default.

        An integer flag suits a float default, an object flag a mapping or a list, any flag None.
        """
        try:
            scope = _current_scope()
            if scope is not None and context is None and scope.owner is self._engine:
                served = scope.served
                if key in served:
                    resolution = served[key]
                else:
                    resolvers = scope.resolvers
                    resolution = resolvers[key](scope.context, resolvers, scope.unit)
                value: Any = resolution.value
                kind = type(value)
                # An object is copied on its way out, and an error has no value: the long way.
                if (
                    kind is type(default)
                    and kind is not dict
                    and kind is not list
                    and value is not None
                ):
                    served[key] = resolution
                    return cast("Default", value)
        except Exception:  # noqa: S110 - whatever it was, the long way answers it with its reason
            pass
        return self._value(key, default, context)

    def _value(self, key: str, default: Default, context: ContextMapping | None) -> Default:
        """Return the details' value; outside scopes mostly without making them."""
        if not self._is_heard and context is not None:
            resolution = self.flag_set.resolve(key, context)
            value: Any = resolution.value
            if type(value) is type(default) and type(value) in IMMUTABLE:
                self._engine.reporter.unscoped(resolution.flag)
                return value
        return self.details(key, default, context).value

    def details(
        self, key: str, default: Default, context: ContextMapping | None = None
    ) -> ResolutionDetails[Default]:
        """Return a flag's value with its variant, reason and, where there is one, error."""
        try:
            # In a forked child that knows no flag yet there is nothing to count, which would do it.
            self._engine.ensure_started()
            scope = scope_of(self._engine) if context is None else None
            if scope is not None:
                served = scope.served
                held = served.get(key)
                resolution = held or scope.flag_set.resolve(key, scope.context)
                details = details_of(key, resolution, default)
                if details.reason is not Reason.ERROR:
                    served[key] = resolution
                if self._is_heard and (held is None or details.reason is Reason.ERROR):
                    self._state.tell(details, scope.context, scope.flag_set)
                return details
            return self._unscoped(key, default, context)
        except Exception as error:  # the host's edge
            return self._internal_error(key, default, error)

    def merged_details(
        self, key: str, default: Default, context: ContextMapping
    ) -> ResolutionDetails[Default]:
        """Return the details for a context that adds to the current scope's, or is another unit's.

        For edges to APIs where each evaluation brings a context, such as OpenFeature: whom a split
        can't place gets the default and TARGETING_KEY_MISSING. An evaluation is an exposure of the
        scope's unit where the scope's own context would have been placed by the same unit; any
        other counts as unscoped (docs/decisions/0017).
        """
        try:
            self._engine.ensure_started()
            scope = self.current_scope
            nearest = scope or _current_scope()
            merged = None if nearest is None else nearest.merged_with(context)
            if merged is None:
                scope, merged = None, context
            flag_set = self.flag_set if scope is None else scope.flag_set
            resolution = flag_set.resolve(key, merged)
            details = openfeature_details(key, resolution, default)
            if details.reason is Reason.ERROR:
                return details
            is_exposure = (
                scope is not None
                and scope.has_same_unit(merged, resolution.bucket_by)
                # One a flag: what is served otherwise later in the scope is none.
                and scope.served.setdefault(resolution.flag, resolution) is resolution
            )
            if not is_exposure:
                self._engine.reporter.unscoped(resolution.flag)
            return details
        except Exception as error:  # the host's edge
            return self._internal_error(key, default, error)

    def _internal_error(
        self, key: str, default: Default, error: Exception
    ) -> ResolutionDetails[Default]:
        self._engine.notices.tell("evaluation", "A flag could not be evaluated: %r", error)
        return ResolutionDetails(
            key, default, None, Reason.ERROR, ErrorCode.GENERAL, "internal error"
        )

    def all_flags(self, context: ContextMapping | None = None) -> dict[str, ResolutionDetails[Any]]:
        """Evaluate every flag, for a page or another process to begin with. Counts no exposure."""
        try:
            self._engine.ensure_started()
            scope = scope_of(self._engine) if context is None else None
            if scope is not None:
                return all_flags(scope.flag_set, scope.context)
            return all_flags(self.flag_set, NO_CONTEXT if context is None else context)
        except Exception as error:  # the host's edge
            self._engine.notices.tell("evaluation", "The flags could not be evaluated: %r", error)
            return {}

    def _unscoped(
        self, key: str, default: Default, context: ContextMapping | None
    ) -> ResolutionDetails[Default]:
        if context is None:
            # Work that outlives its scope goes on with the scope's context.
            ended = _current_scope()
            context = NO_CONTEXT if ended is None else ended.context
        flag_set = self.flag_set
        resolution = flag_set.resolve(key, context)
        details = details_of(key, resolution, default)
        if details.reason is not Reason.ERROR:
            self._engine.reporter.unscoped(resolution.flag)
        if self._is_heard:
            self._state.tell(details, context, flag_set)
        return details

    # --- units of work -------------------------------------------------------------------------

    def scope(self, context: ContextMapping | None = None) -> Scope:
        """Return a unit of work to enter with `with`: a request, a job, a message.

        Flags evaluated inside are exposures of that unit, all from the flag set in use when it
        began. It fails when an exception leaves it or `fail` is called.
        """
        scope = Scope()
        scope.owner = self._engine
        scope.context = NO_CONTEXT if context is None else context
        scope.began_ns = 0
        return scope

    @property
    def current_scope(self) -> Scope | None:
        """The innermost open unit of work."""
        return scope_of(self._engine)

    def fail(self, error: BaseException | int | str, flag: str | None = None) -> None:
        """Mark the current unit of work as failed; see `Scope.fail`. Outside one, do nothing."""
        scope = scope_of(self._engine)
        if scope is not None:
            scope.fail(error, flag)

    def when(
        self, key: str, otherwise: Callable[P, R], *, fallback: bool = True
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a function the new path, taken where the flag is on; see `docs/sdk.md`.

        It may be a function, a coroutine function, a generator function of either sort, or a method
        of any sort. Where it raises an `Exception`, the unit of work fails for this flag alone. A
        generator's flag is evaluated at its first item.

        Args:
            otherwise: the old path, with the same parameters and of the same kind.
            fallback: whether the old path then answers. It runs after what the new one already
                did; without it, the exception goes on to the caller. So it does once a generator
                has handed out an item.

        Raises:
            TypeError: when decorating: the two paths are not of the same kind.
        """
        return self._when(key, partial(self.is_enabled, key), otherwise, fallback)

    def _when(
        self, key: str, is_on: Callable[[], bool], otherwise: Callable[P, R], fallback: bool
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            return choose_path(
                function, otherwise, is_on, lambda: self.current_scope, key, fallback
            )

        return decorate

    # --- the client itself ---------------------------------------------------------------------

    @property
    def flag_set(self) -> FlagSet:
        """The flag set in use."""
        return self._state.flag_set

    @property
    def status(self) -> ClientStatus:
        """How far the values can be trusted."""
        self._engine.ensure_started()
        return self._state.status

    @property
    def local_kills(self) -> Mapping[str, LocalKill]:
        """Flag → why it is held off in this process by its own errors; for pages on its health."""
        return MappingProxyType(self._state.local_kills)

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait for the server's flags; return whether they came.

        False does not mean that nothing can be served: disk or bootstrap may have had values.
        """
        self._engine.ensure_started()
        # Where there are no threads there is nothing to wait for.
        return self._state.wait_until_ready(0 if self._engine.is_dormant else timeout_s)

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call a listener with a `FlagsChanged` after each change of flags.

        It runs on a thread of the client, so it should be quick; what it raises is logged.

        Returns:
            A callable that ends it.
        """
        self._engine.ensure_started()
        return self._state.subscribe(listener)

    def on_status(self, listener: StatusListener) -> Callable[[], None]:
        """Call a listener with the status after each word of the server or failure to get one.

        Mostly it is the same as before. As with `on_change` otherwise.
        """
        self._engine.ensure_started()
        return self._state.status_listeners.add(listener)

    def on_evaluation(self, listener: Callable[[Evaluation], object]) -> Callable[[], None]:
        """Call a listener with an `Evaluation` at each exposure, unscoped evaluation and error.

        A flag's first evaluation in a scope is its exposure; that the scope hands the same out
        again is not told, nor are prerequisites and `all_flags`. It runs where the flag was asked
        for, so it must be quick; what it raises is logged, and what it evaluates is not told.

        Scopes that begin from now on are heard, so subscribe before the work begins. A client that
        nobody listens to pays nothing for it.

        Returns:
            A callable that ends it.
        """
        self._is_heard = True
        return self._state.hear(listener)

    def flush(self, timeout_s: float) -> bool:
        """Report what was counted so far; return whether the server answered in time."""
        self._engine.ensure_started()
        return self._engine.reporter.flush(0 if self._engine.is_dormant else timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """End the threads and report what is left, within a time.

        Returns:
            Whether all ended in time. Calling it again is harmless.
        """
        return self._engine.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
