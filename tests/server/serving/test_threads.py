"""The threads of the HTTP server, handed numbers in place of connections."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flagd_server.serving.threads import MOST_TOGETHER, Threads
from tests.waiting import eventually


class Handler:
    """Handles numbers; those under 0 hold their thread until they are let go."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.holding: list[int] = []
        self.let_go = threading.Event()

    def __call__(self, number: Any) -> None:
        if number < 0:
            self.holding.append(number)
            self.let_go.wait()
        self.handled.append(number)


@contextmanager
def serving(number: int, handler: Handler) -> Iterator[Threads]:
    before = set(threading.enumerate())
    threads = Threads(number, handler)
    own = set(threading.enumerate()) - before
    try:
        yield threads
    finally:
        handler.let_go.set()
        threads.shutdown(wait=False)
    for thread in own:
        thread.join(60)
        assert not thread.is_alive()


def together(threads: Any, *numbers: int) -> None:
    for number in numbers:
        threads.put_together(number)
    threads.hand_over()


@pytest.fixture
def handler() -> Handler:
    return Handler()


def test_each_is_handled_once_however_it_came(handler: Handler) -> None:
    with serving(4, handler) as threads:
        for number in range(0, 20_000, 2):
            together(threads, number)
            threads.put(number + 1)  # type: ignore[arg-type]
        assert eventually(lambda: len(handler.handled) == 20_000)
        assert threads.waiting == 0
    assert sorted(handler.handled) == list(range(20_000))


def test_what_was_put_together_before_a_call_is_all_handled_by_it(handler: Handler) -> None:
    with serving(1, handler) as threads:
        together(threads, *range(1_000))
        assert eventually(lambda: handler.handled == list(range(1_000)))
        assert not threads.has_together


def test_one_that_holds_its_thread_holds_up_those_behind_it_to_the_next_call(
    handler: Handler,
) -> None:
    with serving(3, handler) as threads:
        together(threads, -1, -2, 3)
        assert eventually(lambda: handler.holding == [-1])
        assert threads.has_together
        threads.hand_over()
        assert eventually(lambda: handler.holding == [-1, -2])
        threads.hand_over()
        assert eventually(lambda: handler.handled == [3])
        assert not threads.has_together


def test_who_came_alone_has_a_turn_among_many_that_came_together(handler: Handler) -> None:
    with serving(1, handler) as threads:
        together(threads, -1)
        assert eventually(lambda: handler.holding == [-1])
        together(threads, *range(1, 101))
        threads.put(1_000)  # type: ignore[arg-type]
        handler.let_go.set()
        assert eventually(lambda: len(handler.handled) == 102)
    # The turn that was on, and the one that had been called before it came.
    assert handler.handled.index(1_000) <= 2 * MOST_TOGETHER


def test_looks_while_all_are_held_leave_no_more_calls_than_requests(handler: Handler) -> None:
    with serving(2, handler) as threads:
        for number in (-1, -2):
            threads.put(number)  # type: ignore[arg-type]
        assert eventually(lambda: len(handler.holding) == 2)
        together(threads, 3)
        for _ in range(1_000):
            threads.hand_over()
        assert threads.waiting == 1
        handler.let_go.set()
        assert eventually(lambda: sorted(handler.handled) == [-2, -1, 3])
        assert threads.waiting == 0
