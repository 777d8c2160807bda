import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from flagd_sdk.integrations.web import RequestScope, running_request
from tests.sdk.integrations.pages import Counted, PaymentError


def opened(counted: Counted, ask: Callable[[], Any] = lambda: {"targetingKey": "ann"}) -> Any:
    return RequestScope(counted.flags, ask)


def test_it_is_current_only_where_it_runs(counted: Counted) -> None:
    scope = opened(counted)
    assert running_request() is None
    with scope.running(), counted.flags.scope():
        assert running_request() is scope
    assert running_request() is None


def test_it_ends_once(counted: Counted) -> None:
    scope = opened(counted)
    with scope.running():
        counted.flags.is_enabled("on")
        scope.end()
        scope.end(PaymentError())
    assert counted.cells == {"on": (1, 0)}


def test_after_a_first_evaluation_it_is_as_fast_as_any_scope(counted: Counted) -> None:
    scope = opened(counted)
    with scope.running():
        counted.flags.is_enabled("on")
        assert scope.resolvers is scope.flag_set.resolvers
        assert scope.context == {"targetingKey": "ann"}
        assert scope.unit == "ann"


def test_a_first_evaluation_may_bring_the_units_own_context(counted: Counted) -> None:
    with opened(counted).running():
        mine = counted.flags.merged_details("split", False, {"targetingKey": "ann"})
        other = counted.flags.merged_details("late", False, {"targetingKey": "bob"})
    assert (mine.reason, other.value) == ("SPLIT", True)
    assert counted.unscoped == {"late": 1}


def test_what_the_framework_answered_first_is_the_cause(counted: Counted) -> None:
    scope = opened(counted)
    with scope.running():
        counted.flags.is_enabled("on")
        scope.fail_later(PaymentError())
        scope.fail_later(KeyError("in the error page"))
        scope.answer(500)
    scope.end(ValueError())
    assert counted.kinds == {("on", "error:PaymentError"): 1}


def test_once_the_client_has_gone_nothing_is_a_failure(counted: Counted) -> None:
    scope = opened(counted)
    with scope.running():
        counted.flags.is_enabled("on")
    scope.lose_client()
    scope.answer(500)
    scope.fail_later(KeyError())
    scope.end(ValueError())
    assert counted.cells == {"on": (1, 0)}


def test_a_failure_before_the_client_went_counts(counted: Counted) -> None:
    scope = opened(counted)
    with scope.running():
        counted.flags.is_enabled("on")
    scope.answer(500)
    scope.lose_client()
    scope.end(ConnectionResetError())
    assert counted.kinds == {("on", "error:500"): 1}


def test_a_failure_without_a_flag_does_not_ask_for_the_context(counted: Counted) -> None:
    asked: list[int] = []
    scope = opened(counted, lambda: asked.append(1) or {})
    scope.answer(500)
    scope.end(ValueError())
    assert asked == []


def test_threads_of_one_request_get_one_context(counted: Counted) -> None:
    asked: list[int] = []
    meet = threading.Barrier(4, timeout=20)

    def ask() -> dict[str, object]:
        asked.append(1)
        threading.Event().wait(0.02)
        return {"targetingKey": "ann"}

    scope = opened(counted, ask)

    def evaluate() -> str | None:
        meet.wait()
        with scope.running():
            return counted.flags.details("split", False).variant

    with ThreadPoolExecutor(4) as pool:
        variants = {job.result() for job in [pool.submit(evaluate) for _ in range(4)]}
    assert asked == [1]
    assert variants == {counted.flags.details("split", False, {"targetingKey": "ann"}).variant}


@pytest.mark.parametrize("given", [None, "ann", [("targetingKey", "ann")]])
def test_a_context_that_is_no_mapping_is_told(
    counted: Counted, given: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flagd_sdk"), opened(counted, lambda: given).running():
        assert counted.flags.is_enabled("on")
    assert "expected a mapping" in caplog.text


def test_a_context_function_that_asks_for_a_flag_gets_an_answer_and_is_told(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    def ask() -> dict[str, object]:
        return {"targetingKey": "ann", "beta": counted.flags.is_enabled("late")}

    scope = opened(counted, ask)
    with caplog.at_level(logging.WARNING, "flagd_sdk"), scope.running():
        assert counted.flags.is_enabled("on")
    assert scope.context == {"targetingKey": "ann", "beta": True}
    assert "asks for a flag" in caplog.text


def test_a_context_function_that_waits_for_a_thread_that_asks_for_a_flag_does_not_hang(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[bool] = []

    def ask() -> dict[str, object]:
        def elsewhere() -> None:
            answers.append(counted.flags.is_enabled("late"))

        # As asgiref's async_to_sync, which runs it in another thread's event loop.
        thread = threading.Thread(target=copy_context().run, args=(elsewhere,), daemon=True)
        thread.start()
        thread.join(30.0)
        return {"targetingKey": "ann"}

    scope = opened(counted, ask)
    with caplog.at_level(logging.WARNING, "flagd_sdk"), scope.running():
        assert counted.flags.is_enabled("on")
    assert answers == [True]
    assert scope.context == {"targetingKey": "ann"}
    assert "asks for a flag" in caplog.text
