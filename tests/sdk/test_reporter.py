from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flagd_sdk import Backoff
from flagd_sdk.config import ClientConfig
from flagd_sdk.core.evaluator import EMPTY_FLAG_SET
from flagd_sdk.core.parsing import parse_flag_set
from flagd_sdk.errors import ConnectError, StatusError
from flagd_sdk.flag_state import FlagState
from flagd_sdk.notices import Notices
from flagd_sdk.reporter import MAX_QUEUED_SUMMARIES, Reporter
from flagd_sdk.scope import Scope
from tests.sdk.fakes import FakeClock, MemoryTransport, flag, flag_set

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Bench:
    """A reporter without its thread, on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.transport = MemoryTransport()
        notices = Notices(self.clock)
        self.state = FlagState(notices)
        self.state.flag_set = parse_flag_set(flag_set(flag(on=50_000), sequence=7))
        self.error_samples = True
        self.on_failure = None
        self.reporter = Reporter(
            self.transport,
            ClientConfig(
                url="http://server",
                token="t",
                service="shop",
                service_version="3f2c1ab",
                report_interval_s=1.0,
                heartbeat_interval_s=10.0,
                backoff=Backoff(first_s=1.0, cap_s=20.0),
            ),
            notices,
            lambda: "i-1",
            lambda: self.state.flag_set.sequence,
            self.clock,
            lambda: START + timedelta(seconds=self.clock.now_s),
            lambda: 0.5,
        )

    def scope(self, context: dict[str, object]) -> Scope:
        scope = Scope()
        scope.owner, scope.context, scope.began_ns = self, context, 0
        return scope

    def work(self, unit: str = "u1", error: str | None = None, lasted_s: float = 0.0) -> None:
        scope = self.scope({"targetingKey": unit})
        with scope:
            scope.began_ns -= int(lasted_s * 1e9)
            scope.served["new-checkout"] = scope.flag_set.resolve("new-checkout", scope.context)
            if error is not None:
                scope.fail(error)

    def run(self, seconds: float) -> None:
        """Let the thread's loop run for a time, at the pace that the reporter asks for."""
        end = self.clock.now_s + seconds
        steps = 0
        while self.clock.now_s < end:
            delay_s = self.reporter.step()
            self.clock.advance(min(delay_s, end - self.clock.now_s))
            steps += 1
        assert steps <= 5 + 6 * seconds, "a busy loop"

    @property
    def sequences(self) -> list[int]:
        return [summary["sequence"] for summary in self.transport.summaries]

    def exposures(self) -> int:
        seen: dict[int, int] = {}
        for summary in self.transport.summaries:
            seen[summary["sequence"]] = sum(cell["exposures"] for cell in summary["cells"])
        return sum(seen.values())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_summary_says_who_what_and_when(bench: Bench) -> None:
    bench.work()
    bench.clock.advance(2.5)
    bench.reporter.step()
    (summary,) = bench.transport.summaries
    assert summary.pop("cells")[0]["exposures"] == 1
    assert summary == {
        "instance": "i-1",
        "sequence": 1,
        "service": "shop",
        "service_version": "3f2c1ab",
        "applied_sequence": 7,
        "started_at": "2026-11-23T12:00:00.000Z",
        "ended_at": "2026-11-23T12:00:02.500Z",
        "unscoped": {},
        "error_kinds": [],
        "local_kills": [],
        "dropped": {},
    }


def test_a_summary_never_parts_a_failure_from_its_exposure(bench: Bench) -> None:
    lock, reporter = bench.reporter._lock, bench.reporter

    class ReporterComesFirst:
        """The lock, had by the reporter's thread while the application's waits for it."""

        def __enter__(self) -> None:
            reporter._lock = lock
            reporter.step()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    bench.clock.advance(2.0)
    reporter._lock = ReporterComesFirst()  # type: ignore[assignment]
    bench.work("u1", error="declined")
    bench.run(3.0)
    cells = [cell for summary in bench.transport.summaries for cell in summary["cells"]]
    assert [(cell["exposures"], cell["errors"], len(cell["units"])) for cell in cells] == [
        (1, 1, 1)
    ]


