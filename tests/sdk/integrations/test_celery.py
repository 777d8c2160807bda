"""Celery's own tracer on tasks in this process; real workers are in `end_to_end/test_celery.py`."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery, Task, signals
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject

from flagd_sdk import FlagClient
from flagd_sdk.integrations.celery import instrument
from flagd_sdk.scope import current_scope
from tests.sdk.fakes import SilentTransport, flag, flag_set


class PaymentError(Exception):
    pass


class DeclinedError(Exception):
    pass


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("no")
        self.lock = lambda: None


@pytest.fixture
def transport() -> SilentTransport:
    return SilentTransport()


@pytest.fixture
def flags(transport: SilentTransport) -> Iterator[FlagClient]:
    document = flag_set(flag("on", on=100_000), flag("half", on=50_000))
    with FlagClient(
        "http://server",
        "t",
        transport=transport,
        cache_dir=None,
        bootstrap=document,
        exit_timeout_s=60.0,
    ) as client:
        yield client


@pytest.fixture
def app(flags: FlagClient) -> Iterator[Celery]:
    end = instrument(flags, lambda task, args, kwargs: {"targetingKey": kwargs.get("user", "")})
    yield Celery("shop", broker="memory://", set_as_current=False)
    end()


@pytest.fixture
def counted(flags: FlagClient, transport: SilentTransport) -> Callable[[], dict[str, Any]]:
    """Return exposures and errors of the flag "on", and how many errors of which kind."""

    def count() -> dict[str, Any]:
        assert flags.flush(60)
        cells = [c for s in transport.summaries for c in s["cells"] if c["flag"] == "on"]
        kinds = [k for s in transport.summaries for k in s["error_kinds"] if k["flag"] == "on"]
        return {
            "exposures": sum(cell["exposures"] for cell in cells),
            "errors": sum(cell["errors"] for cell in cells),
            # In how many summaries they come is a matter of when the reporter's thread runs.
            "kinds": {
                name: sum(each["count"] for each in kinds if each["kind"] == name)
                for name in {each["kind"] for each in kinds}
            },
        }

    return count


def run(task: Task, **request: Any) -> Any:
    """Run a task as a worker does: its outcome stays inside."""
    tracer = build_tracer(task.name, task, app=task.app)
    return tracer("id-1", (), {"user": "u1"}, {"id": "id-1", "delivery_info": {}, **request})


def raising(flags: FlagClient, error: BaseException) -> Callable[..., None]:
    def task(user: str = "") -> None:
        flags.is_enabled("on")
        raise error

    return task


def test_a_task_is_a_unit_of_work_with_the_developers_context(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    seen: list[object] = []

    @app.task
    def checkout(user: str = "") -> bool:
        scope = current_scope.get()
        assert scope is not None
        seen.append(scope.context)
        return flags.is_enabled("on") and flags.is_enabled("on")

    assert checkout.apply(kwargs={"user": "ann"}).get() is True
    run(checkout)
    assert seen == [{"targetingKey": "ann"}, {"targetingKey": "u1"}]
    assert current_scope.get() is None
    assert counted() == {"exposures": 2, "errors": 0, "kinds": {}}


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (PaymentError(), {"error:PaymentError": 1}),
        (SoftTimeLimitExceeded(), {"error:SoftTimeLimitExceeded": 1}),
        (Reject(PaymentError("full")), {"error:PaymentError": 1}),
        (Reject("not for us"), {}),
        (Ignore(), {}),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_leaves_a_task_decides_how_it_ended(
    app: Celery,
    flags: FlagClient,
    counted: Callable[[], dict[str, Any]],
    error: BaseException,
    kinds: dict[str, int],
) -> None:
    run(app.task(raising(flags, error)))
    assert counted() == {"exposures": 1, "errors": sum(kinds.values()), "kinds": kinds}


@pytest.mark.parametrize("propagates", [True, False])
def test_an_eager_task_fails_whether_or_not_its_caller_sees_the_error(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]], propagates: bool
) -> None:
    task = app.task(raising(flags, PaymentError()))
    if propagates:
        with pytest.raises(PaymentError):
            task.apply(throw=True)
    else:
        assert task.apply().state == "FAILURE"
    assert counted() == {"exposures": 1, "errors": 1, "kinds": {"error:PaymentError": 1}}


def test_what_ends_the_process_is_no_failure_of_the_task(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    with pytest.raises(SystemExit):  # as a revoked task is ended
        run(app.task(raising(flags, SystemExit(1))))
    assert counted() == {"exposures": 1, "errors": 0, "kinds": {}}
    assert current_scope.get() is None


def test_a_task_that_returns_an_error_has_not_failed(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    @app.task(ignore_result=True)
    def careful(user: str = "") -> Exception:
        flags.is_enabled("on")
        return PaymentError()

    run(careful)
    assert counted()["errors"] == 0


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries are sent nowhere."""
    from celery.canvas import Signature

    monkeypatch.setattr(Signature, "apply_async", lambda *args, **kwargs: None)


