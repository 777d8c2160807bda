import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from flagd_sdk import ClientStatus, ConfigurationError, FlagClient, FlagsChanged
from flagd_sdk.config import ClientConfig
from flagd_sdk.flag_cache import FlagCache
from flagd_sdk.notices import Notices
from tests.sdk.fakes import FakeStream, MemoryTransport, flag, flag_set, sse, text_flag
from tests.waiting import eventually


def client(transport: MemoryTransport | None = None, **settings: Any) -> FlagClient:
    return FlagClient(
        "http://server",
        "t_secret",
        transport=transport or MemoryTransport(),
        **{"cache_dir": None, **settings},
    )


def served(*chunks: bytes, gate: threading.Event | None = None) -> MemoryTransport:
    transport = MemoryTransport()
    transport.fetches.append(flag_set(flag("on", on=100_000), text_flag(), sequence=5))
    transport.streams.append(FakeStream(*chunks, stays_open=True, gate=gate))
    return transport


def test_it_becomes_ready_and_follows_changes() -> None:
    change = {"sequence": 6, "key": "on", "flag": flag("on", killed=True)}
    heard: list[FlagsChanged] = []
    gate = threading.Event()
    transport = served(sse("flag", change, 6), gate=gate)
    with client(transport) as flags:
        assert flags.wait_until_ready(60)
        assert flags.is_enabled("on") is True
        # Once the stream is opened, nothing more is told of the first flags.
        assert eventually(lambda: transport.last_event_ids)
        flags.on_change(heard.append)
        gate.set()
        assert eventually(lambda: flags.flag_set.sequence == 6)
        assert flags.is_enabled("on", True) is False
        assert flags.details("on", True).reason == "DISABLED"
        assert flags.status == ClientStatus.READY
        assert eventually(lambda: heard)
    assert heard == [FlagsChanged(frozenset({"on"}), 6)]


def test_it_tells_its_status_until_that_is_ended() -> None:
    heard: list[ClientStatus] = []
    gate = threading.Event()
    with client(served(sse("flag", {}, 6), gate=gate), poll_interval_s=3600.0) as flags:
        assert flags.wait_until_ready(60)
        end = flags.on_status(heard.append)
        gate.set()  # what comes can't be read, so the stream is given up
        assert eventually(lambda: ClientStatus.STALE in heard)
        end()
        known = len(heard)
        flags._state.confirm()
        assert len(heard) == known


def test_the_current_scope_is_the_innermost_open_one_of_this_client() -> None:
    with client() as flags, client() as other:
        assert flags.current_scope is None
        with flags.scope({"targetingKey": "u-1"}) as outer, other.scope() as foreign:
            assert flags.current_scope is outer
            assert other.current_scope is foreign
            with flags.scope() as inner:
                assert flags.current_scope is inner
            assert flags.current_scope is outer
        assert flags.current_scope is None


def test_an_applied_kill_is_told_to_the_server_at_once() -> None:
    change = {"sequence": 6, "key": "on", "flag": flag("on", killed=True)}
    transport = served(sse("flag", change, 6))
    with client(transport, heartbeat_interval_s=3600.0):
        assert eventually(lambda: any(s["applied_sequence"] == 6 for s in transport.summaries))


