# ruff: noqa: PT012 - what is raised must leave the scope, so the scope is in the block
import asyncio
import contextvars
import gc
import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flagd_sdk import FlagClient, Scope
from tests.sdk.counting import counted, keep_counts
from tests.sdk.fakes import SilentTransport, flag, flag_set, text_flag

ON = {"targetingKey": "u-on", "country": "NL"}


class Bench:
    """A client on a bootstrapped flag set, whose counts the test reads."""

    def __init__(self, **settings: Any) -> None:
        self.transport = SilentTransport()
        by_account = flag("by-account", on=50_000)
        by_account["default_serve"]["split"]["bucket_by"] = "account"
        document = flag_set(
            flag("on", on=100_000), flag("split", on=50_000), text_flag(), by_account
        )
        self.flags = FlagClient(
            "http://server",
            "t",
            bootstrap=document,
            cache_dir=None,
            transport=self.transport,
            heartbeat_interval_s=3600.0,
            report_interval_s=3600.0,
            **settings,
        )
        keep_counts(self.flags)

    def counted(self) -> dict[str, Any]:
        return counted(self.flags)

    def cells(self) -> dict[str, tuple[int, int]]:
        """Return flag → (exposures, errors), of all variants together."""
        sums: dict[str, tuple[int, int]] = {}
        for cell in self.counted()["cells"]:
            exposures, errors = sums.get(cell["flag"], (0, 0))
            sums[cell["flag"]] = exposures + cell["exposures"], errors + cell["errors"]
        return sums


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.flags.close(60)


def test_flags_served_in_a_scope_are_one_exposure_each_however_often(bench: Bench) -> None:
    with bench.flags.scope(ON):
        for _ in range(3):
            assert bench.flags.is_enabled("on")
            assert bench.flags.value("colour", "blue") == "green"
            assert bench.flags.details("on", False).variant == "on"
    assert bench.counted()["unscoped"] == {}
    with bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        bench.flags.value("colour", "blue")
    assert bench.cells() == {"on": (1, 0), "colour": (1, 0)}


def test_a_scope_in_which_nothing_was_served_counts_nothing(bench: Bench) -> None:
    with pytest.raises(KeyError), bench.flags.scope(ON):
        raise KeyError("cart")
    assert bench.cells() == {}


def test_what_gives_the_default_is_no_exposure(bench: Bench) -> None:
    with bench.flags.scope(ON):
        assert bench.flags.is_enabled("absent", True) is True
        assert bench.flags.is_enabled("colour", True) is True
        assert bench.flags.value("on", "text") == "text"
        assert bench.flags.value("colour", 7) == 7
        assert bench.flags.details("on", 7).error_code == "TYPE_MISMATCH"
    assert bench.cells() == {}


def test_evaluation_outside_a_scope_is_counted_as_unscoped(bench: Bench) -> None:
    assert bench.flags.is_enabled("on", context=ON)
    assert bench.flags.value("colour", "blue") == "green"
    document = bench.counted()
    assert document["cells"] == []
    assert document["unscoped"] == {"on": 1, "colour": 1}


def test_a_context_of_its_own_is_no_exposure_of_the_scopes_unit(bench: Bench) -> None:
    with bench.flags.scope(ON):
        for user in range(5):
            bench.flags.is_enabled("split", context={"targetingKey": f"u{user}"})
    document = bench.counted()
    assert document["cells"] == []
    assert document["unscoped"] == {"split": 5}


def test_a_scope_sees_one_flag_set_throughout(bench: Bench) -> None:
    with bench.flags.scope(ON):
        bench.flags._state.apply_flags(flag_set(flag("on", on=0), sequence=2))
        assert bench.flags.is_enabled("on") is True
        assert bench.flags.details("on", False).value is True
        assert "split" in bench.flags.all_flags()
    with bench.flags.scope(ON):
        assert bench.flags.is_enabled("on") is False


