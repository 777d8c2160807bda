"""What the server asks to be looked at: from its reply to the scopes, and back in summaries."""

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flagd_sdk.core.failure import unit_hash
from flagd_sdk.core.looking import Watch
from tests.sdk.fakes import UNIT_KEY
from tests.sdk.test_reporter import Bench as ReporterBench
from tests.sdk.test_scope import Bench as ClientBench


class Answered(ReporterBench):
    """A reporter whose summaries the test answers."""

    def answer(self, **reply: object) -> None:
        """Let a summary be made and answered so."""
        self.transport.replies.append({"accepted": 0, "refused": [], **reply})
        self.reporter.hurry()
        self.run(2.0)
        assert not self.transport.replies

    def kinds(self) -> list[str]:
        """Return the kinds of all unit events reported from now on."""
        before = len(self.transport.summaries)
        self.run(2.0)
        cells = [cell for s in self.transport.summaries[before:] for cell in s["cells"]]
        return sorted(
            kind for cell in cells for kind, hashes in cell["units"].items() for _ in hashes
        )


@pytest.fixture
def bench() -> Answered:
    return Answered()


# --- replies and summaries -----------------------------------------------------------------------

ASKED = {"slow_over_s": {"p99": 1.0}, "exposed_below": "f" * 16}


def test_the_reply_says_what_to_look_at_from_then_on(bench: Answered) -> None:
    bench.work("u1", lasted_s=2.0)
    assert bench.kinds() == []
    bench.answer(**ASKED)
    bench.work("u1", lasted_s=2.0)
    bench.work("u2", error="timeout", lasted_s=1.02)
    bench.work("u1", lasted_s=2.0)
    assert bench.kinds() == ["error:timeout", "exposed", "exposed", "near:p99", "slow:p99"]
    bench.answer(slow_over_s={}, exposed_below="0" * 16)
    bench.work("u3", lasted_s=2.0)
    assert bench.kinds() == []
    assert bench.reporter.witnessed is None