class HangingTransport(MemoryTransport):
    """A server that takes connections and never answers, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def fetch_flags(self, etag: str) -> Any:
        self.released.wait()
        return super().fetch_flags(etag)

    def send_summary(self, body: bytes) -> Any:
        self.released.wait()
        return super().send_summary(body)


def test_nothing_waits_for_a_server_that_hangs() -> None:
    began = monotonic()
    transport = HangingTransport()
    # None of the client's own times, if it is waited for one of them, passes for a busy machine.
    flags = client(transport, connect_timeout_s=90.0, request_timeout_s=90.0, exit_timeout_s=90.0)
    assert flags.is_enabled("on", True) is True
    assert not flags.wait_until_ready(0.01)
    assert flags.status == ClientStatus.NOT_READY
    flags._engine.reporter.unscoped("on")
    assert not flags.flush(0.01)
    assert not flags.close(0.05)
    assert monotonic() - began < 60.0
    transport.released.set()
    assert flags.close(60)


def test_values_before_the_first_contact_come_from_disk_then_bootstrap_then_the_caller(
    tmp_path: Path,
) -> None:
    boot = tmp_path / "boot.json"
    boot.write_text(json.dumps(flag_set(text_flag(value="bootstrap"))))
    cache = tmp_path / "cache"

    with client() as flags:
        assert flags.value("colour", "default") == "default"
        assert flags.status == ClientStatus.NOT_READY
    with client(bootstrap=boot, cache_dir=cache) as flags:
        assert flags.value("colour", "default") == "bootstrap"
        assert flags.status == ClientStatus.STALE
    with client(served(), bootstrap=boot, cache_dir=cache) as flags:
        assert flags.wait_until_ready(60)
        assert flags.value("colour", "default") == "green"
        assert flags.close(60), "the disk has it"
    with client(bootstrap=boot, cache_dir=cache) as flags:
        assert flags.value("colour", "default") == "green"
        assert not flags.wait_until_ready(0)


@pytest.mark.parametrize("content", [None, "{", "[]", "\ud800", "[" * 100_000])
def test_a_bootstrap_that_cannot_be_used_is_told_at_once(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "boot.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigurationError, match=r"^bootstrap: expected a flag set"):
        client(bootstrap=path)


def test_a_kept_flag_set_that_cannot_be_used_gives_way_to_the_bootstrap(tmp_path: Path) -> None:
    config = ClientConfig(url="http://server", token="t_secret", cache_dir=tmp_path)
    FlagCache(config, Notices(monotonic)).save({"not": "flags"}, 9)
    with client(bootstrap=flag_set(text_flag()), cache_dir=tmp_path) as flags:
        assert flags.value("colour", "default") == "green"


def test_evaluation_never_raises_whatever_it_is_given() -> None:
    with client(bootstrap=flag_set(flag("on", on=100_000), flag("split"))) as flags:
        odd: Any
        for odd in (None, 7, [], {}, object(), "\ud800", b"on"):
            assert flags.is_enabled(odd, True) is True
            assert flags.value(odd, "x") == "x"
            assert flags.details(odd, 1).reason == "ERROR"
            assert isinstance(flags.is_enabled("split", context=odd), bool)
            assert isinstance(flags.all_flags(odd), dict)
            with flags.scope(odd):
                assert isinstance(flags.is_enabled("split"), bool)
                flags.fail(odd)
            with flags.scope({"targetingKey": odd}):
                assert isinstance(flags.is_enabled("split"), bool)
                flags.fail(odd, flag=odd)


def test_all_flags_counts_nothing() -> None:
    with client(bootstrap=flag_set(flag("on", on=100_000), text_flag())) as flags:
        values = {key: details.value for key, details in flags.all_flags({}).items()}
        assert values == {"on": True, "colour": "green"}
        assert not flags._engine.reporter._has_news


def test_flushing_reports_what_was_counted_up_to_then() -> None:
    transport = served()
    with client(transport, report_interval_s=3600.0, heartbeat_interval_s=3600.0) as flags:
        assert flags.wait_until_ready(60)
        with flags.scope({"targetingKey": "u1"}):
            flags.is_enabled("on")
        assert flags.flush(60)
        assert sum(len(s["cells"]) for s in transport.summaries) == 1


def test_closing_sends_the_last_summary_and_values_stay() -> None:
    transport = served()
    flags = client(transport, report_interval_s=3600.0)
    assert flags.wait_until_ready(60)
    with flags.scope({"targetingKey": "u1"}):
        flags.is_enabled("on")
    running = threads(flags)
    assert flags.close(60)
    assert flags.close(60)
    assert [c["flag"] for s in transport.summaries for c in s["cells"]] == ["on"]
    assert flags.is_enabled("on")
    with flags.scope({"targetingKey": "u1"}):
        assert flags.is_enabled("on")
    assert len(running) == 2
    assert not any(thread.is_alive() for thread in running)


def threads(flags: FlagClient) -> list[threading.Thread]:
    """Return a client's own; those of other tests' clients may be about to end."""
    engine = flags._engine
    return [worker._thread for worker in (engine.stream, engine.reporter) if worker._thread]


def test_a_client_that_nobody_holds_ends_its_threads() -> None:
    flags = client(served())
    assert flags.wait_until_ready(60)
    gone = weakref.ref(flags)
    running = threads(flags)
    assert [thread.is_alive() for thread in running] == [True, True]
    del flags
    gc.collect()
    assert gone() is None
    assert eventually(lambda: not any(thread.is_alive() for thread in running))


def test_the_token_is_not_shown() -> None:
    with client() as flags:
        assert "secret" not in repr(flags)


def test_importing_loads_neither_the_http_stack_nor_threads() -> None:
    code = (
        "import sys, threading, flagd_sdk;"
        "heavy = {'requests', 'urllib3', 'ssl', 'pydantic', 'flask', 'asyncio', 'inspect'};"
        "print(sorted(heavy & sys.modules.keys()), threading.active_count())"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[] 1"


def test_a_client_that_was_not_closed_reports_at_exit_within_its_time() -> None:
    code = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from flagd_sdk import FlagClient
from tests.sdk.fakes import MemoryTransport, flag, flag_set

class Printing(MemoryTransport):
    def fetch_flags(self, etag):
        threading.Event().wait()

    def send_summary(self, body):
        print("sent", flush=True)
        threading.Event().wait()

flags = FlagClient("http://server", "t", bootstrap=flag_set(flag("on", on=100_000)),
                   cache_dir=None, transport=Printing(), report_interval_s=3600.0,
                   exit_timeout_s=3.0)
with flags.scope({"targetingKey": "u1"}):
    flags.is_enabled("on")
"""
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, root],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        timeout=60,  # it would wait for ever
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "sent\n", "")


def test_a_change_on_top_of_flags_that_the_server_no_longer_has_is_not_kept_on_disk(
    tmp_path: Path,
) -> None:
    """It has the server's newest sequence: begun with again, it would never be put right."""
    config = ClientConfig(url="http://server", token="t_secret", cache_dir=tmp_path)
    transport = MemoryTransport()
    transport.fetches.append(flag_set(flag("on", on=100_000), text_flag(), sequence=100))
    put_back = sse("flags", flag_set(flag("on"), sequence=50), 50)
    kill = sse("flag", {"sequence": 101, "key": "on", "flag": flag("on", killed=True)}, 101)
    gate = threading.Event()
    transport.streams.append(FakeStream(put_back + kill, gate=gate))
    with client(transport, cache_dir=tmp_path, poll_interval_s=3600.0) as flags:
        assert flags.wait_until_ready(60)
        assert eventually(lambda: FlagCache(config, Notices(monotonic)).load()), "kept before"
        gate.set()
        assert eventually(lambda: flags.flag_set.sequence == 101)
        assert flags.is_enabled("on", True) is False
        assert flags.close(60)
    kept = FlagCache(config, Notices(monotonic)).load()
    assert isinstance(kept, dict)
    assert kept["sequence"] == 100