def test_an_exception_that_leaves_it_fails_everything_served(bench: Bench) -> None:
    with pytest.raises(KeyError), bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        bench.flags.is_enabled("split")
        raise KeyError("cart")
    document = bench.counted()
    assert {cell["errors"] for cell in document["cells"]} == {1}
    (kind,) = [e for e in document["error_kinds"] if e["flag"] == "on"]
    assert kind["kind"] == "error:KeyError"
    assert kind["sample"] == "KeyError: 'cart'"
    assert "test_an_exception_that_leaves_it_fails_everything_served:" in kind["where"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]
)
def test_what_ends_the_work_from_outside_is_no_failure(
    bench: Bench, error: type[BaseException]
) -> None:
    with pytest.raises(error), bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        raise error
    assert bench.cells() == {"on": (1, 0)}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("x"), "error:ValueError"), (503, "error:503"), ("declined", "error:declined"),
     ("not allowed!", "error:not_allowed_")],
)  # fmt: skip
def test_fail_takes_an_error_a_status_or_a_word(
    bench: Bench, error: BaseException | int | str, kind: str
) -> None:
    with bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        bench.flags.fail(error)
    document = bench.counted()
    assert document["error_kinds"][0]["kind"] == kind
    assert "test_fail_takes_an_error" in document["error_kinds"][0]["where"]
    assert document["cells"][0]["errors"] == 1


def test_fail_can_be_linked_to_one_flag(bench: Bench) -> None:
    with bench.flags.scope(ON) as scope:
        bench.flags.is_enabled("on")
        bench.flags.is_enabled("split")
        scope.fail("declined", flag="split")
    assert bench.cells() == {"on": (1, 0), "split": (1, 1)}


def test_an_error_linked_to_one_flag_stays_so_when_it_leaves_the_scope(bench: Bench) -> None:
    with pytest.raises(KeyError), bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        bench.flags.is_enabled("split")
        error = KeyError("cart")
        bench.flags.fail(error, flag="split")
        raise error
    assert bench.cells() == {"on": (1, 0), "split": (1, 1)}


def test_failing_outside_before_or_after_a_scope_does_nothing(bench: Bench) -> None:
    bench.flags.fail("declined")
    bench.flags.scope(ON).fail("declined")
    bench.flags.scope(ON).__exit__(None, None, None)
    with bench.flags.scope(ON) as scope:
        bench.flags.is_enabled("on")
    scope.fail("declined")
    assert bench.cells() == {"on": (1, 0)}


def test_failures_of_one_scope_are_bounded(bench: Bench) -> None:
    with bench.flags.scope(ON):
        bench.flags.is_enabled("split")
        for i in range(1_000):
            bench.flags.fail(f"kind-{i}")
    document = bench.counted()
    assert document["cells"][0]["errors"] == 1
    assert len(document["error_kinds"]) == 20


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_error_that_cannot_be_shown_is_counted_all_the_same(bench: Bench) -> None:
    with bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        bench.flags.fail(UnspeakableError())
    assert bench.counted()["error_kinds"][0]["kind"] == "error:UnspeakableError"


@pytest.mark.parametrize("key", ["u-on", 417_305])
def test_the_targeting_key_does_not_leave_in_a_message(bench: Bench, key: object) -> None:
    with (
        pytest.raises(ValueError, match=str(key)),
        bench.flags.scope({"targetingKey": key}),
    ):
        bench.flags.is_enabled("split")
        raise ValueError(f"no cart for {key}")
    document = bench.counted()
    assert str(key) not in str(document)
    assert document["error_kinds"][0]["sample"] == "ValueError: no cart for …"


def test_messages_can_be_kept_back() -> None:
    bench = Bench(error_samples=False)
    with bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        bench.flags.fail(ValueError("secret"))
    document = bench.counted()
    bench.flags.close(60)
    assert "secret" not in str(document)
    assert document["error_kinds"][0]["where"]


def test_the_place_named_is_the_applications_not_a_librarys(bench: Bench) -> None:
    with pytest.raises(json.JSONDecodeError), bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        json.loads("{")
    where = bench.counted()["error_kinds"][0]["where"]
    assert where.startswith(f"{__name__}:test_the_place_named_is_the_applications")


def test_nested_scopes_are_units_of_their_own(bench: Bench) -> None:
    with bench.flags.scope(ON):
        bench.flags.is_enabled("on")
        with pytest.raises(KeyError), bench.flags.scope({"targetingKey": "inner"}):
            bench.flags.is_enabled("on")
            raise KeyError
        bench.flags.is_enabled("split")
    assert bench.cells() == {"on": (2, 1), "split": (1, 0)}


def test_a_scope_can_be_used_only_once(bench: Bench) -> None:
    scope = bench.flags.scope(ON)
    with scope, pytest.raises(RuntimeError, match="one unit of work"):
        scope.__enter__()
    with pytest.raises(RuntimeError, match="one unit of work"):
        scope.__enter__()


