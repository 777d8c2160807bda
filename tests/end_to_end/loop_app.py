"""An application on an event loop, which notes the longest time that the loop stood still.

Run by test_sdk_loops.py: as asyncio, or as gevent, patched before the SDK is imported, after that,
or when its client is at work already. Prints one line of JSON: step → seconds.
"""

import _thread
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HUNG_S = 5.0  # what is slow, is so slow
PATIENCE_S = 40.0  # bounds waiting only
PATCH = "gevent's patch"  # what that costs is not ours
mode, folder = sys.argv[1], Path(sys.argv[2])
urls: dict[str, str] = json.loads(sys.argv[3])

if mode != "asyncio":
    import gevent
    from gevent import monkey
if mode == "gevent before":
    monkey.patch_all()
from flagd_sdk import FlagClient  # noqa: E402

if mode == "gevent after":
    monkey.patch_all()

_fsync = os.fsync
_real_sleep = time.sleep if mode == "asyncio" else monkey.get_original("time", "sleep")
_start_real_thread = (
    _thread.start_new_thread
    if mode == "asyncio"
    else monkey.get_original("_thread", "start_new_thread")
)


def slow_fsync(descriptor: int) -> None:
    _real_sleep(HUNG_S)
    _fsync(descriptor)


Step = tuple[str, Callable[[], object], bool]


def client(name: str, **settings: Any) -> FlagClient:
    flags = FlagClient(urls[name], "fr_sdk_production_Secret", **{"cache_dir": None} | settings)
    made.append(flags)
    return flags


made: list[FlagClient] = []


def work() -> None:
    with made[-1].scope({"targetingKey": "u1"}):
        made[-1].is_enabled("on")


def expect(is_so: bool) -> None:
    if not is_so:
        raise AssertionError("the step before was to end otherwise")


def steps() -> Iterator[Step]:
    """Return name, what to do, and whether that waits for something."""
    # The HTTP stack is imported here, as with any library at its first use.
    yield "first client", lambda: client("healthy"), False
    yield "ready", lambda: expect(made[-1].wait_until_ready(PATIENCE_S)), True
    if mode == "gevent late":
        yield PATCH, monkey.patch_all, False
    yield "work", work, False
    yield "flush", lambda: expect(made[-1].flush(PATIENCE_S)), True
    yield "close", lambda: expect(made[-1].close(PATIENCE_S)), True
    for name, wait_s in ("hanging", HUNG_S), ("refusing", 0.2):
        yield f"{name}: client", partial(client, name), False
        wait = partial(made[-1].wait_until_ready, wait_s)
        yield f"{name}: ready", lambda wait=wait: expect(not wait()), True
        yield f"{name}: work", work, False
        yield f"{name}: flush", lambda: made[-1].flush(0.2), True
        yield f"{name}: close", lambda: made[-1].close(0.2), True
    yield "many changes: client", lambda: client("changing"), False
    yield "many changes: ready", lambda: expect(made[-1].wait_until_ready(PATIENCE_S)), True
    yield "many changes", lambda: time.sleep(0.5), True
    yield "many changes: close", lambda: made[-1].close(PATIENCE_S), True
    os.fsync = slow_fsync
    yield "slow disk: client", lambda: client("healthy", cache_dir=folder), False
    yield "slow disk: ready", lambda: expect(made[-1].wait_until_ready(PATIENCE_S)), True
    yield "slow disk: work", work, False
    yield "slow disk", lambda: time.sleep(HUNG_S), True
    os.fsync = _fsync
    yield "slow disk: close", lambda: expect(made[-1].close(PATIENCE_S)), True


TICK_S = 0.005
PAUSED_S = 0.1


class Gaps:
    """The longest time between two ticks, in each step, less the time when nothing here ran.

    A thread of the system that only sleeps tells the two apart: who waits for a server or a disk
    does not hold it up, but a machine that gives this process no processor does.
    """

    def __init__(self) -> None:
        self.step = "no client"
        self._last = time.monotonic()
        self._ticks: list[tuple[str, float, float]] = []
        self._pauses: list[tuple[float, float]] = []
        _start_real_thread(self._watch, ())

    def tick(self) -> None:
        now = time.monotonic()
        self._ticks.append((self.step, self._last, now))
        self._last = now

    def worst_s(self) -> dict[str, float]:
        """Return step → seconds."""
        pauses = list(self._pauses)
        worst_s: dict[str, float] = {}
        for step, began, ended in self._ticks:
            gap_s = ended - began
            if gap_s > PAUSED_S:
                gap_s -= sum(max(0.0, min(ended, end) - max(began, at)) for at, end in pauses)
            if step != PATCH:
                worst_s[step] = max(gap_s, worst_s.get(step, 0.0))
        return worst_s

    def _watch(self) -> None:
        last = time.monotonic()
        while True:
            _real_sleep(TICK_S)
            now = time.monotonic()
            if now - last > PAUSED_S:
                self._pauses.append((last, now))
            last = now


gaps = Gaps()


def run_gevent() -> None:
    def tick() -> None:
        while True:
            gevent.sleep(TICK_S)
            gaps.tick()

    def units(name: str) -> None:
        # Two units of work that take turns keep their contexts apart.
        for _ in range(50):
            with made[-1].scope({"targetingKey": name}) as scope:
                gevent.sleep(0)
                made[-1].is_enabled("on")
                expect(scope.served.keys() == {"on"})

    ticking = gevent.spawn(tick)
    gevent.sleep(0.2)
    for gaps.step, do, _ in steps():
        do()
        if gaps.step == "ready":
            workers = [gevent.spawn(units, f"u{n}") for n in range(10)]
            gevent.joinall(workers, raise_error=True)
        gevent.sleep(4 * TICK_S)
    ticking.kill()


async def run_asyncio() -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(TICK_S)
            gaps.tick()

    async def units(name: str) -> None:
        for _ in range(50):
            with made[-1].scope({"targetingKey": name}) as scope:
                await asyncio.sleep(0)
                made[-1].is_enabled("on")
                expect(scope.served.keys() == {"on"})

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.2)
    for gaps.step, do, waits in steps():
        if waits:
            await asyncio.to_thread(do)
        else:
            do()
        if gaps.step == "ready":
            await asyncio.gather(*(units(f"u{n}") for n in range(10)))
        await asyncio.sleep(4 * TICK_S)
    ticking.cancel()


if __name__ == "__main__":
    if mode == "asyncio":
        asyncio.run(run_asyncio())
    else:
        run_gevent()
    print(json.dumps(gaps.worst_s()))
