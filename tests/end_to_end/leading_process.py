"""A process that stands for leadership, and says when it leads: run by test_postgres_leadership.py.

Writes a line for each thing that it sees: what, and the seconds of a clock that all processes of
the machine share. It resigns when its standard input ends.
"""

import os
import signal
import sys
import threading
import time

from flagd_server.errors import StorageError
from flagd_server.storage import open_storage
from flagd_server.storage.postgres_leadership import PostgresLeadership

_LOOKS_EVERY_S = 0.002
_CONTINUED = {signal.SIGCONT}


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(what: str, at: float, *more: object) -> None:
    """Write a line, whole: two threads do."""
    os.write(1, f"{what} {at:.6f} {' '.join(map(str, more))}\n".encode())


def watch(leadership: PostgresLeadership, ending: threading.Event) -> None:
    """Say between which two looks the answer changed: "led" is the last time that it was yes."""
    led_at: float | None = None
    while not ending.wait(_LOOKS_EVERY_S):
        at = now()
        term = leadership.term
        if term is not None:
            if led_at is None:
                say("leads", at, term)
            led_at = at
        elif led_at is not None:
            say("led", led_at)
            led_at = None
    if led_at is not None:
        say("led", led_at)


def hold_the_turn(url: str) -> None:
    """Be in the middle of writing until this process goes on after it was stopped, and say what
    became of it.
    """
    storage = open_storage(url)
    try:
        with storage.transaction():
            say("holds", now())
            signal.sigwait(_CONTINUED)
    except StorageError:
        say("undone", now())
    else:
        say("kept", now())
    storage.close()


def main(url: str, *, writes: bool) -> None:
    ending = threading.Event()

    def on_change(leads: bool) -> None:
        say("told", now(), leads)
        if writes and leads:
            threading.Thread(target=hold_the_turn, args=(url,), daemon=True).start()

    leadership = PostgresLeadership(url, on_change)
    watcher = threading.Thread(target=watch, args=(leadership, ending))
    watcher.start()
    leadership.start()
    sys.stdin.read()
    leadership.close()
    time.sleep(10 * _LOOKS_EVERY_S)
    ending.set()
    watcher.join()


if __name__ == "__main__":
    # Waited for by one thread; blocked in all, or any of them might be told.
    signal.pthread_sigmask(signal.SIG_BLOCK, _CONTINUED)
    main(sys.argv[1], writes="writing" in sys.argv)
