"""Two paths of a flag, `when`: which is taken, and which flag an error is held against."""

# ruff: noqa: PT012 - what is raised must leave the scope, so the scope is in the block
import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from flagd_sdk import FlagClient
from tests.sdk.path_client import USER, BrokenError, failed, path_client


@pytest.fixture
def flags() -> Iterator[FlagClient]:
    with path_client() as client:
        yield client


def run(result: Any) -> Any:
    """Run whatever a path gave to its end; return what it answered, items as a list."""
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isgenerator(result):
        return list(result)
    if inspect.isasyncgen(result):

        async def collected() -> list[Any]:
            return [item async for item in result]

        return asyncio.run(collected())
    return result


def paths_of(kind: str) -> tuple[Any, Any, Any]:
    """Return of one kind an old path, a new one, and a new one that raises."""

    def old(number: int) -> list[str]:
        return [f"old {number}"]

    def new(number: int) -> list[str]:
        return [f"new {number}"]

    def broken(number: int) -> list[str]:
        raise BrokenError

    def coroutine(function: Callable[[int], list[str]]) -> Any:
        async def path(number: int) -> list[str]:
            await asyncio.sleep(0)
            return function(number)

        return path

    def generator(function: Callable[[int], list[str]]) -> Any:
        def path(number: int) -> Iterator[str]:
            yield from function(number)

        return path

    def async_generator(function: Callable[[int], list[str]]) -> Any:
        async def path(number: int) -> AsyncIterator[str]:
            await asyncio.sleep(0)
            for item in function(number):
                yield item

        return path

    def itself(function: Callable[[int], list[str]]) -> Any:
        return function

    make = {
        "function": itself,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }[kind]
    return make(old), make(new), make(broken)


KINDS = ("function", "coroutine", "generator", "async generator")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_takes_its_path_and_falls_back_from_a_broken_one(
    flags: FlagClient, kind: str
) -> None:
    old, new, broken = paths_of(kind)
    with flags.scope(USER):
        assert flags.is_enabled("bystander")
        assert run(flags.when("on", otherwise=old)(new)(1)) == ["new 1"]
        assert run(flags.when("new-checkout", otherwise=old)(broken)(1)) == ["old 1"]
        assert run(flags.when("two", otherwise=old)(broken)(number=1)) == ["old 1"]
    assert failed(flags) == {"bystander": 0, "on": 0, "new-checkout": 0, "two": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_without_fallback_an_error_is_linked_once_and_goes_on(flags: FlagClient, kind: str) -> None:
    old, _, broken = paths_of(kind)
    with pytest.raises(BrokenError), flags.scope(USER) as scope:
        assert flags.is_enabled("bystander")
        run(flags.when("on", otherwise=old, fallback=False)(broken)(1))
    assert [failure.flag for failure in scope.failures] == ["on"]
    assert failed(flags) == {"bystander": 0, "on": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_old_path_raises_is_held_against_no_single_flag(
    flags: FlagClient, kind: str
) -> None:
    _, _, broken = paths_of(kind)
    with pytest.raises(BrokenError) as caught, flags.scope(USER) as scope:
        assert flags.is_enabled("bystander")
        run(flags.when("new-checkout", otherwise=broken)(broken)(1))
    assert [failure.flag for failure in scope.failures] == [None]
    assert failed(flags) == {"bystander": 1, "new-checkout": 1}

    with pytest.raises(BrokenError) as caught, flags.scope(USER) as scope:
        run(flags.when("on", otherwise=broken)(broken)(1))
    assert [failure.flag for failure in scope.failures] == ["on", None]
    assert caught.value.__context__ is None, "the old path's error is not one of the new path's"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_looks_like_what_was_given(flags: FlagClient, kind: str) -> None:
    old, new, _ = paths_of(kind)
    new.__doc__ = "New."
    made = flags.when("on", otherwise=old)(new)
    assert (made.__name__, made.__doc__, made.__wrapped__) == (new.__name__, "New.", new)
    assert inspect.signature(made) == inspect.signature(new)
    for is_it in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isfunction,
    ):
        assert is_it(made) == is_it(new)


def test_methods_of_every_sort_keep_their_binding(flags: FlagClient) -> None:
    class Shop:
        name = "shop"

        def old(self, number: int) -> str:
            return f"old {self.name} {number}"

        @flags.when("on", otherwise=old)
        def new(self, number: int) -> str:
            return f"new {self.name} {number}"

        @flags.when("on", otherwise=old)
        def broken(self, number: int) -> str:
            raise BrokenError

        @classmethod
        def old_class(cls, number: int) -> str:
            return f"old {cls.name} {number}"

        @classmethod
        @flags.when("on", otherwise=old_class)
        def inside_class(cls, number: int) -> str:
            raise BrokenError

        @flags.when("on", otherwise=old_class)
        @classmethod
        def outside_class(cls, number: int) -> str:
            return f"new {cls.name} {number}"

        @staticmethod
        def old_static(number: int) -> str:
            return f"old {number}"

        @staticmethod
        @flags.when("on", otherwise=old_static)
        def inside_static(number: int) -> str:
            raise BrokenError

        @flags.when("on", otherwise=old_static)
        @staticmethod
        def outside_static(number: int) -> str:
            return f"new {number}"

        @property
        @flags.when("on", otherwise=lambda self: self.name)
        def title(self) -> str:
            raise BrokenError

    class Kiosk(Shop):
        name = "kiosk"

    kiosk = Kiosk()
    assert (kiosk.new(1), kiosk.broken(2), kiosk.title) == ("new kiosk 1", "old kiosk 2", "kiosk")
    assert (Kiosk.inside_class(1), kiosk.outside_class(2)) == ("old kiosk 1", "new kiosk 2")
    assert (Kiosk.inside_static(1), kiosk.outside_static(2)) == ("old 1", "new 2")


def test_objects_and_partials_are_paths_too(flags: FlagClient) -> None:
    class Pricing:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, price: int) -> int:
            return price // (self.factor - 1)

    class Slow:
        async def __call__(self, price: int) -> int:
            return price

    async def old(price: int, *, off: int = 0) -> int:
        return price - off

    when = flags.when("on", otherwise=Pricing(2))
    assert (when(Pricing(3))(10), when(Pricing(1))(10)) == (5, 10)
    assert flags.when("on", otherwise=partial(max, 7))(partial(min, 7))(5) == 5
    made = flags.when("on", otherwise=partial(old, off=1))(Slow())
    assert inspect.iscoroutinefunction(made)
    assert run(made(3)) == 3


