"""Celery: each execution of a task is a unit of work.

flags = FlagClient(…)
instrument(flags, lambda task, args, kwargs: {"targetingKey": kwargs.get("user_id")})

A task that fails counts against the variants that were served in it, and so does an attempt that an
exception makes Celery retry or reject: waiting for the last attempt could take hours, in which the
feature goes on hurting. What a task lists in `throws` is expected, and no failure. A task called as
a function runs in its caller's unit of work; run by `apply`, or eagerly, it is one of its own.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from celery import Task, signals, states
from celery.exceptions import Ignore, Reject, Retry

from flagd_sdk.client import FlagClient
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.scope import NO_CONTEXT, Scope

# Takes a task, its positional arguments and its keyword arguments.
TaskContext: TypeAlias = Callable[[Task, Sequence[Any], Mapping[str, Any]], ContextMapping]


def instrument(flags: FlagClient, context: TaskContext | None = None) -> Callable[[], None]:
    """Make each task that this process runs from now on a unit of work of the client.

    In a pool of processes, each child starts its own threads when it is forked, and reports what is
    left before it ends: after `max_tasks_per_child`, at a shutdown, cold or warm, and when its task
    is revoked. What ends a process at once (SIGKILL, as for want of memory) takes with it the unit
    of work that runs.

    Args:
        context: gives what flags are evaluated with. Where it raises, or returns no mapping, the
            task goes on with an empty context, and the log says so.

    Returns:
        A callable that ends it.
    """
    tasks = _Tasks(flags, context)
    receivers: tuple[tuple[Any, Callable[..., object]], ...] = (
        (signals.task_prerun, tasks.begin),
        (signals.task_postrun, tasks.end),
        (signals.worker_process_init, tasks.start_process),
        (signals.worker_process_shutdown, tasks.end_process),
    )
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False)

    def end() -> None:
        for signal, receiver in receivers:
            signal.disconnect(receiver)

    return end


class _Tasks:
    """What is done where Celery says that a task or a process begins or ends.

    Celery sends the two signals of a task in the thread that runs it, nested as executions nest,
    the second whatever happens. It logs what a receiver raises, and goes on.
    """

    def __init__(self, flags: FlagClient, context: TaskContext | None) -> None:
        self._flags = flags
        self._context = context
        # A scope is kept on the request, which belongs to one execution: two of the same task, or
        # even of the same id, may run at once.
        self._attribute: Final = f"_flagd_scope_{id(self)}"

    def begin(self, task: Task, args: Any, kwargs: Any, **_: object) -> None:
        scope = self._flags.scope(self._context_of(task, args, kwargs))
        setattr(task.request, self._attribute, scope.__enter__())

    def _context_of(self, task: Task, args: Any, kwargs: Any) -> ContextMapping:
        if self._context is None:
            return NO_CONTEXT
        try:
            found: object = self._context(task, args, kwargs)
            if isinstance(found, Mapping):
                return found
            raise TypeError(f"expected a mapping, not {type(found).__name__}")
        except Exception:  # the host's code
            self._flags._engine.notices.crash(
                "context:celery",
                "The function that gives a task's context failed; tasks go on with an empty one",
            )
            return NO_CONTEXT

    def end(self, task: Task, retval: object, state: str | None, **_: object) -> None:
        scope: Scope | None = task.request.__dict__.pop(self._attribute, None)
        if scope is None:
            return
        error: BaseException | None = None
        try:
            if state is None:
                # An exception goes on to the caller while this runs: an eager task's, or one that
                # ends the process.
                error = _cause(task, sys.exc_info()[1])
            elif state != states.SUCCESS:
                error = _cause(task, retval)
        finally:
            scope.__exit__(None if error is None else type(error), error, None)

    def start_process(self, **_: object) -> None:
        # The first task of an idle child is not to meet the flags of the moment when it was forked.
        self._flags.wait_until_ready(0)

    def end_process(self, **_: object) -> None:
        # The pool ends its processes without any of Python's ways to be called at the exit.
        self._flags.close(self._flags._engine.exit_timeout_s)


def _cause(task: Task, outcome: object) -> BaseException | None:
    """Return the exception that an execution failed with, if it did."""
    error: object = outcome
    if isinstance(outcome, Retry):
        # Raised where another exception was handled, or to ask again later, which is no failure.
        # Celery's own copy of that exception comes second: it lacks what can't be pickled.
        error = outcome.__context__ or outcome.exc
    elif isinstance(outcome, Reject):
        error = outcome.reason
    elif isinstance(outcome, Ignore):
        error = None
    if not isinstance(error, BaseException) or (task.throws and isinstance(error, task.throws)):
        return None
    return error