@pytest.mark.parametrize(
    "garbage",
    [
        {"slow_over_s": None, "exposed_below": None},
        {"slow_over_s": "p99", "exposed_below": "all"},
        {"slow_over_s": [1.0], "exposed_below": 7},
        {"slow_over_s": {"p99": "fast"}, "exposed_below": {"p99": 1.0}},
        {"slow_over_s": {"p99": -1, "p12": 3.0}, "exposed_below": "F" * 16},
        {"slow_over_s": {"p99": float("nan")}, "exposed_below": "0" * 15},
    ],
)
def test_a_reply_of_garbage_leaves_what_was_and_says_nothing(
    bench: Answered, garbage: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    bench.answer(**garbage)
    assert bench.reporter.witnessed is None
    bench.answer(**ASKED)
    bench.answer(**garbage)
    bench.work("u1", lasted_s=2.0)
    assert bench.kinds() == ["exposed", "slow:p99"]
    assert caplog.records == []


def test_what_ended_before_a_failure_is_looked_at_before_it(bench: Answered) -> None:
    bench.answer(**ASKED)
    bench.reporter.batch = 64  # so that it waits to be counted
    bench.work("u1", lasted_s=0.1)
    bench.work("u1", error="timeout", lasted_s=2.0)
    assert bench.kinds() == ["error:timeout", "exposed"]


def test_slow_units_wait_for_the_second_to_end(bench: Answered) -> None:
    bench.answer(**ASKED)
    bench.work("u0")
    bench.run(0.1)
    sent = len(bench.transport.summaries)
    bench.work("u1", lasted_s=2.0)
    bench.run(0.5)
    assert len(bench.transport.summaries) == sent
    bench.run(2.0)
    assert len(bench.transport.summaries) == sent + 1


def test_a_child_process_looks_for_the_same_but_remembers_nobody(bench: Answered) -> None:
    bench.answer(**ASKED)
    bench.work("u1", lasted_s=2.0)
    bench.reporter.after_fork()
    bench.work("u1", lasted_s=2.0)
    assert bench.kinds() == ["exposed", "slow:p99"]
    bench.work("u1", lasted_s=2.0)
    assert bench.kinds() == []


# --- whose first exposure it is: scopes ----------------------------------------------------------


def exposed(bench: ClientBench) -> dict[str, set[str]]:
    """Return flag → hashes of the units whose first exposure was reported."""
    found: dict[str, set[str]] = {}
    for cell in bench.counted()["cells"]:
        found.setdefault(cell["flag"], set()).update(cell["units"].get("exposed", ()))
    return found


def hashes(*units: str) -> set[str]:
    return {unit_hash(unit, bytes.fromhex(UNIT_KEY)) for unit in units}


@pytest.fixture
def watching() -> Iterator[ClientBench]:
    """A client that was asked to report everybody."""
    bench = ClientBench()
    bench.flags._engine.reporter._look_for(Watch({}, "f" * 16))
    yield bench
    bench.flags.close(60)


def test_a_unit_is_the_one_that_was_placed_whatever_becomes_of_its_context(
    watching: ClientBench,
) -> None:
    is_enabled, context = watching.flags.is_enabled, {"targetingKey": "", "account": 0}
    for _ in range(2):  # the attribute is learned from what was served
        for number in range(10):
            context.update(targetingKey=f"u{number}", account=number)
            with watching.flags.scope(context):
                is_enabled("split")
                is_enabled("by-account")
        context.update(targetingKey="somebody", account="else")
        found = exposed(watching)
    assert found["by-account"] == hashes(*map(str, range(10)))
    assert found["split"] == set(), "in the first round"


def test_a_failed_unit_by_another_attribute_is_looked_at_at_once(watching: ClientBench) -> None:
    with watching.flags.scope({"targetingKey": "u1", "account": "a1"}) as scope:
        watching.flags.is_enabled("split")
        watching.flags.is_enabled("by-account")
        scope.fail("declined")
    assert exposed(watching) == {"split": hashes("u1"), "by-account": hashes("a1")}


def test_who_has_no_unit_is_not_looked_at(watching: ClientBench) -> None:
    for _ in range(2):
        for context in ({}, {"targetingKey": None, "account": True}):
            with watching.flags.scope(context):
                watching.flags.is_enabled("split")
                watching.flags.is_enabled("by-account")
    assert exposed(watching) == {"split": set(), "by-account": set()}


def test_what_waits_to_be_counted_keeps_no_context_alive(watching: ClientBench) -> None:
    class Context(dict[str, object]):
        """A mapping that can be referred to weakly."""

    context = Context(targetingKey="u1")
    reference = weakref.ref(context)
    with watching.flags.scope(context) as scope:
        watching.flags.is_enabled("split")
    assert len(watching.flags._engine.reporter.finished) == 1
    del context, scope
    gc.collect()
    assert reference() is None
    assert exposed(watching) == {"split": hashes("u1")}


def test_a_context_that_can_not_be_read_at_the_end_costs_only_the_look(
    watching: ClientBench,
) -> None:
    class Hostile(dict[str, object]):
        is_hostile = False

        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            if self.is_hostile:
                raise RuntimeError("boo")
            return super().get(key, default)

    for _ in range(2):
        context = Hostile(targetingKey="u1", account="a1")
        with watching.flags.scope(context):
            watching.flags.is_enabled("by-account")
            context.is_hostile = True
        assert exposed(watching) == {"by-account": set()}


def test_threads_that_are_looked_at_lose_nobody(watching: ClientBench) -> None:
    def request(number: int) -> None:
        with watching.flags.scope({"targetingKey": f"u{number % 500}"}):
            watching.flags.is_enabled("split")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(4_000)))
    assert exposed(watching) == {"split": hashes(*(f"u{i}" for i in range(500)))}
