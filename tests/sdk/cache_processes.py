"""Processes that keep flag sets in one folder. Run by test_flag_cache_faults.py.

`python -m tests.sdk.cache_processes killed FOLDER TIMES` kills a writer so often, at any moment;
`python -m tests.sdk.cache_processes shared FOLDER TIMES` lets four write and read at once. They
are forked from this small process, and what is on disk is looked at after each.
"""

import hashlib
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from flagd_sdk.config import ClientConfig
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from tests.sdk.fakes import flag, flag_set

_FLAGS = [flag(f"flag-{number}") for number in range(40)]
_PROCESSES = 4
assert hashlib  # what each child would import is imported before they are forked


def kept_in(folder: Path) -> FlagCache:
    config = ClientConfig(url="http://a", token="fr_sdk_production_SeCrEt", cache_dir=folder)
    return FlagCache(config, Notices(time.monotonic))


def document(sequence: int) -> Mapping[str, object]:
    """Return flags that grow and shrink with the sequence, so that a mixture shows."""
    return flag_set(*_FLAGS[: sequence % 40], sequence=sequence)


def sequence_on_disk(folder: Path) -> int:
    """Return the sequence kept, 0 where there is none; fail on anything but a whole flag set."""
    kept = kept_in(folder)
    assert kept.path is not None
    # Asked before: another process may write the first one after this has found none.
    is_there = os.path.exists(kept.path)
    loaded = kept.load()
    if loaded is None:
        assert not is_there, "a half file"
        return 0
    assert isinstance(loaded, dict)
    sequence: int = loaded["sequence"]
    assert loaded == document(sequence)
    return sequence


def fork(work: Callable[[], None]) -> int:
    """Run this in a child process and return its pid."""
    with warnings.catch_warnings():
        # Python 3.12 warns where a process has threads, as pytest's may; none of them matters here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def write_on(folder: Path, sequence: int) -> None:
    kept = kept_in(folder)
    while True:
        sequence += 1
        kept.save(document(sequence), sequence)


def killed(folder: Path, times: int) -> None:
    chance = random.Random(5)
    held, writes, in_the_middle = 0, 0, 0
    longest_s = 0.004
    for _ in range(times):
        pid = fork(lambda held=held: write_on(folder, held))  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, longest_s))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = sequence_on_disk(folder)
        assert found >= held, "an older one"
        writes += found > held
        # However slow the disk is: a write must come to pass in some of the lives.
        longest_s *= 0.7 if found > held else 1.02
        longest_s = min(max(longest_s, 0.004), 0.1)
        in_the_middle += any(path.suffix == ".new" for path in folder.iterdir())
        held = found
    print(f"{times} killed: {writes} after a write, {in_the_middle} in the middle of one")


def shared(folder: Path, times: int) -> None:
    def work(number: int) -> None:
        kept, newest = kept_in(folder), 0
        for turn in range(times):
            sequence = 1 + turn * _PROCESSES + number
            kept.save(document(sequence), sequence)
            found = sequence_on_disk(folder)
            assert found >= newest, "an older one replaced a newer one"
            newest = found

    pids = [fork(lambda number=number: work(number)) for number in range(_PROCESSES)]  # type: ignore[misc]
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    assert codes == [0] * _PROCESSES, codes
    print(f"{_PROCESSES} processes wrote {times} times each; {sequence_on_disk(folder)} is kept")


if __name__ == "__main__":
    {"killed": killed, "shared": shared}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
