"""One thread that makes, about once a second, whatever has become due by itself."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from flagd_server.errors import NotLeadingError

logger = logging.getLogger(__name__)

_TICK_S = 1.0

Step = Callable[[float], None]
"""Takes monotonic seconds. Each of its moves is a transaction which looks first whether it is still
due, so that neither a restart nor a change of the leader skips or doubles one."""


class Conductor:
    """Calls each step in turn; one that fails is logged, called again the next time, and keeps
    none of the others from being called.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        clock: Callable[[], float] = time.monotonic,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """Args:
        leads: whether to call them now.
        """
        self._steps = steps
        self._clock = clock
        self._leads = leads
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flagd-conductor", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread; what is due then is made after the next start. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def tick(self) -> None:
        """Call each step once."""
        if not self._leads():
            return
        for step in self._steps:
            try:
                step(self._clock())
            except NotLeadingError:
                return  # the next leader goes on
            except Exception:  # the thread's edge: the others go on
                logger.exception("a step that was due could not be made; it is tried again")

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_S):
            self.tick()
