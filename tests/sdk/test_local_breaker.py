import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from flagd_sdk import FlagClient, FlagsChanged
from flagd_sdk.errors import ConfigurationError, StatusError
from tests.sdk.fakes import FakeStream, MemoryTransport, flag, flag_set, sse
from tests.sdk.test_client import client
from tests.waiting import eventually

FLAG = "new-checkout"
NEEDED = 13  # failing units, for the hundred processes that are assumed while nobody has told
ALONE = {"accepted": 0, "refused": [], "processes": 1}


class BrokenError(Exception):
    pass


def online(*chunks: bytes, gate: threading.Event | None = None) -> MemoryTransport:
    transport = MemoryTransport()
    transport.fetches.append(flag_set(flag(), sequence=5))
    transport.streams.append(FakeStream(*chunks, stays_open=True, gate=gate))
    return transport


def request(flags: FlagClient, user: str) -> bool:
    """Serve one request; the new path is broken. Return whether it was taken."""
    took_it = False
    with suppress(BrokenError), flags.scope({"targetingKey": user}):
        took_it = flags.is_enabled(FLAG)
        if took_it:
            raise BrokenError
    return took_it


def until_off(flags: FlagClient) -> int:
    """Let users come until it is off; return how many took the new path."""
    failed = 0
    for number in range(1_000):
        failed += request(flags, f"user-{number}")
        if flags.local_kills:
            return failed
    raise AssertionError("never off")