@pytest.mark.usefixtures("unsent")
@pytest.mark.parametrize("error", [PaymentError(), UnpicklableError()], ids=repr)
@pytest.mark.parametrize("how", ["autoretry", "retry(exc)", "retry()"])
def test_an_attempt_that_an_error_ends_is_a_failure_though_it_is_retried(
    app: Celery,
    flags: FlagClient,
    counted: Callable[[], dict[str, Any]],
    how: str,
    error: Exception,
) -> None:
    def attempt(self: Task, user: str = "") -> None:
        flags.is_enabled("on")
        try:
            raise error
        except Exception as caught:
            if how == "autoretry":
                raise
            raise self.retry(**({"exc": caught} if how == "retry(exc)" else {})) from None

    options = {"autoretry_for": (Exception,)} if how == "autoretry" else {}
    result = run(app.task(bind=True, **options)(attempt))
    assert result.info.state == "RETRY"
    kind = f"error:{type(error).__name__}"
    assert counted() == {"exposures": 1, "errors": 1, "kinds": {kind: 1}}


def test_each_attempt_of_an_eager_task_is_a_unit_of_work(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    @app.task(bind=True, autoretry_for=(PaymentError,), retry_kwargs={"max_retries": 2})
    def stubborn(self: Task, user: str = "") -> str:
        flags.is_enabled("on")
        if self.request.retries < 2:
            raise PaymentError
        return "paid"

    assert stubborn.apply(kwargs={"user": "ann"}).get() == "paid"
    assert counted() == {"exposures": 3, "errors": 2, "kinds": {"error:PaymentError": 2}}


@pytest.mark.usefixtures("unsent")
def test_to_ask_again_later_is_no_failure(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    @app.task(bind=True)
    def poll(self: Task, user: str = "") -> None:
        flags.is_enabled("on")
        raise self.retry(countdown=5)

    assert run(poll).info.state == "RETRY"
    assert counted() == {"exposures": 1, "errors": 0, "kinds": {}}


@pytest.mark.usefixtures("unsent")
def test_what_a_task_says_it_throws_is_no_failure(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    run(app.task(throws=(DeclinedError,))(raising(flags, DeclinedError())))

    @app.task(bind=True, throws=(DeclinedError,))
    def again(self: Task, user: str = "") -> None:
        flags.is_enabled("on")
        raise self.retry(exc=DeclinedError())

    run(again)
    assert counted() == {"exposures": 2, "errors": 0, "kinds": {}}


def test_tasks_nest_each_with_its_own_outcome(
    app: Celery, flags: FlagClient, counted: Callable[[], dict[str, Any]]
) -> None:
    inner = app.task(raising(flags, PaymentError()))

    @app.task
    def outer(user: str = "") -> None:
        before = current_scope.get()
        assert inner.apply(kwargs={"user": "bob"}).state == "FAILURE"
        assert current_scope.get() is before
        flags.is_enabled("on")
        with pytest.raises(PaymentError):
            inner(user="eve")  # a function of this unit of work

    run(outer)
    assert counted() == {"exposures": 2, "errors": 1, "kinds": {"error:PaymentError": 1}}


def test_a_failure_linked_to_one_flag_is_counted_for_it_alone(
    app: Celery, flags: FlagClient, transport: SilentTransport
) -> None:
    @flags.when("on", otherwise=lambda: None, fallback=False)
    def new() -> None:
        raise PaymentError

    @app.task
    def checkout(user: str = "") -> None:
        flags.is_enabled("half")
        new()

    run(checkout)
    assert flags.flush(60)
    cells = [cell for summary in transport.summaries for cell in summary["cells"]]
    assert {cell["flag"]: cell["errors"] for cell in cells} == {"on": 1, "half": 0}


@pytest.mark.parametrize("returned", [{}, KeyError("user"), "u1", None], ids=repr)
def test_a_context_that_fails_costs_the_context_and_is_told_once(
    flags: FlagClient,
    counted: Callable[[], dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    returned: object,
) -> None:
    def context(task: Task, args: object, kwargs: object) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    app = Celery("shop", broker="memory://", set_as_current=False)

    @app.task
    def task() -> bool:
        return flags.is_enabled("on")

    end = instrument(flags, context)
    try:
        with caplog.at_level(logging.WARNING):
            assert [task.apply().get() for _ in range(3)] == [True] * 3
    finally:
        end()
    assert counted()["exposures"] == 3
    told = [record for record in caplog.records if "context" in record.getMessage()]
    assert len(told) == (returned != {})


def test_it_ends_when_told_to(flags: FlagClient) -> None:
    before = [len(s.receivers) for s in (signals.task_prerun, signals.worker_process_shutdown)]
    end = instrument(flags)
    app = Celery("shop", broker="memory://", set_as_current=False)

    @app.task
    def task() -> bool:
        return current_scope.get() is not None

    assert task.apply().get() is True
    end()
    assert task.apply().get() is False
    after = [len(s.receivers) for s in (signals.task_prerun, signals.worker_process_shutdown)]
    assert before == after


@pytest.mark.usefixtures("app")
def test_a_child_of_a_pool_has_its_threads_before_its_first_task(flags: FlagClient) -> None:
    engine = flags._engine
    engine.after_fork()
    assert engine.is_dormant
    signals.worker_process_init.send(sender="shop@here")
    assert not engine.is_dormant


@pytest.mark.usefixtures("app")
def test_a_child_of_a_pool_reports_before_it_ends(
    flags: FlagClient, transport: SilentTransport
) -> None:
    with flags.scope({"targetingKey": "u1"}):
        flags.is_enabled("on")
    signals.worker_process_shutdown.send(sender="shop@here", pid=1, exitcode=0)
    cells = [cell for summary in transport.summaries for cell in summary["cells"]]
    assert sum(cell["exposures"] for cell in cells) == 1