def test_leaving_scopes_in_another_order_harms_nothing(bench: Bench) -> None:
    first, second = bench.flags.scope(ON), bench.flags.scope({"targetingKey": "second"})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    bench.flags.is_enabled("on")
    second.__exit__(None, None, None)
    second.__exit__(None, None, None)
    bench.flags.is_enabled("on")
    document = bench.counted()
    assert [cell["exposures"] for cell in document["cells"]] == [1]
    assert document["unscoped"] == {"on": 1}


def test_clients_do_not_take_each_others_scopes(bench: Bench) -> None:
    other = Bench()
    with bench.flags.scope(ON), other.flags.scope({"targetingKey": "other"}):
        bench.flags.is_enabled("on")
        other.flags.is_enabled("split")
    assert bench.cells() == {"on": (1, 0)}
    assert other.cells() == {"split": (1, 0)}
    other.flags.close(60)


def test_threads_have_scopes_of_their_own(bench: Bench) -> None:
    def request(number: int) -> None:
        with bench.flags.scope({"targetingKey": f"u{number}"}):
            bench.flags.is_enabled("on")
            if number % 4 == 0:
                bench.flags.fail("declined")

    with bench.flags.scope(ON), ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(2_000)))
    assert bench.cells() == {"on": (2_000, 500)}


def test_a_thread_that_was_handed_the_context_works_for_the_scope(bench: Bench) -> None:
    with bench.flags.scope(ON):
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(bench.flags.is_enabled, "on")
        )
        thread.start()
        thread.join()
    assert bench.cells() == {"on": (1, 0)}


def test_tasks_have_scopes_of_their_own_and_inherit_those_around_them(bench: Bench) -> None:
    async def request(number: int) -> bool:
        with bench.flags.scope({"targetingKey": f"u{number}"}):
            await asyncio.sleep(0)
            first = bench.flags.is_enabled("split")
            await asyncio.sleep(0)
            return first == bench.flags.is_enabled("split")

    async def main() -> list[bool]:
        with bench.flags.scope(ON):
            inherited = asyncio.create_task(asyncio.to_thread(bench.flags.is_enabled, "on"))
            results = await asyncio.gather(*(request(i) for i in range(50)))
            return [*results, await inherited]

    assert all(asyncio.run(main()))
    assert sum(e for e, _ in bench.cells().values()) == 51


def test_a_task_that_outlives_its_scope_is_counted_as_unscoped(bench: Bench) -> None:
    seen: list[str | None] = []

    async def straggler() -> None:
        await asyncio.sleep(0.01)
        seen.append(bench.flags.details("split", False).variant)

    async def main() -> None:
        with bench.flags.scope(ON):
            task = asyncio.create_task(straggler())
        await task

    asyncio.run(main())
    document = bench.counted()
    assert seen == [bench.flags.details("split", False, ON).variant]
    assert document["cells"] == []
    assert document["unscoped"] == {"split": 1}


def test_a_chain_of_tasks_does_not_hold_every_scope_before_it(bench: Bench) -> None:
    mine = {"targetingKey": "chain"}

    def held() -> int:
        gc.collect()
        scopes = [thing for thing in gc.get_objects() if type(thing) is Scope]
        return sum(getattr(scope, "context", None) is mine for scope in scopes)

    async def link(left: int, end: asyncio.Future[int]) -> None:
        with bench.flags.scope(mine):
            if left:
                # Not awaited: the next link begins when this scope has ended, which it inherits.
                tasks.append(asyncio.create_task(link(left - 1, end)))
                del tasks[:-2]  # a task holds its context, and that the scope it inherited
                return
        end.set_result(held())

    tasks: list[asyncio.Task[None]] = []

    async def main() -> int:
        end = asyncio.get_running_loop().create_future()
        await link(30, end)
        return await end

    assert asyncio.run(main()) <= 5


def test_a_scope_left_by_another_context_ends_all_the_same(bench: Bench) -> None:
    async def stream() -> AsyncIterator[int]:
        with bench.flags.scope(ON):
            bench.flags.is_enabled("on")
            yield 1
            yield 2

    async def main() -> None:
        generator = stream()
        await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
        await generator.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())
    assert bench.cells() == {"on": (1, 0)}
