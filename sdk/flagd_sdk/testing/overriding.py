"""Flags that are other than they are, for the length of a block, a function or a class of tests."""

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from flagd_sdk.client import FlagClient
from flagd_sdk.engine import Engine
from flagd_sdk.handles import FlagHandle
from flagd_sdk.paths import Kind, kind_of
from flagd_sdk.testing.definitions import Values
from flagd_sdk.testing.memory import MemoryEngine, Recorded, install

Value = TypeVar("Value")
Target = TypeVar("Target", bound="Callable[..., Any]")

_lock = threading.Lock()  # guards which engine stands over which, of all clients


class Overridden(Recorded):
    """A client's flags while an override is in force, and what was served of them.

    Attributes:
        client: that they are asked of.
    """

    def __init__(self, client: FlagClient, engine: MemoryEngine) -> None:
        self.client = client
        self._engine = engine

    @property
    def _memory(self) -> MemoryEngine:
        return self._engine


class override:  # noqa: N801 - used as a function, as `mock.patch` is
    """A context manager and decorator: a client serves other values, without a server.

    It holds for the whole process, as an application under test often runs in threads of its own.
    Overrides may be nested and may end in any order. Flags that are not overridden stay what they
    were, but do not follow the server meanwhile, and nothing that is counted is reported.

    It decorates functions, coroutine functions and generators of either sort (fixtures too), and
    classes, of which it decorates the methods that begin with "test".
    """

    @overload
    def __init__(
        self, flags: FlagClient, values: Values | None = None, /, *, strict: bool = False
    ) -> None: ...

    @overload
    def __init__(
        self, flags: FlagHandle[Value], values: Value, /, *, strict: bool = False
    ) -> None: ...

    def __init__(
        self,
        flags: FlagClient | FlagHandle[Any],
        values: Any = None,
        /,
        *,
        strict: bool = False,
    ) -> None:
        """Say what is to be served.

        Args:
            flags: a client; or a handle, with its value.
            values: as for `Recorded.set_flags`.
            strict: raise for a flag that can't be evaluated, as it does within a strict override.
        """
        if isinstance(flags, FlagHandle):
            values = {flags.key: values}
            flags = cast("FlagClient", flags.client)
        self._client = flags
        self._values: Values = values or {}
        self._is_strict = strict
        # Entered more than once by functions that it decorates; which of them leaves which does not
        # matter, as all serve the same.
        self._entered: list[MemoryEngine] = []

    def __enter__(self) -> Overridden:
        """Begin.

        Raises:
            ConfigurationError: a value or definition can't be used.
        """
        client = self._client
        with _lock:
            below = client._engine
            engine = MemoryEngine(below._config, below=below)
            engine.set_flags(self._values)
            engine.is_strict = engine.is_strict or self._is_strict
            install(client, engine)
        self._entered.append(engine)
        return Overridden(client, engine)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        engine = self._entered.pop()
        with _lock:
            above = _above(self._client._engine, engine)
            for over in above:
                if over.below is engine:
                    over.below = engine.below
            for over in reversed(above):
                over.set_flags({})
            install(self._client, above[0] if above else cast("Engine", engine.below))

    def __call__(self, target: Target) -> Target:
        if isinstance(target, type):
            return cast("Target", self._decorate_tests(target))
        return cast("Target", wraps(target)(self._decorated(target)))

    def _decorate_tests(self, tests: type) -> type:
        for name in dir(tests):
            if name.startswith("test"):
                method = inspect.getattr_static(tests, name)
                if isinstance(method, staticmethod | classmethod):
                    setattr(tests, name, type(method)(self(method.__func__)))
                elif inspect.isfunction(method):
                    setattr(tests, name, self(method))
        return tests

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of the same kind, as pytest and others ask for that."""

        def plain(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with self:
                return (yield from function(*args, **kwargs))

        async def async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with self:
                async with aclosing(function(*args, **kwargs)) as items:
                    async for item in items:
                        yield item

        made: dict[Kind, Callable[..., Any]] = {
            Kind.PLAIN: plain,
            Kind.COROUTINE: coroutine,
            Kind.GENERATOR: generator,
            Kind.ASYNC_GENERATOR: async_generator,
        }
        return made[kind_of(function)]


def _above(top: Engine, engine: Engine) -> list[MemoryEngine]:
    """Return the engines that stand over one, the topmost first."""
    above = []
    while top is not engine and isinstance(top, MemoryEngine) and top.below is not None:
        above.append(top)
        top = top.below
    return above
