"""The new path of a feature beside the old one: what `FlagClient.when` makes of a function.

What it makes is of the same kind as what it was given, as frameworks ask for that: a coroutine
function of a coroutine function, a generator function of a generator function.
"""

from collections.abc import AsyncGenerator, Callable, Generator
from enum import Enum
from functools import wraps
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, cast

from flagd_sdk.scope import Scope

P = ParamSpec("P")
R = TypeVar("R")

# Ends of an iteration: what a decorated `__next__` or `__anext__` answers with, and no fault.
_ENDS = (StopIteration, StopAsyncIteration)


class Kind(Enum):
    """What calling a function gives."""

    PLAIN = "a plain function"
    COROUTINE = "a coroutine function"
    GENERATOR = "a generator function"
    ASYNC_GENERATOR = "an async generator function"


def kind_of(function: object) -> Kind:
    """Return the kind of a callable; of an object it is that of its `__call__`."""
    # Slow to import, and needed by those alone who decorate.
    from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

    for is_it, kind in (
        (iscoroutinefunction, Kind.COROUTINE),
        (isgeneratorfunction, Kind.GENERATOR),
        (isasyncgenfunction, Kind.ASYNC_GENERATOR),
    ):
        if is_it(function) or is_it(getattr(type(function), "__call__", None)):  # noqa: B004
            return kind
    return Kind.PLAIN


class _Choice(NamedTuple):
    """What `choose_path` is asked for, with two paths of a kind."""

    new: Callable[..., Any]
    otherwise: Callable[..., Any]
    is_on: Callable[[], bool]
    current_scope: Callable[[], Scope | None]
    flag: str
    fallback: bool


def choose_path(
    new: Callable[P, R],
    otherwise: Callable[P, R],
    is_on: Callable[[], bool],
    current_scope: Callable[[], Scope | None],
    flag: str,
    fallback: bool,
) -> Callable[P, R]:
    """Return a function that takes the new path where the flag is on, else the old one.

    Args:
        current_scope: the unit of work that the flag is evaluated in.
        flag: its key, to which errors are linked.
        fallback: whether the old path answers where the new one raises.

    Raises:
        TypeError: the two are no callables of the same kind.
    """
    if isinstance(new, classmethod | staticmethod):
        inner = choose_path(new.__func__, otherwise, is_on, current_scope, flag, fallback)
        return cast("Callable[P, R]", type(new)(inner))
    if isinstance(otherwise, classmethod | staticmethod):  # as a class's body sees them
        otherwise = otherwise.__func__
    for path in (new, otherwise):
        if not callable(path):
            raise TypeError(f"when {flag!r}: {path!r} is no function")
    kind, kind_otherwise = kind_of(new), kind_of(otherwise)
    if kind is not kind_otherwise:
        raise TypeError(
            f"when {flag!r}: {_name(new)} is {kind.value}, but {_name(otherwise)},"
            f" the path otherwise taken, is {kind_otherwise.value}; expected two of a kind"
        )
    return _MAKERS[kind](_Choice(new, otherwise, is_on, current_scope, flag, fallback))


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _plain(choice: _Choice) -> Callable[..., Any]:
    new, otherwise, is_on, current_scope, flag, fallback = choice

    @wraps(new)
    def choose(*args: Any, **kwargs: Any) -> Any:
        if is_on():
            try:
                return new(*args, **kwargs)
            except _ENDS:
                raise
            except Exception as error:
                _link(current_scope(), error, flag)
                if not fallback:
                    raise
        return otherwise(*args, **kwargs)

    return choose


def _coroutine(choice: _Choice) -> Callable[..., Any]:
    new, otherwise, is_on, current_scope, flag, fallback = choice

    @wraps(new)
    async def choose(*args: Any, **kwargs: Any) -> Any:
        if is_on():
            try:
                return await new(*args, **kwargs)
            except _ENDS:
                raise
            except Exception as error:
                _link(current_scope(), error, flag)
                if not fallback:
                    raise
        return await otherwise(*args, **kwargs)

    return choose


# A generator may be resumed in another unit of work than the one that it began in, so its errors
# are linked in the one where its flag was evaluated: at the first item. The loops are `yield from`
# written out, which asynchronous generators lack, and which would hide what the caller throws in.


def _generator(choice: _Choice) -> Callable[..., Any]:
    new, otherwise, is_on, current_scope, flag, fallback = choice

    @wraps(new)
    def choose(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if not is_on():
            return (yield from otherwise(*args, **kwargs))
        scope = current_scope()
        try:
            path = new(*args, **kwargs)
            item = next(path)
        except StopIteration as end:
            return end.value
        except Exception as error:
            _link(scope, error, flag)
            if not fallback:
                raise
            path = None
        if path is None:  # here, so that the error is not the context of what this one raises
            return (yield from otherwise(*args, **kwargs))
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    path.close()
                    raise
                except BaseException as error:
                    thrown = error
                    item = path.throw(error)
                else:
                    item = path.send(sent)
        except StopIteration as end:
            return end.value
        except Exception as error:
            if not _is_from(error, thrown):
                _link(scope, error, flag)
            raise
        finally:
            thrown = None  # lest it hold this frame, and this frame it

    return choose


def _async_generator(choice: _Choice) -> Callable[..., Any]:
    new, otherwise, is_on, current_scope, flag, fallback = choice

    @wraps(new)
    async def choose(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope = path = None
        if is_on():
            scope = current_scope()
            try:
                path = new(*args, **kwargs)
                item = await anext(path)
            except StopAsyncIteration:
                return
            except Exception as error:
                _link(scope, error, flag)
                if not fallback:
                    raise
                scope = path = None  # what the old path raises is not the flag's
        if path is None:
            path = otherwise(*args, **kwargs)
            try:
                item = await anext(path)
            except StopAsyncIteration:
                return
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await path.aclose()
                    raise
                except BaseException as error:
                    thrown = error
                    item = await path.athrow(error)
                else:
                    item = await path.asend(sent)
        except StopAsyncIteration:
            return
        except Exception as error:
            if not _is_from(error, thrown):
                _link(scope, error, flag)
            raise
        finally:
            thrown = None

    return choose


def _link(scope: Scope | None, error: Exception, flag: str) -> None:
    if scope is not None:
        scope.fail(error, flag)


def _is_from(error: Exception, thrown: BaseException | None) -> bool:
    """Whether an error is the one that the caller threw in, as a `with` block's body does."""
    # A StopIteration comes out of a generator as the cause of a RuntimeError (PEP 479).
    return thrown is not None and (error is thrown or error.__cause__ is thrown)


_MAKERS: Final = {
    Kind.PLAIN: _plain,
    Kind.COROUTINE: _coroutine,
    Kind.GENERATOR: _generator,
    Kind.ASYNC_GENERATOR: _async_generator,
}
