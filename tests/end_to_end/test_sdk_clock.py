"""Clocks that jump, by libfaketime, and a process that is suspended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from flagd_server.storage import open_storage
from tests.end_to_end.faketime import HOURS_S, FakeClock
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import REPOSITORY
from tests.end_to_end.stream_reader import StreamReader

# Of a machine that may stand still for seconds; a poll would come after ten minutes, and what waits
# for the wrong clock after hours.
SEEN_WITHIN_S = 30.0
MAX_BUSY = 0.1  # of one processor


class Shop(NamedTuple):
    process: "subprocess.Popen[str]"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self, word: str) -> list[float]:
        """Return the figures behind the word that is to come next."""
        assert self.process.stdout is not None
        got, *figures = self.process.stdout.readline().split() or [""]
        assert got == word, self.process.communicate(timeout=20)[1]
        return [float(figure) for figure in figures]


@contextmanager
def shop(server: FlagServer, flag: str, **settings: str) -> Iterator[Shop]:
    server.create_flag(flag, default_serve={"variant": "on"})
    settings |= {
        "FLAGD_URL": server.url,
        "FLAGD_TOKEN": server.sdk_tokens["production"],
        "FLAG": flag,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.clock_app"],
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Shop(process)
        finally:
            process.kill()


def end_and_count(running: Shop, server: FlagServer, flag: str) -> None:
    """End the shop; hold the server's counts to its own."""
    output, errors = running.process.communicate(timeout=100)
    assert (running.process.returncode, errors) == (0, "")
    with closing(open_storage(str(server.database))) as storage, storage.read() as reader:
        counted = sum(row.exposures for row in reader.counts("production", flag, 0))
    assert counted == int(output.split()[-1])


def test_a_wall_clock_that_jumps_by_hours_changes_nothing(
    module_server: FlagServer, tmp_path: Path
) -> None:
    clock = FakeClock(tmp_path)
    with shop(module_server, "wall", **clock.settings) as running:
        (then,) = running.hear("ready")
        assert abs(then - time.time()) < 60
        for jump_s, is_on in ((HOURS_S, False), (-HOURS_S, True), (0, False)):
            clock.jump(jump_s)
            running.tell("on" if is_on else "off")
            now, busy = running.hear("jumped")
            assert abs(now - time.time() - jump_s) < 60, "the clock has not jumped"
            assert busy < MAX_BUSY, "something spins"
            module_server.configure("wall", enabled=is_on)
            seen_s, _ = running.hear("changed")
            assert seen_s < SEEN_WITHIN_S
        end_and_count(running, module_server, "wall")


def test_a_suspended_process_goes_on_where_the_flags_are_by_then(
    module_server: FlagServer,
) -> None:
    with shop(module_server, "suspended") as running:
        running.hear("ready")
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        running.process.send_signal(signal.SIGCONT)
        running.tell("off")
        _, busy = running.hear("jumped")
        assert busy < MAX_BUSY, "something spins"
        module_server.configure("suspended", enabled=False)
        seen_s, _ = running.hear("changed")
        assert seen_s < SEEN_WITHIN_S
        # And what changes meanwhile is known at once.
        running.process.send_signal(signal.SIGSTOP)
        token = module_server.sdk_tokens["production"]
        other = StreamReader(module_server.port, token)
        with closing(other.sock):
            other.read_until(lambda r: bool(r.events), "the set")
            module_server.configure("suspended", enabled=True)
            # The server tells all at once.
            other.read_until(lambda r: bool(r.flag_events()), "the change")
        time.sleep(1.0)
        running.process.send_signal(signal.SIGCONT)
        running.tell("on")
        running.hear("jumped")
        _, looks = running.hear("changed")
        assert looks == 1, "it was there before anybody looked"
        end_and_count(running, module_server, "suspended")
