"""Two paths of a flag that are generators: they end, and fail, long after they were chosen."""

# ruff: noqa: PT012 - what is raised must leave the scope, so the scope is in the block
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, contextmanager

import pytest

from flagd_sdk import FlagClient
from tests.sdk.path_client import USER, BrokenError, failed, path_client


@pytest.fixture
def flags() -> Iterator[FlagClient]:
    with path_client() as client:
        yield client


def test_a_generator_that_has_handed_out_items_is_not_begun_anew(flags: FlagClient) -> None:
    @flags.when("on", otherwise=lambda: (yield from "old"))
    def rows() -> Iterator[str]:
        yield "new"
        raise BrokenError

    got: list[str] = []
    with pytest.raises(BrokenError), flags.scope(USER) as scope:
        got.extend(rows())
    assert got == ["new"]
    assert [failure.flag for failure in scope.failures] == ["on"]


def test_a_generator_links_its_errors_where_its_flag_was_evaluated(flags: FlagClient) -> None:
    @flags.when("on", otherwise=lambda: (yield from "old"))
    def rows() -> Iterator[str]:
        yield "new"
        raise BrokenError

    with flags.scope(USER) as began:
        made = rows()
        next(made)
        with pytest.raises(BrokenError), flags.scope(USER) as resumed:
            next(made)
    assert [failure.flag for failure in began.failures] == ["on"]
    assert [failure.flag for failure in resumed.failures] == [None]


def test_a_generator_talks_with_its_caller_as_without_the_flag(flags: FlagClient) -> None:
    log: list[str] = []

    def talk() -> Generator[str, str, str]:
        try:
            heard = yield "first"
            while True:
                try:
                    heard = yield f"heard {heard}"
                except KeyError:
                    heard = yield "caught"
                if heard == "end":
                    return "returned"
        finally:
            log.append("closed")

    for key in ("on", "new-checkout"):  # as the new path, and as the old
        made = flags.when(key, otherwise=talk)(talk)
        talking = made()
        assert [next(talking), talking.send("a"), talking.throw(KeyError())] == [
            "first",
            "heard a",
            "caught",
        ]
        with pytest.raises(StopIteration) as end:
            talking.send("end")
        assert end.value.value == "returned"
        talking = made()
        next(talking)
        talking.close()
        talking = made()
        next(talking)
        with flags.scope(USER) as scope, pytest.raises(ZeroDivisionError):
            talking.throw(ZeroDivisionError())
        assert scope.failures == ()
    assert log == ["closed"] * 6


def test_an_asynchronous_generator_talks_with_its_caller_as_without_the_flag(
    flags: FlagClient,
) -> None:
    log: list[str] = []

    async def talk() -> AsyncGenerator[str, str]:
        try:
            heard = yield "first"
            while True:
                try:
                    heard = yield f"heard {heard}"
                except KeyError:
                    heard = yield "caught"
                if heard == "end":
                    return
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def main() -> None:
        for key in ("on", "new-checkout"):
            made = flags.when(key, otherwise=talk)(talk)
            talking = made()
            assert await anext(talking) == "first"
            assert await talking.asend("a") == "heard a"
            assert await talking.athrow(KeyError()) == "caught"
            with pytest.raises(StopAsyncIteration):
                await talking.asend("end")
            async with aclosing(made()) as talking:
                await anext(talking)
            talking = made()
            await anext(talking)
            with pytest.raises(ZeroDivisionError):
                await talking.athrow(ZeroDivisionError())

    asyncio.run(main())
    assert log == ["closed"] * 6


def test_what_a_generators_clean_up_raises_is_its_own(flags: FlagClient) -> None:
    @flags.when("on", otherwise=lambda: (yield from "old"))
    def rows() -> Iterator[str]:
        try:
            yield "new"
        finally:
            raise BrokenError

    made = rows()
    with flags.scope(USER) as scope:
        next(made)
        with pytest.raises(BrokenError):
            made.close()  # type: ignore[attr-defined]
    assert [failure.flag for failure in scope.failures] == ["on"]


def test_an_error_of_the_with_block_is_not_the_context_managers(flags: FlagClient) -> None:
    @contextmanager
    @flags.when("on", otherwise=lambda: (yield "old"))
    def session() -> Iterator[str]:
        yield "new"

    for error in (BrokenError, StopIteration):
        with pytest.raises(error), flags.scope(USER) as scope:
            assert flags.is_enabled("bystander")
            with session() as which:
                assert which == "new"
                raise error
        assert [failure.flag for failure in scope.failures] == [None]


def test_an_asynchronous_generators_error_after_an_item_is_linked_and_goes_on(
    flags: FlagClient,
) -> None:
    async def old() -> AsyncIterator[str]:
        yield "old"

    @flags.when("on", otherwise=old)
    async def rows() -> AsyncIterator[str]:
        yield "new"
        raise BrokenError

    async def main() -> None:
        with pytest.raises(BrokenError), flags.scope(USER) as scope:
            assert [row async for row in rows()] == []
        assert [failure.flag for failure in scope.failures] == ["on"]

    asyncio.run(main())


@pytest.mark.parametrize("key", ["on", "new-checkout"])
def test_what_an_old_asynchronous_generator_raises_is_held_against_no_single_flag(
    flags: FlagClient, key: str
) -> None:
    async def old() -> AsyncIterator[str]:
        yield "old"
        raise ValueError

    @flags.when(key, otherwise=old)
    async def rows() -> AsyncIterator[str]:
        raise BrokenError
        yield

    async def main() -> list[str | None]:
        with pytest.raises(ValueError, match=r"^$"), flags.scope(USER) as scope:
            async for row in rows():
                assert row == "old"
        return [failure.flag for failure in scope.failures]

    assert asyncio.run(main()) == (["on", None] if key == "on" else [None])


def test_the_flag_of_a_generator_is_evaluated_at_its_first_item(flags: FlagClient) -> None:
    @flags.when("on", otherwise=lambda: (yield from ()))
    def rows() -> Iterator[str]:
        yield "new"

    made = rows()
    with flags.scope(USER):
        assert list(made) == ["new"]
    assert failed(flags) == {"on": 0}
