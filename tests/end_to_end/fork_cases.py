"""Ways to fork that go wrong. Each is run by test_sdk_fork_cases.py as a program of its own.

Each returns how many units of work its processes did in all.
"""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from flagd_sdk import ClientStatus, FlagClient, late_imports
from flagd_sdk.config import ClientConfig
from flagd_sdk.late_imports import importing
from flagd_sdk.transport import HttpTransport

URL, TOKEN = os.environ["FLAGD_URL"], os.environ["FLAGD_TOKEN"]
FLAG = os.environ["FLAG"]
UNITS = 10
WITHIN_S = 60.0  # bounds waiting only
FORKS_UNDER_LOAD = 100

shared: FlagClient | None = None


def client(**settings: Any) -> FlagClient:
    """Return a client that hears of changes by its stream alone, and has time to report at last."""
    patient = {"poll_interval_s": 10 * WITHIN_S, "exit_timeout_s": WITHIN_S}
    flags = FlagClient(URL, TOKEN, cache_dir=None, **patient, **settings)
    assert flags.wait_until_ready(WITHIN_S)
    return flags


def work(flags: FlagClient, count: int = UNITS) -> int:
    """Do units of work, of which some fail; return how many."""
    for number in range(count):
        with flags.scope({"targetingKey": f"{os.getpid()}-{number}"}):
            assert flags.is_enabled(FLAG)
            if number % 5 == 0:
                flags.fail("declined")
    return count


def own_threads() -> list[str]:
    """Name the client's threads, without the one that forked, which is the main one in a child."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    return sorted(thread.name for thread in others if thread.name.startswith("flagd-"))


def fork(child: Callable[[], object]) -> int:
    """Run a function in a forked child that ends with `os._exit`."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException:
            logging.exception("in a child")
            os._exit(1)
        os._exit(0)
    return pid


def wait_for(pid: int, within_s: float = 1.5 * WITHIN_S) -> None:
    """Wait until a child ends well; end it and fail where it hangs."""
    deadline = time.monotonic() + within_s
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError("a child hangs")
        time.sleep(0.005)
    assert ended[1] == 0, ended


def see_a_change(flags: FlagClient) -> None:
    """Return when the flags have changed, as they do all the time."""
    has_changed = threading.Event()
    end = flags.on_change(lambda _: has_changed.set())
    assert has_changed.wait(WITHIN_S), "a process does not follow the flags"
    end()


def work_and_close(flags: FlagClient) -> None:
    work(flags)
    assert own_threads() == ["flagd-report", "flagd-stream"]
    see_a_change(flags)
    assert flags.status is ClientStatus.READY
    assert flags.close(WITHIN_S)


def under_load() -> int:
    """A hundred forks, while threads evaluate, scopes fail and the flags change all the time."""
    flags = client(report_interval_s=0.05)
    changes = [0]
    flags.on_change(lambda _: changes.__setitem__(0, changes[0] + 1))
    ending = threading.Event()
    done = [0] * 3

    def busy(slot: int) -> None:
        while not ending.is_set():
            done[slot] += work(flags)
            ending.wait(0.001)

    threads = [threading.Thread(target=busy, args=(slot,)) for slot in range(len(done))]
    for thread in threads:
        thread.start()
    children: list[int] = []
    for number in range(FORKS_UNDER_LOAD):
        children.append(fork(lambda: work_and_close(flags)))
        if number >= 4:  # so many at a time
            wait_for(children.pop(0))
    for pid in children:
        wait_for(pid)
    ending.set()
    for thread in threads:
        thread.join()
    assert changes[0] > 5, "the flags did not change meanwhile"
    assert own_threads() == ["flagd-report", "flagd-stream"]
    assert flags.close(WITHIN_S)
    return sum(done) + FORKS_UNDER_LOAD * UNITS


def unused() -> int:
    """A child that does not use the client has neither its threads nor something to wait for."""
    flags = client()
    done = work(flags)

    def child() -> None:
        assert own_threads() == []
        assert threading.active_count() == 1
        assert flags.close(5), "there is nothing to close"
        assert own_threads() == []

    wait_for(fork(child))
    assert flags.close(WITHIN_S)
    return done


def in_a_listener() -> int:
    """The stream's own thread forks; one child works, another goes on where its parent was."""
    flags = client()
    children: list[int] = []
    has_forked, told = threading.Event(), threading.Event()

    def listener(_: object) -> None:
        if has_forked.is_set():
            told.set()  # the parent's stream goes on, and no child reads from it
            return
        has_forked.set()
        children.append(fork(lambda: work_and_close(flags)))
        children.append(os.fork())

    flags.on_change(listener)
    print("ready", flush=True)
    assert told.wait(WITHIN_S)
    for pid in children:
        wait_for(pid)
    done = work(flags)
    assert flags.close(WITHIN_S)
    return done + UNITS


def in_the_reporter() -> int:
    """The reporter's own thread forks, in the middle of sending."""
    children: list[int] = []
    is_due = threading.Event()

    class Forking(HttpTransport):
        def send_summary(self, body: bytes) -> Mapping[str, Any]:
            if is_due.is_set() and not children:
                children.append(0)
                children[0] = fork(lambda: work_and_close(flags))
            return super().send_summary(body)

    flags = client(transport=Forking(ClientConfig(url=URL, token=TOKEN)))
    done = work(flags)
    is_due.set()
    done += work(flags, 1)  # else all may have been sent by now
    assert flags.flush(WITHIN_S)
    wait_for(children[0])
    assert flags.close(WITHIN_S)
    return done + UNITS