@pytest.mark.parametrize("kind", KINDS[1:])
def test_two_paths_of_different_kinds_are_refused_where_they_are_written(
    flags: FlagClient, kind: str
) -> None:
    old, new, _ = paths_of("function")
    other, _, _ = paths_of(kind)
    with pytest.raises(TypeError, match=r"when 'on': .*new is a plain function.*two of a kind"):
        flags.when("on", otherwise=other)(new)
    with pytest.raises(TypeError, match=r"the path otherwise taken, is a plain function"):
        flags.when("on", otherwise=old)(other)
    with pytest.raises(TypeError, match="is no function"):
        flags.when("on", otherwise=old)(property(old))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_what_is_no_failure_of_the_feature_passes(flags: FlagClient, error: Any) -> None:
    @flags.when("on", otherwise=lambda: "old")
    def new() -> str:
        raise error

    with flags.scope(USER) as scope, pytest.raises(error):
        new()
    assert scope.failures == ()


def test_a_cancelled_coroutine_has_not_failed(flags: FlagClient) -> None:
    async def old() -> str:
        raise AssertionError

    @flags.when("on", otherwise=old)
    async def new() -> str:
        await asyncio.Event().wait()
        return "never"

    async def main() -> None:
        with flags.scope(USER) as scope:
            task = asyncio.create_task(new())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert scope.failures == ()

    asyncio.run(main())


# --- an error on its way out of the unit of work -------------------------------------------------


def test_wrapping_an_error_does_not_hold_it_against_all_flags(flags: FlagClient) -> None:
    @flags.when("on", otherwise=lambda: None, fallback=False)
    def new() -> None:
        raise BrokenError

    with pytest.raises(RuntimeError), flags.scope(USER):
        assert flags.is_enabled("bystander")
        try:
            new()
        except BrokenError as error:
            raise RuntimeError from error
    with pytest.raises(RuntimeError), flags.scope(USER):
        assert flags.is_enabled("bystander")
        try:
            new()
        except BrokenError:
            raise RuntimeError from None
    assert failed(flags) == {"bystander": 0, "on": 2}


def test_a_group_of_linked_errors_is_linked_and_a_mixed_one_is_not(flags: FlagClient) -> None:
    async def old() -> None:
        raise AssertionError

    @flags.when("on", otherwise=old, fallback=False)
    async def one() -> None:
        raise BrokenError

    @flags.when("two", otherwise=old, fallback=False)
    async def two() -> None:
        raise BrokenError

    async def other() -> None:
        raise ValueError

    async def together(*works: Callable[[], Any]) -> None:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work())

    with pytest.raises(ExceptionGroup), flags.scope(USER):
        assert flags.is_enabled("bystander")
        asyncio.run(together(one, two))
    assert failed(flags) == {"bystander": 0, "on": 1, "two": 1}
    with pytest.raises(ExceptionGroup), flags.scope(USER):
        assert flags.is_enabled("bystander")
        asyncio.run(together(one, other))
    assert failed(flags) == {"bystander": 1, "on": 1}


def test_a_scope_around_the_one_that_the_flag_was_served_in_fails_by_itself(
    flags: FlagClient,
) -> None:
    @flags.when("on", otherwise=lambda: None, fallback=False)
    def new() -> None:
        raise BrokenError

    with pytest.raises(BrokenError), flags.scope(USER) as outer:
        assert flags.is_enabled("bystander")
        with flags.scope(USER) as inner:
            new()
    assert [failure.flag for failure in inner.failures] == ["on"]
    assert [failure.flag for failure in outer.failures] == [None]


def test_a_path_that_outlives_its_unit_of_work_fails_the_one_that_its_error_leaves(
    flags: FlagClient,
) -> None:
    async def old() -> None:
        raise AssertionError

    @flags.when("on", otherwise=old, fallback=False)
    async def new() -> None:
        await asyncio.sleep(0)
        raise BrokenError

    async def main() -> None:
        with flags.scope(USER):
            assert flags.is_enabled("bystander")
            with flags.scope(USER):
                task = asyncio.create_task(new())
                await asyncio.sleep(0)
            await task

    with pytest.raises(BrokenError):
        asyncio.run(main())
    assert failed(flags) == {"on": 0, "bystander": 1}


def test_an_error_counted_by_hand_is_not_counted_again_as_it_leaves(flags: FlagClient) -> None:
    with pytest.raises(BrokenError), flags.scope(USER) as scope:
        try:
            raise BrokenError
        except BrokenError as error:
            flags.fail(error)
            raise
    assert len(scope.failures) == 1