@pytest.fixture(autouse=True)
def steady_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each unit of work take a microsecond: evidence must outlast the slowest three times,
    and one that a busy machine holds up asks for more of it."""
    ticks = count(1_000_000, 1_000)
    monkeypatch.setattr("flagd_sdk.scope.perf_counter_ns", lambda: next(ticks))


@pytest.fixture
def flags() -> Iterator[FlagClient]:
    with client(online()) as made:
        assert made.wait_until_ready(60)
        yield made


def test_it_goes_off_with_the_request_that_decides(flags: FlagClient) -> None:
    failed = until_off(flags)
    assert failed == NEEDED
    assert not any(request(flags, f"later-{number}") for number in range(200))
    details = flags.details(FLAG, True, {"targetingKey": "user-1"})
    assert details.reason == "DISABLED"
    assert details.flag_metadata["killed_by"] == "local"
    assert str(details.flag_metadata["kill_reason"]).startswith("13 of 13 units with error:Broken")
    kill = flags.local_kills[FLAG]
    assert (kill.flag, kill.config_version, kill.evidence.treatment) == (FLAG, 1, "on")


def test_a_unit_of_work_under_way_goes_on_as_it_began(flags: FlagClient) -> None:
    users = [{"targetingKey": str(number)} for number in range(99)]
    user = next(user for user in users if flags.is_enabled(FLAG, context=user))
    with flags.scope(user):
        others = threading.Thread(target=until_off, args=(flags,))
        others.start()
        others.join()
        assert flags.is_enabled(FLAG) is True
    with flags.scope(user):
        assert flags.is_enabled(FLAG) is False


def test_the_server_is_told_at_once_and_with_every_summary() -> None:
    transport = online()
    with client(transport, heartbeat_interval_s=0.3) as flags:
        assert flags.wait_until_ready(60)
        # Once the stream is opened, nothing more is told of the first flags.
        assert eventually(lambda: transport.last_event_ids)
        heard: list[FlagsChanged] = []
        flags.on_change(heard.append)
        until_off(flags)
        assert eventually(lambda: any(each["local_kills"] for each in transport.summaries))
        assert eventually(lambda: heard)
        count = len(transport.summaries)
        assert eventually(lambda: len(transport.summaries) >= count + 2)
        (told,) = transport.summaries[-1]["local_kills"]
        assert told == flags.local_kills[FLAG].to_document()
        assert heard == [FlagsChanged(frozenset({FLAG}), 5)]


def test_how_many_processes_there_are_is_learned_from_the_reply() -> None:
    transport = online()
    transport.replies.extend([ALONE] * 5)
    with client(transport) as flags:
        assert flags.wait_until_ready(60)
        assert eventually(lambda: transport.summaries)  # the first says what was applied
        assert flags.flush(60)  # and its reply was read
        assert until_off(flags) == 10


def test_the_server_lifts_it_and_only_fresh_evidence_takes_it_off_again() -> None:
    transport = online()
    with client(transport, heartbeat_interval_s=0.2) as flags:
        assert flags.wait_until_ready(60)
        first = until_off(flags)
        transport.replies.append({"accepted": 0, "lifted": [flags.local_kills[FLAG].id, 7, None]})
        assert eventually(lambda: not flags.local_kills)
        assert flags.is_enabled(FLAG, context={"targetingKey": "user-1"}) in (True, False)
        assert flags.details(FLAG, True).reason != "DISABLED"
        assert eventually(lambda: transport.summaries[-1]["local_kills"] == [])
        again = sum(request(flags, f"again-{number}") for number in range(300))
        assert again >= first
        assert flags.local_kills


def test_a_change_by_the_server_ends_it() -> None:
    gate = threading.Event()
    change = {"sequence": 6, "key": FLAG, "flag": flag(version=2)}
    with client(online(sse("flag", change, 6), gate=gate)) as flags:
        assert flags.wait_until_ready(60)
        until_off(flags)
        gate.set()
        assert eventually(lambda: not flags.local_kills)
        assert any(request(flags, f"later-{number}") for number in range(50))


def test_after_a_kill_and_a_restore_the_old_evidence_counts_no_more() -> None:
    gate = threading.Event()
    killed = {"sequence": 6, "key": FLAG, "flag": flag(version=2, killed=True)}
    restored = {"sequence": 7, "key": FLAG, "flag": flag(version=3)}
    with client(online(sse("flag", killed, 6), sse("flag", restored, 7), gate=gate)) as flags:
        assert flags.wait_until_ready(60)
        assert 5 < sum(request(flags, f"before-{number}") for number in range(40)) < NEEDED
        gate.set()
        assert eventually(lambda: flags.flag_set.sequence == 7)
        assert until_off(flags) == NEEDED


def test_a_restarted_process_starts_with_it_off_without_a_server(tmp_path: Path) -> None:
    with client(online(), cache_dir=tmp_path) as flags:
        assert flags.wait_until_ready(60)
        until_off(flags)
        kill = flags.local_kills[FLAG]
        assert flags.close(60), "the disk has it"
    transport = MemoryTransport()
    with client(transport, cache_dir=tmp_path, connect_timeout_s=0.1) as flags:
        assert flags.local_kills == {FLAG: kill}
        assert not any(request(flags, f"user-{number}") for number in range(200))
        assert flags.close(60)
    assert transport.summaries[-1]["local_kills"] == [kill.to_document()]
    with client(MemoryTransport(), cache_dir=tmp_path, local_breaker=False) as flags:
        assert flags.local_kills == {}
        assert flags.is_enabled(FLAG, context={"targetingKey": "user-1"}) in (True, False)
        assert flags.details(FLAG, True).reason != "DISABLED"


def test_it_can_be_turned_off() -> None:
    transport = online()
    with client(transport, local_breaker=False) as flags:
        assert flags.wait_until_ready(60)
        assert sum(request(flags, f"user-{number}") for number in range(400)) > 80
        assert flags.local_kills == {}
        assert flags.close(60)
    assert transport.summaries[-1]["local_kills"] == []
    with pytest.raises(ConfigurationError, match="local_breaker: expected True or False"):
        client(MemoryTransport(), local_breaker="yes")


def test_many_threads_take_it_off_once(flags: FlagClient) -> None:
    def serve(name: int) -> None:
        for number in range(200):
            with flags.scope({"targetingKey": f"{name}-{number}"}) as scope:
                if flags.is_enabled(FLAG):
                    scope.fail("broken")

    threads = [threading.Thread(target=serve, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(flags.local_kills) == 1


def test_a_fault_of_the_breaker_costs_the_application_nothing(
    flags: FlagClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("flagd_sdk.core.guard.breaker.Breaker.hear", broken)
    assert any(request(flags, f"user-{number}") for number in range(50))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_keeps_it_off_and_counts_anew(flags: FlagClient) -> None:
    until_off(flags)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            judge = flags._engine.reporter._breaker
            assert judge is not None
            counts_anew = judge._breaker is None  # seen before the first use starts its threads
            is_off = flags.details(FLAG, True, {"targetingKey": "u"}).reason == "DISABLED"
            code = 0 if is_off and counts_anew else 2
        finally:
            os.write(write, bytes([code]))
            os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"\0"
    os.close(read)
    os.waitpid(child, 0)


def test_summaries_refused_for_their_size_or_token_change_nothing(flags: FlagClient) -> None:
    transport = flags._engine._transport
    assert isinstance(transport, MemoryTransport)
    transport.replies.extend([StatusError(403, "no")] * 3)
    assert until_off(flags) == NEEDED


def test_the_statistics_are_loaded_only_when_they_are_needed() -> None:
    program = (
        "import sys, flagd_sdk; "
        "sys.exit(bool({'dataclasses', 'flagd_sdk.core.guard.breaker'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
