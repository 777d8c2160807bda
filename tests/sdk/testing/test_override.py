# ruff: noqa: PT012 - what is raised must leave the override, so the override is in the block
import asyncio
import contextvars
import inspect
import threading
import unittest
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from flagd_sdk import FlagClient
from flagd_sdk.errors import FlagNotFoundError
from flagd_sdk.testing import Definition, InMemoryClient, override
from tests.sdk.fakes import FakeStream, MemoryTransport, flag, flag_set, sse, text_flag
from tests.waiting import eventually


class Application:
    """A client in touch with a server that a test may let go on."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.gate = threading.Event()
        self.transport.fetches.append(flag_set(flag("on", on=0), text_flag(), sequence=5))
        change = sse("flag", {"sequence": 6, "key": "on", "flag": flag("on", on=100_000)}, 6)
        self.transport.streams.append(FakeStream(change, stays_open=True, gate=self.gate))
        self.flags = FlagClient(
            "http://server",
            "t",
            cache_dir=None,
            transport=self.transport,
            report_interval_s=3600.0,
            heartbeat_interval_s=3600.0,
        )


@pytest.fixture
def application() -> Iterator[Application]:
    application = Application()
    assert application.flags.wait_until_ready(60)
    yield application
    application.gate.set()
    application.flags.close(60)


@pytest.fixture
def flags() -> InMemoryClient:
    return InMemoryClient({"on": False, "colour": "green"})


def test_it_holds_for_the_block_and_is_undone_after_an_error(application: Application) -> None:
    flags = application.flags
    checkout = flags.boolean("on", default=False)
    new = flags.when("on", otherwise=lambda: "old")(lambda: "new")
    with pytest.raises(KeyError), override(flags, {"on": True, "extra": 7}):
        assert (checkout.is_enabled(), flags.value("extra", 0), new()) == (True, 7, "new")
        assert flags.value("colour", "") == "green", "what is not overridden stays"
        raise KeyError
    assert (checkout.is_enabled(), flags.value("extra", 0), new()) == (False, 0, "old")


def test_what_happens_within_is_recorded_and_never_reported(application: Application) -> None:
    flags = application.flags
    with override(flags, {"on": True}) as overridden:

        @flags.when("on", otherwise=lambda: "old")
        def new() -> str:
            raise KeyError

        with flags.scope({"targetingKey": "u1"}):
            assert new() == "old"
        flags.is_enabled("on")
    (exposure,) = overridden.exposures
    assert (exposure.flag, exposure.targeting_key) == ("on", "u1")
    assert exposure.failures == ("error:KeyError",)
    assert overridden.unscoped == ["on"]
    assert overridden.client is flags
    assert flags.flush(60)
    # Where nothing was counted there is nothing to flush, and the first one may be on its way.
    sent = eventually(lambda: application.transport.summaries)
    assert not any(summary["cells"] or summary["unscoped"] for summary in sent)


def test_the_server_is_followed_again_afterwards(application: Application) -> None:
    flags = application.flags
    # Once the stream is opened, nothing more is told of the first flags.
    assert eventually(lambda: application.transport.last_event_ids)
    changed = threading.Event()
    flags.on_change(lambda event: changed.set())
    with override(flags, {"colour": "red"}):
        application.gate.set()
        assert changed.wait(60)
        assert flags.is_enabled("on") is False
    assert flags.is_enabled("on") is True


def test_it_reaches_a_unit_of_work_that_is_open_already(flags: InMemoryClient) -> None:
    with flags.scope({"targetingKey": "u1", "country": "NL"}):
        assert flags.is_enabled("on") is False
        rule = {
            "condition": {"attribute": "country", "op": "in", "values": ["NL"]},
            "serve": {"variant": "on"},
        }
        with override(flags, {"on": Definition(rules=[rule])}):
            assert flags.is_enabled("on") is True
        assert flags.is_enabled("on") is False


def test_it_holds_in_other_threads_and_tasks(flags: InMemoryClient) -> None:
    seen = []

    def look() -> None:
        seen.append(flags.is_enabled("on"))

    async def main() -> None:
        await asyncio.to_thread(look)
        await asyncio.create_task(asyncio.sleep(0, look()))

    with override(flags, {"on": True}):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        contextvars.Context().run(look)
        asyncio.run(main())
    assert seen == [True] * 4


def test_overrides_nest_and_what_is_recorded_within_is_seen_around(flags: InMemoryClient) -> None:
    with override(flags, {"on": True}) as outer:
        with override(flags, {"colour": "red"}) as inner, flags.scope({}):
            assert (flags.is_enabled("on"), flags.value("colour", "")) == (True, "red")
        assert flags.value("colour", "") == "green"
        with flags.scope({}):
            flags.is_enabled("on")
    for recorded, count in ((inner, 2), (outer, 3), (flags, 3)):
        assert len(recorded.exposures) == count


def test_overrides_may_end_in_any_order(flags: InMemoryClient) -> None:
    first, second, third = (
        override(flags, values) for values in ({"on": True}, {"colour": "red"}, {"more": 1})
    )

    def served() -> tuple[bool, str, int]:
        return flags.is_enabled("on"), flags.value("colour", ""), flags.value("more", 0)

    for each in (first, second, third):
        each.__enter__()
    assert served() == (True, "red", 1)
    first.__exit__(None, None, None)
    assert served() == (False, "red", 1)
    third.__exit__(None, None, None)
    assert served() == (False, "red", 0)
    second.__exit__(None, None, None)
    assert served() == (False, "green", 0)


def test_many_threads_leave_a_client_as_it_was(flags: InMemoryClient) -> None:
    def churn(key: str) -> None:
        for _ in range(30):
            with override(flags, {key: True}):
                assert flags.is_enabled(key)

    threads = [threading.Thread(target=churn, args=(f"t{number}",)) for number in range(4)]
    engine = flags._engine
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flags._engine is engine
    assert not flags.is_enabled("t1")


def test_flags_set_within_end_with_it(flags: InMemoryClient) -> None:
    with override(flags) as overridden:
        overridden.set_flags({"on": True})
        assert flags.is_enabled("on")
        with override(flags, {"colour": "red"}):
            assert flags.is_enabled("on")
        assert flags.is_enabled("on")
    assert not flags.is_enabled("on")


def test_a_strict_one_is_strict_within_and_for_those_within(flags: InMemoryClient) -> None:
    with override(flags, {}, strict=True):
        with override(flags, {"on": True}), pytest.raises(FlagNotFoundError):
            flags.is_enabled("unknown")
        with pytest.raises(FlagNotFoundError):
            flags.value("unknown", 1)
    assert flags.is_enabled("unknown", True) is True


def test_a_handle_is_overridden_by_itself(flags: InMemoryClient) -> None:
    colour = flags.string("colour", default="green")
    on = flags.boolean("on", default=False)
    with override(colour, "red"), override(flags, {on: True}):
        assert (colour.value(), on.is_enabled()) == ("red", True)
    assert (colour.value(), on.is_enabled()) == ("green", False)


# --- as a decorator ------------------------------------------------------------------------------


def test_it_decorates_functions_of_every_kind(flags: InMemoryClient) -> None:
    on = override(flags, {"on": True})

    @on
    def plain(depth: int = 2) -> bool:
        assert depth == 0 or plain(depth - 1)
        return flags.is_enabled("on")

    @on
    async def coroutine() -> bool:
        await asyncio.sleep(0)
        return flags.is_enabled("on")

    @on
    def generator() -> Iterator[bool]:
        yield flags.is_enabled("on")
        yield flags.is_enabled("on")

    @on
    async def async_generator() -> AsyncIterator[bool]:
        yield flags.is_enabled("on")

    async def main() -> list[bool]:
        return [await coroutine(), *[each async for each in async_generator()]]

    assert plain()
    assert list(generator()) == [True, True]
    assert asyncio.run(main()) == [True, True]
    assert not flags.is_enabled("on")
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert list(inspect.signature(plain).parameters) == ["depth"]

    items = generator()
    next(items)
    items.close()
    assert not flags.is_enabled("on"), "it ends with the generator"


def test_it_decorates_the_tests_of_a_class(flags: InMemoryClient) -> None:
    class Base(unittest.IsolatedAsyncioTestCase):
        def test_inherited(self) -> None:
            assert flags.is_enabled("on")

    @override(flags, {"on": True})
    class Tests(Base):
        def test_plain(self) -> None:
            assert flags.is_enabled("on")

        async def test_async(self) -> None:
            await asyncio.sleep(0)
            assert flags.is_enabled("on")

        @staticmethod
        def test_static() -> None:
            assert flags.is_enabled("on")

        def test_entered(self) -> None:
            self.enterContext(override(flags, {"colour": "red"}))
            assert flags.value("colour", "") == "red"

        def helper(self) -> bool:
            return flags.is_enabled("on")

    def run(case: type[unittest.TestCase]) -> tuple[int, int]:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        return result.testsRun, len(result.errors) + len(result.failures)

    assert run(Tests) == (5, 0)
    assert run(Base) == (1, 1), "the class that it was inherited from is left alone"
    assert Tests().helper() is False
    assert flags.value("colour", "") == "green"


def test_a_value_that_can_be_no_flag_leaves_the_client_alone(flags: InMemoryClient) -> None:
    engine = flags._engine
    wrong: Callable[[], Any] = override(flags, {"on": object()}).__enter__
    with pytest.raises(Exception, match="flag on: a value of type object"):
        wrong()
    assert flags._engine is engine
