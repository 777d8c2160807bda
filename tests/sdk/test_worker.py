import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from flagd_sdk.worker import ReentrantEvent


def interrupted(work: Callable[[], None], after_steps: int) -> bool:
    """Send this thread a signal in the middle of some work; return whether it came to that."""
    left, is_sent = after_steps, False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left, is_sent
        frame.f_trace_opcodes = True
        left -= 1
        if left < 0 and not is_sent:
            is_sent = True
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return is_sent


def test_an_event_can_be_set_by_a_signal_handler_while_it_is_being_set() -> None:
    event = ReentrantEvent()
    before = signal.signal(signal.SIGTERM, lambda number, frame: event.set())
    points = 0
    try:
        is_over = False
        while not is_over:
            event = ReentrantEvent()
            waiting = threading.Thread(target=event.wait, args=(60.0,), daemon=True)
            waiting.start()
            is_over = not interrupted(event.set, points)
            waiting.join(30.0)
            assert not waiting.is_alive(), points
            assert event.is_set(), points
            points += 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert points > 10


def test_what_is_set_while_nobody_waits_ends_the_next_wait_and_no_other() -> None:
    event = ReentrantEvent()

    def is_waiting(after_s: float) -> bool:
        thread = threading.Thread(target=event.wait, args=(60.0,))
        thread.start()
        thread.join(after_s)
        is_alive = thread.is_alive()
        event.set()
        thread.join()
        event.wait(0.0)
        event.clear()
        return is_alive

    event.set()
    event.set()
    assert not is_waiting(30.0)
    assert is_waiting(0.2)
