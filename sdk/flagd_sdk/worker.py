"""A background thread that is asked to end, waited for, and begun anew in a forked child."""

import threading
from contextlib import suppress


class ReentrantEvent:
    """As `threading.Event`, for one thread that waits; anything may set it.

    Also a signal handler that interrupts whoever is setting it, as one that closes the client does.
    With an Event, whose lock its owner can't take again, the process would hang.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._bell: threading.Lock | None = None  # what the waiting thread waits for

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        bell = self._bell
        if bell is not None:
            with suppress(RuntimeError):  # it rang already
                bell.release()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout_s: float) -> None:
        """Return when it is set, or after a time of 0 or more."""
        # Made here: one from before gevent patched the process would hold up its loop.
        bell = threading.Lock()
        bell.acquire()
        self._bell = bell
        if not self._is_set:  # asked when the bell hangs, so that one of the two sees the other
            bell.acquire(timeout=timeout_s)


class Worker:
    """Runs `_run` in one daemon thread, until `_is_over`.

    A subclass overrides `_reset` with all that a forked child must not inherit, and calls it when
    it is made.
    """

    thread_name: str

    def _reset(self) -> None:
        self._stopping = ReentrantEvent()
        self._thread: threading.Thread | None = None

    def _run(self) -> None:
        raise NotImplementedError

    def _is_over(self, stopping: ReentrantEvent) -> bool:
        """Whether a thread that began with this event is to end.

        It may have been replaced: whoever forks on this thread, as a listener can, goes on in the
        child with a copy of it, which must not read on from its parent's connection.
        """
        return stopping is not self._stopping or stopping.is_set()

    def start(self) -> None:
        """Start the thread, unless it was started before.

        Raises:
            RuntimeError: the system has no more threads.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self.thread_name, daemon=True)
            thread.start()
            self._thread = thread

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; return whether it has ended."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def after_fork(self) -> None:
        """Begin anew in a child process: what its parent left undone, its parent does."""
        self._reset()