def test_news_go_every_second_and_silence_every_ten(bench: Bench) -> None:
    for _ in range(5):
        bench.work()
        bench.run(1.0)
    assert len(bench.transport.summaries) == 4
    bench.run(1.0)
    sent = len(bench.transport.summaries)
    bench.run(30.0)
    assert len(bench.transport.summaries) - sent == 3
    assert bench.transport.summaries[-1]["cells"] == []


def test_a_new_kind_goes_at_once_but_a_known_one_waits(bench: Bench) -> None:
    bench.run(0.5)
    bench.work("u1", "timeout")
    bench.run(0.1)
    assert len(bench.transport.summaries) == 1
    bench.work("u2", "timeout")
    bench.run(0.3)
    assert len(bench.transport.summaries) == 1


def test_a_burst_of_urgent_news_makes_at_most_three_requests_a_second(bench: Bench) -> None:
    for i in range(40):
        bench.work(f"u{i}", f"kind-{i}")
        bench.run(0.05)
    assert 5 <= len(bench.transport.summaries) <= 7
    assert bench.exposures() > 30


def test_a_kill_is_confirmed_right_behind_the_summary_that_led_to_it(bench: Bench) -> None:
    bench.work("u1", "timeout")
    bench.run(0.01)
    bench.state.flag_set = parse_flag_set(flag_set(flag(killed=True), sequence=8))
    bench.reporter.hurry()
    bench.run(0.01)
    assert [summary["applied_sequence"] for summary in bench.transport.summaries] == [7, 8]