def daemon() -> int:
    """A double fork, as daemons do it; the grandchild closes nothing and ends by itself."""
    flags = client()
    done = work(flags)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(reading)
        work(flags)
        sys.exit(0)  # `writing` closes with the process
    os.close(writing)
    wait_for(pid)
    assert os.read(reading, 1) == b"", "the daemon has ended"
    assert flags.close(WITHIN_S)
    return done + UNITS


def with_exec() -> int:
    """What a child executes inherits no connection."""
    flags = client()
    done = work(flags)
    assert flags.flush(WITHIN_S)
    code = """
import os
for fd in os.listdir("/proc/self/fd"):
    try:
        assert not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except FileNotFoundError:
        pass
"""
    wait_for(fork(lambda: os.execv(sys.executable, [sys.executable, "-c", code])))
    assert flags.close(WITHIN_S)
    return done


def with_locks_held() -> int:
    """Another thread holds every lock that there is at the moment of the fork."""
    flags = client()
    done = work(flags)
    engine, reporter = flags._engine, flags._engine.reporter
    locks: list[Any] = [
        engine._lock,
        engine.notices._lock,
        engine.state._ready._cond,
        engine.state._writing,
        reporter._lock,
        reporter._settled,
    ]
    are_held, ending = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            # A fork waits for this one.
            with importing():
                are_held.set()
                ending.wait(0.2)
            ending.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert are_held.wait(WITHIN_S)

    def child() -> None:
        flags.on_change(print)
        engine.notices.mention("test", "a test")
        work_and_close(flags)

    pid = fork(child)
    ending.set()
    holder.join()
    wait_for(pid)
    assert flags.close(WITHIN_S)
    return done + UNITS


def in_a_pause() -> int:
    """The system stops the process for longer than a fork waits for an import that is under way."""
    flags = client()
    done = work(flags)
    late_imports._FORK_WAIT_S = 3.0
    has_begun, has_ended = threading.Event(), threading.Event()

    def take_long() -> None:
        with importing():
            has_begun.set()
            for _ in range(4):
                time.sleep(0.1)
            has_ended.set()

    def child() -> None:
        assert has_ended.is_set(), "forked in the middle of an import"
        work_and_close(flags)

    thread = threading.Thread(target=take_long)
    thread.start()
    assert has_begun.wait(WITHIN_S)
    stop = f"kill -STOP {os.getpid()}; sleep 4; kill -CONT {os.getpid()}"
    with subprocess.Popen(["sh", "-c", stop]):
        pid = fork(child)
    thread.join()
    wait_for(pid)
    assert flags.close(WITHIN_S)
    return done + UNITS


def in_a_unit_of_work() -> int:
    """The unit of work in which the fork happens is counted by the parent alone."""
    flags = client()
    with flags.scope({"targetingKey": "u1"}):
        assert flags.is_enabled(FLAG)
        pid = os.fork()
    if pid == 0:
        work(flags)
        os._exit(0 if flags.close(WITHIN_S) else 1)
    wait_for(pid)
    assert flags.close(WITHIN_S)
    return 1 + UNITS


def while_nothing_is_known() -> int:
    """A child whose parent knew no flag yet, and which only evaluates."""
    flags = FlagClient(URL, TOKEN, cache_dir=None)
    pid = os.fork()
    if pid == 0:
        deadline = time.monotonic() + WITHIN_S
        done = 0
        while not done:
            with flags.scope({"targetingKey": "u1"}):
                done = flags.is_enabled(FLAG)
            assert time.monotonic() < deadline, "the child never got the flags"
            time.sleep(0.01)
        os._exit(0 if flags.close(WITHIN_S) else 1)
    wait_for(pid)
    assert flags.close(WITHIN_S)
    return 1


def begin() -> None:
    """Make this process's client, unless it was inherited."""
    global shared
    if shared is None:
        shared = client()


def follow(_: int = 0) -> int:
    """Work in a process of a pool, which closes nothing."""
    begin()
    assert shared is not None
    see_a_change(shared)
    return work(shared)


def pool(method: str) -> int:
    """Processes and an executor of `multiprocessing`; with "fork" the client is there before."""
    context = multiprocessing.get_context(method)
    done = 0
    if method == "fork":
        begin()
        done = follow()
    processes = [context.Process(target=follow) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(1.5 * WITHIN_S)
        assert process.exitcode == 0
    with ProcessPoolExecutor(2, context) as executor:
        done += sum(executor.map(follow, range(4)))
    if shared is not None:
        assert shared.close(WITHIN_S)
    return done + 2 * UNITS


def pool_fork() -> int:
    return pool("fork")


def pool_spawn() -> int:
    return pool("spawn")


def pool_forkserver() -> int:
    return pool("forkserver")


CASES = {
    case.__name__: case
    for case in (
        pool_fork,
        pool_spawn,
        pool_forkserver,
        under_load,
        unused,
        in_a_listener,
        in_the_reporter,
        daemon,
        with_exec,
        with_locks_held,
        in_a_pause,
        in_a_unit_of_work,
        while_nothing_is_known,
    )
}

if __name__ == "__main__":
    print(CASES[sys.argv[1]]())