def test_an_unacknowledged_summary_is_sent_again_unchanged_and_first(bench: Bench) -> None:
    bench.transport.replies.extend([ConnectError("reset"), StatusError(503)])
    bench.work()
    bench.run(1.5)
    bench.work()
    bench.run(30.0)
    assert bench.sequences[:3] == [1, 1, 1]
    first, second, third = bench.transport.summaries[:3]
    assert first == second == third
    assert bench.sequences == sorted(bench.sequences)
    assert bench.exposures() == 2


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_summary_that_is_refused_is_dropped_counted_and_told_once(
    bench: Bench, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.transport.replies.extend([StatusError(status), StatusError(status)])
    for _ in range(3):
        bench.work()
        bench.run(1.1)
    bench.run(2.0)
    assert bench.sequences[:3] == [1, 2, 3], "never again, and not in the way of the next"
    dropped = [summary["dropped"].get("summaries", 0) for summary in bench.transport.summaries]
    assert sum(dropped) == 2
    assert sum("refused a summary" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("status", [204, 302, 304, 401, 403, 404, 408, 410, 429, 500, 503])
def test_other_answers_keep_the_summary(bench: Bench, status: int) -> None:
    bench.transport.replies.extend([StatusError(status)] * 3)
    bench.work()
    bench.run(100.0)
    assert bench.sequences[:4] == [1, 1, 1, 1]
    assert bench.exposures() == 1


def test_retry_after_is_honoured(bench: Bench) -> None:
    bench.transport.replies.append(StatusError(429, retry_after_s=12.0))
    bench.work()
    bench.run(12.0)
    assert bench.sequences == [1]
    bench.run(8.0)
    assert bench.sequences[:2] == [1, 1]


def test_an_outage_of_a_day_loses_no_count_and_holds_little(bench: Bench) -> None:
    day_s = 86_400
    bench.transport.replies.extend([ConnectError("refused")] * day_s)
    for _ in range(2_000):
        bench.work()
        bench.run(day_s / 2_000)
        assert len(bench.reporter._queue) <= MAX_QUEUED_SUMMARIES
    attempts = len(bench.transport.summaries)
    assert attempts < day_s / 8
    bench.transport.replies.clear()
    bench.run(120.0)
    assert bench.exposures() == 2_000


def test_the_counts_of_an_outage_are_told_once_and_so_is_its_end(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flagd_sdk")
    bench.transport.replies.extend([ConnectError("refused")] * 5)
    bench.work()
    bench.run(200.0)
    assert [record.getMessage() for record in caplog.records] == [
        "Counts can't be reported (refused); they are kept and sent again",
        "Reporting to the flag server works again",
    ]


def test_what_the_server_did_not_count_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[Any] = [{"field": "cells[0].split", "message": "no such split"}]
    bench.transport.replies.append({"accepted": 0, "refused": refused})
    bench.work()
    bench.run(2.0)
    assert "cells[0].split" in caplog.text


def test_finishing_sends_what_is_left_without_waiting(bench: Bench) -> None:
    bench.transport.replies.append(ConnectError("reset"))
    bench.work()
    bench.run(1.2)
    bench.work()
    bench.reporter.finish()
    assert bench.sequences == [1, 1, 2]
    assert bench.exposures() == 2


def test_finishing_gives_up_at_the_first_failure(bench: Bench) -> None:
    bench.transport.replies.extend([ConnectError("reset")] * 9)
    bench.work()
    bench.reporter.finish()
    assert bench.sequences == [1]


def test_finishing_without_news_sends_nothing(bench: Bench) -> None:
    bench.reporter.finish()
    assert bench.sequences == []


def test_a_fault_of_our_own_does_not_end_the_thread(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.transport.replies.append(ZeroDivisionError("ours"))
    bench.work()
    bench.clock.advance(1.0)
    assert bench.reporter._guarded(bench.reporter.step) > 0
    assert "ZeroDivisionError" in caplog.text


def test_a_context_whose_code_raises_costs_only_the_unit_event(bench: Bench) -> None:
    class Hostile(dict[str, object]):
        is_hostile = False

        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            if self.is_hostile:
                raise RuntimeError("boo")
            return super().get(key, default)

    context = Hostile(targetingKey="u1")
    with bench.scope(context) as scope:
        scope.served["new-checkout"] = scope.flag_set.resolve("new-checkout", context)
        scope.fail("timeout")
        context.is_hostile = True
    bench.work("u2")
    bench.run(2.0)
    assert bench.exposures() == 2
    cells = [cell for summary in bench.transport.summaries for cell in summary["cells"]]
    assert sum(cell["errors"] for cell in cells) == 1
    assert not any(cell["units"] for cell in cells)


def test_a_child_process_begins_anew_and_leaves_the_rest_to_its_parent(bench: Bench) -> None:
    bench.work()
    bench.reporter.after_fork()
    bench.reporter.finish()
    assert bench.sequences == []
    bench.work()
    bench.run(2.0)
    assert bench.sequences == [1]
    assert bench.exposures() == 1


def test_the_last_summary_is_tried_again_while_there_is_time(bench: Bench) -> None:
    bench.work()
    bench.transport.replies.append(ConnectError("restarting"))
    bench.reporter.stop(patience_s=5.0)
    bench.reporter.finish()
    assert bench.sequences == [1, 1]


@pytest.mark.parametrize(
    "fault", [StatusError(401, None), StatusError(503, 60.0), ConnectError("gone")]
)
def test_the_end_does_not_wait_for_a_server_that_will_not_be_back_in_time(
    bench: Bench, fault: Exception
) -> None:
    bench.work()
    bench.transport.replies.extend([fault, fault, fault, fault, fault, fault])
    if isinstance(fault, ConnectError):
        bench.run(20.0)  # an outage of some time
    tried = len(bench.transport.summaries)
    bench.reporter.stop(patience_s=2.0)
    bench.reporter.finish()
    assert len(bench.transport.summaries) == tried + 1


def test_a_process_that_never_met_the_server_does_not_wait_for_it(bench: Bench) -> None:
    bench.state.flag_set = EMPTY_FLAG_SET
    bench.reporter.unscoped("new-checkout")
    bench.transport.replies.append(ConnectError("refused"))
    bench.reporter.stop(patience_s=5.0)
    bench.reporter.finish()
    assert bench.sequences == [1]


def test_after_an_hour_of_refusals_it_reports_within_half_a_minute(bench: Bench) -> None:
    bench.transport.replies.extend([StatusError(401)] * 10_000)
    for _ in range(360):
        bench.work()
        bench.run(10.0)
    bench.transport.replies.clear()
    refused = len(bench.transport.summaries)
    assert refused <= 3_600 / 10, "seldom"
    bench.run(30.0)
    assert len(bench.transport.summaries) > refused
    bench.run(30.0)
    assert bench.exposures() == 360, "nothing is lost, nothing doubled"
